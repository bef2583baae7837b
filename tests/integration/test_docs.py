"""What the documentation tells a user to type works as it stands: the blocks that are marked with <!-- run -->, and all links."""
import glob
import os
import re
import subprocess

import pytest

from harness.client import TOP
from harness.daemon import program

PAGES = sorted(path for pattern in ("*.md", "docs/**/*.md", "clients/**/*.md") for path in glob.glob(os.path.join(TOP, pattern), recursive=True))


def blocks():
    """(page, number, commands) of each block that is to be run."""
    for page in PAGES:
        with open(page, encoding="utf-8") as file:
            found = re.findall(r"<!-- run -->\n```console\n(.*?)```", file.read(), flags=re.S)
        for number, block in enumerate(found, 1):
            text = re.sub(r"\\\n\s*", " ", block)
            commands = [line[2:] for line in text.split("\n") if line.startswith("$ ")]
            yield pytest.param(commands, id=f"{os.path.relpath(page, TOP)} {number}")


@pytest.mark.parametrize("commands", list(blocks()))
def test_commands(daemon, commands):
    folders = {os.path.dirname(program("VPCTL", "clients/cli/vpctl")), os.path.dirname(program("VIRTPLANED", "server/virtplaned"))}
    env = dict(daemon.env, VIRTPLANE_ENDPOINT=daemon.address, PATH=os.pathsep.join([*folders, os.environ["PATH"]]))
    assert commands
    for command in commands:
        done = subprocess.run(["bash", "-c", command], cwd=daemon.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=60)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: os.path.relpath(page, TOP))
def test_links(page):
    with open(page, encoding="utf-8") as file:
        links = re.findall(r"\]\(([^)#\s]+)", file.read())
    for link in links:
        if "://" not in link:
            assert os.path.exists(os.path.join(os.path.dirname(page), link)), f"{page}: {link} leads nowhere"
