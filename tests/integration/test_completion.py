"""Completion, as a person gets it: Tab in a real bash and a real zsh; and what vpctl answers to the scripts."""
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time

import pytest

from harness import images
from harness.daemon import program
from harness.domains import create

VPCTL = program("VPCTL", "clients/cli/vpctl")


@pytest.fixture
def env(daemon, client):
    create(client, "web-1")
    create(client, "web-2")
    images.raw(daemon.path("disk.raw"))
    return dict(daemon.env, VIRTPLANE_ENDPOINT=daemon.address, LC_ALL="C.UTF-8", HOME=daemon.folder, TERM="dumb", HISTFILE="/dev/null",
                PATH=os.pathsep.join([os.path.dirname(VPCTL), os.environ["PATH"]]))


def fits(env, *words):
    done = subprocess.run([VPCTL, "__complete", *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=90)
    assert done.returncode == 0 and not done.stderr, done
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("words, wanted", [
    ("ev", {"events"}),
    ("domain st", {"start", "stats"}),
    ("domain shutdown web-1 --mode ", {"agent", "acpi"}),
    ("-o json domain sh", {"show", "shutdown"}),
    ("domain start web", {"web-1", "web-2"}),
    ("domain start web-1 ", {"web-1", "web-2"}),
    ("domain create ", set()),
    ("domain create x --mem", {"--memory"}),
    ("domain create x --driver te", {"test"}),
    ("domain create x --disk ", {":files"}),
    ("domain list --state sh", {"shutoff", "shutting-down"}),
    ("domain list --output=w", {"--output=wide"}),
    ("image inspect -F qcow", {"qcow", "qcow2"}),
    ("image inspect ", {":files"}),
    ("image list ", {":folders"}),
    ("image explain PROBE_U", {"PROBE_USED"}),
    ("events --filter res", {"resource="}),
    ("events --filter resource=d", {"resource=domain", "resource=daemon"}),
    ("events --filter type=domain-adop", {"type=domain-adopted"}),
    ("events --filter name=web-1", {"name=web-1"}),
    ("completion ", {"bash", "zsh"}),
    ("auth can-i SaveD", {"SaveDomain"}),
    ("--connect unix:/nonexistent domain start ", set()),
    ("nonsense ", set()),
    ("--conn", {"--connect"}),
])
def test_what_fits(env, words, wanted):
    parts = words.split(" ")
    assert set(fits(env, *parts)) == wanted


def test_options_are_those_of_the_help(env):
    """Every option that a command's help shows is offered for it."""
    for words in (["domain", "create"], ["domain", "list"], ["image", "graph"], ["events"], ["admin", "restore"]):
        text = subprocess.run([VPCTL, *words, "--help"], env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
        assert set(re.findall(r"--[a-z-]+", text.split("Examples")[0])) == set(fits(env, *words, "--"))


class Shell:
    """A shell on a terminal; typed() types and answers what the line has become."""

    def __init__(self, command, env, folder, start):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], command, env)
        self.typed("PS1='> '; " + start + "; echo re''ady\n", until="ready")

    def typed(self, text, until):
        os.write(self.fd, text.encode())
        said, deadline = "", time.monotonic() + 90
        while until not in said:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"typed {text!r}, and {until!r} did not come:\n{said}"
            said += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x07", "", os.read(self.fd, 65536).decode(errors="replace"))
        return said

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


SHELLS = {
    "bash": (["bash", "--norc", "-i"], "source <(vpctl completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; source <(vpctl completion zsh)"),
}


@pytest.mark.parametrize("name", list(SHELLS))
def test_tab(daemon, env, name):
    command, start = SHELLS[name]
    if not shutil.which(command[0]):
        pytest.skip(f"there is no {name}")
    shell = Shell(command, env, daemon.folder, start)
    try:
        for typed, becomes in (("vpctl domain sho\t", "vpctl domain show "), ("vpctl domain show web-\t\t", "web-2"),
                               ("vpctl domain list --output=js\t", "--output=json"), ("vpctl events --filter type=domain-ado\t", "type=domain-adopted"),
                               ("vpctl image probe disk.r\t", "disk.raw"), ("vpctl image explain PROBE_US\t", "PROBE_USED")):
            shell.typed(typed, until=becomes)
            os.write(shell.fd, b"\x15")  # Ctrl-U: an empty line again
        shell.typed("vpctl events --filter resource=dae\t --filter name=x\n", until="no events")
    finally:
        shell.end()
