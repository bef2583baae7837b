"""Programs and files in a guest while QEMU or the daemon fails: each call ends in time, says why, and the guest is as is told."""
import os
import queue
import signal
import threading
import time

import grpc
import pytest

from harness import guest
from harness.client import pb
from harness.daemon import wait_until
from harness.domains import get, state
from harness.errors import refused
from harness.faults import fault
from test_guest_agent import NAME, Exec, alive, connected, open_files, read, run, write

# A boot without KVM takes its time.
pytestmark = pytest.mark.timeout(900)

UNAVAILABLE, DEADLINE = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED


class Transfers:
    """A program that runs, a file that is read and one that is written, all in the midst of it."""

    def __init__(self, client, seconds=120):
        self.codes, self.parts = {}, queue.Queue()
        self.program = Exec(client, "/bin/sh", "-c", "echo here; exec sleep 1000", timeout=seconds).until(b"here")
        self.reading = client.guest.ReadGuestFile(pb.ReadGuestFileRequest(name=NAME, path="/dev/zero"), timeout=seconds)
        next(self.reading)
        self.parts.put(pb.WriteGuestFileRequest(open=pb.WriteGuestFileOpen(name=NAME, path="/tmp/half")))
        self.parts.put(pb.WriteGuestFileRequest(data=b"x" * 100000))
        calls = {"program": self.program.end, "read": lambda: list(self.reading),
                 "write": lambda: client.guest.WriteGuestFile(iter(self.parts.get, None), timeout=seconds)}
        self.threads = [threading.Thread(target=self._run, args=item, daemon=True) for item in calls.items()]
        for thread in self.threads:
            thread.start()

    def _run(self, name, call):
        try:
            call()
            self.codes[name] = grpc.StatusCode.OK
        except grpc.RpcError as error:
            self.codes[name] = error.code()

    def end(self, within):
        """How each has ended."""
        deadline = time.monotonic() + within
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self.threads), f"only these have ended: {self.codes}"
        self.parts.put(None)
        return self.codes


def check_qemu_is_stopped(client, shell, pid):
    before = open_files(shell)
    under_way = transfers(client, shell, seconds=8)
    os.kill(pid, signal.SIGSTOP)
    assert set(under_way.end(within=20).values()) == {DEADLINE}
    # Others are answered meanwhile.
    assert get(client, NAME).status.pid == pid
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: state(client, NAME) == "RUNNING" and connected(client), "the agent's next answer")
    assert run(client, "/bin/echo", "again") == "again\n"
    wait_until(lambda: not alive(client, under_way.program.pid), "the program's end", timeout=90)
    wait_until(lambda: open_files(shell) == before, "the files' close in the guest", timeout=90)


def transfers(client, shell, seconds=120):
    """All of them have begun."""
    shell.run("rm -f /tmp/half")
    under_way = Transfers(client, seconds)
    wait_until(lambda: shell.run("[ -e /tmp/half ] && echo there || true") == "there", "the file that is written")
    return under_way


def check_the_daemon_is_killed(daemon, client, shell):
    under_way = transfers(client, shell)
    daemon.kill()
    assert set(under_way.end(within=20).values()) == {UNAVAILABLE}
    daemon.close_clients()
    client = daemon.start().client()
    wait_until(lambda: connected(client), "the agent, to the next daemon")
    # It goes on, as nobody has asked it to end.
    assert alive(client, under_way.program.pid)
    run(client, "/bin/kill", str(under_way.program.pid))
    assert "virtplane" not in run(client, "/bin/ls", "/tmp")
    # Nobody knows the number by which the agent has the files; they can be written anew.
    opened = shell.run("ls -l /proc/$(pidof qemu-ga)/fd")
    assert "/tmp/half" in opened and "/dev/zero" in opened
    assert write(client, "/tmp/half", b"whole") == 5 and read(client, "/tmp/half") == b"whole"
    return client


def check_qemu_is_killed(client, shell, pid):
    under_way = transfers(client, shell)
    os.kill(pid, signal.SIGKILL)
    assert set(under_way.end(within=20).values()) == {UNAVAILABLE}
    wait_until(lambda: state(client, NAME) == "CRASHED", "the domain's end")
    with refused("FAILED_PRECONDITION", "WRONG_STATE"):
        run(client, "/bin/true")


@fault(("guest command", "guest file"), "QEMU is stopped (SIGSTOP)",
       told="DEADLINE_EXCEEDED in the time asked for; once it goes on the program is ended, what was opened in the guest is closed, and the next call is "
       "answered")
@fault("guest command", "the daemon is killed", told="UNAVAILABLE; the program goes on, and has no file with a name")
@fault("guest file", "the daemon is killed",
       told="UNAVAILABLE; a file that was written to is there in part, and the agent has it open until it ends; the next call is answered")
@fault("guest command", "QEMU is killed")
@fault("guest file", "QEMU is killed", told="UNAVAILABLE; DOMAIN_CRASHED")
def test_programs_and_files_while_qemu_or_the_daemon_fails(daemon, client):
    with guest.shell(client, NAME, guest_agent=True) as shell:
        wait_until(lambda: connected(client), "the agent's first answer")
        pid = get(client, NAME).status.pid
        check_qemu_is_stopped(client, shell, pid)
        client = check_the_daemon_is_killed(daemon, client, shell)
        check_qemu_is_killed(client, shell, pid)
