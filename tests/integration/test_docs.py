"""What the documentation tells a user to type works as it stands: the blocks that are marked with <!-- run -->, and all links."""
import glob
import os
import re
import signal
import subprocess

import pytest

from harness.client import TOP
from harness.daemon import program
from test_protocol import BUILT, later_methods

PAGES = sorted(path for pattern in ("*.md", "docs/**/*.md", "clients/**/*.md") for path in glob.glob(os.path.join(TOP, pattern), recursive=True))


# What a page takes for granted, and a program that a block needs beside ours.
DEFAULT_SOCKET = "/run/virtplane/virtplaned.sock"
NEEDED = {"grpcurl": os.path.join(TOP, ".cache/go/grpcurl")}


def blocks():
    """(commands, needs) of each block that is to be run: a whole one is one script, for what it starts and the variables that it sets."""
    for page in PAGES:
        with open(page, encoding="utf-8") as file:
            found = re.findall(r"<!-- run(?: with (\w+))? -->\n```console\n(.*?)```", file.read(), flags=re.S)
        for number, (needs, block) in enumerate(found, 1):
            text = re.sub(r"\\\n\s*", " ", block)
            commands = [line[2:] for line in text.split("\n") if line.startswith("$ ")]
            yield pytest.param(commands, needs, id=f"{os.path.relpath(page, TOP)} {number}")


@pytest.mark.parametrize("commands, needs", list(blocks()))
def test_commands(daemon, commands, needs):
    if needs and not os.path.exists(NEEDED[needs]):
        pytest.skip(f"there is no {needs}")
    folders = {os.path.dirname(path) for path in (program("VPCTL", "clients/cli/vpctl"), program("VIRTPLANED", "server/virtplaned"), *NEEDED.values())}
    env = dict(daemon.env, VIRTPLANE_ENDPOINT=daemon.address, PATH=os.pathsep.join([*folders, os.environ["PATH"]]))
    script = "\n".join(commands).replace(DEFAULT_SOCKET, daemon.socket)
    assert commands
    # To a file: what a block starts in the background may hold it open for longer than the script runs.
    with open(daemon.path("said"), "w+", encoding="utf-8", errors="replace") as said:
        shell = subprocess.Popen(["bash", "-evm", "-o", "pipefail", "-c", script], cwd=daemon.folder, env=env, stdin=subprocess.DEVNULL, stdout=said,
                                 stderr=said, start_new_session=True)
        try:
            code = shell.wait(300)
        except subprocess.TimeoutExpired:
            shell.kill()
            code = shell.wait()
        left = [int(pid) for pid in subprocess.run(["pgrep", "-s", str(shell.pid)], stdout=subprocess.PIPE, text=True).stdout.split()]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        said.seek(0)
        text = said.read()
    assert code == 0, f"ended with {code}:\n{text}"
    assert not left, f"left something running:\n{text}"


def test_what_is_not_built_is_said():
    """README.md's table has exactly the methods that answer UNIMPLEMENTED (test_protocol.py asks for each)."""
    later = {}
    for method in later_methods():
        later.setdefault(method.containing_service.name, []).append(method.name)
    rows = [f"| {service} | {' '.join(names) if service in BUILT else 'all'} |" for service, names in later.items()]
    with open(os.path.join(TOP, "README.md"), encoding="utf-8") as file:
        said = file.read().split("<!-- not built -->")[1].split("\n\n")[0].strip().split("\n")[2:]
    assert sorted(said) == sorted(rows), "README.md should say:\n" + "\n".join(sorted(rows))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: os.path.relpath(page, TOP))
def test_links(page):
    with open(page, encoding="utf-8") as file:
        links = re.findall(r"\]\(([^)#\s]+)", file.read())
    for link in links:
        if "://" not in link:
            assert os.path.exists(os.path.join(os.path.dirname(page), link)), f"{page}: {link} leads nowhere"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: os.path.relpath(page, TOP))
def test_files_that_are_named(page):
    """A file of ours that a page names in backticks is there, from the top or beside the page."""
    with open(page, encoding="utf-8") as file:
        named = re.findall(r"`((?:base|build|clients|docs|drivers|packaging|proto|server|storage|tests|tools)/[\w./*-]+)`", file.read())
    for name in named:
        assert glob.glob(os.path.join(TOP, name)), f"{page}: there is no {name}"
