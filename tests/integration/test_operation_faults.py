"""Each operation on a running domain under each fault: QEMU killed or cut off, an error for an answer, the daemon killed at each step. One QEMU serves many."""
import contextlib
import os
import signal
import threading

import grpc
import pytest

from harness import picture
from harness.client import pb
from harness.console import Stream
from harness.daemon import alive, process_state, wait_until
from harness.domains import act, answers, create, get, state
from harness.errors import Refusal, refused
from harness.events import Events
from harness.faults import fault
from harness.qmp import between
from harness.steps import CALLS, Steps

VERBS = ("pause", "resume", "reset", "shutdown")
# What each is to QEMU.
COMMANDS = {"pause": "stop", "resume": "cont", "reset": "system_reset", "shutdown": "system_powerdown", "screenshot": "screendump", "stats": "query-cpus-fast"}
QUICK = "[qemu]\nping_interval_ms=50\n"
FULL = bool(os.environ.get("VIRTPLANE_FULL"))


def running(client, **fields):
    create(client, "vm", driver="qemu", accelerator=pb.ACCELERATOR_TCG, graphics=[pb.GRAPHICS_TYPE_VNC], **fields)
    return act(client, "Start", "vm").domain.status.pid


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", "the stop")


def do(client, operation, seconds=20):
    """The operation, whatever it is; its answer."""
    if operation == "screenshot":
        return picture.take(client, "vm", timeout=seconds)
    if operation == "stats":
        return client.domain.GetDomainStats(pb.GetDomainStatsRequest(name="vm"), timeout=seconds).stats
    return act(client, {"power off": "PowerOff"}.get(operation, operation.title()), "vm", timeout_seconds=seconds)


def prepare(client, operation):
    """Into the state in which it has something to do."""
    wanted = "PAUSED" if operation == "resume" else "RUNNING"
    if state(client, "vm") == "SHUTTING_DOWN":
        act(client, "Reset", "vm")
    if state(client, "vm") != wanted:
        act(client, "Pause" if wanted == "PAUSED" else "Resume", "vm")
    assert state(client, "vm") == wanted
    return wanted


class Later(threading.Thread):
    """A call on a thread of its own."""

    def __init__(self, *arguments):
        super().__init__(daemon=True)
        self.arguments, self.answer, self.error = arguments, None, None
        self.start()

    def run(self):
        try:
            self.answer = do(*self.arguments)
        except grpc.RpcError as error:
            self.error = Refusal(error)

    def wait(self):
        self.join(60)
        assert not self.is_alive(), "the call does not end"
        return self


@fault((*VERBS, "screenshot"), "QEMU answers an error",
       told="FAILED_PRECONDITION, `QMP_ERROR` with QEMU's words; the domain is as it was, and the next call is done")
@fault("stats", "QEMU answers an error", told="what else is known is answered")
def test_an_error_for_an_answer(make_daemon):
    daemon = make_daemon(config=QUICK).start()
    pid = running(daemon.client())
    with between(daemon) as (client, qmp):
        for operation in (*VERBS, "screenshot"):
            before = prepare(client, operation)
            qmp.refuses = {COMMANDS[operation]}
            with refused("FAILED_PRECONDITION", "QMP_ERROR") as refusal:
                do(client, operation)
            assert "no luck today" in refusal.error.message and "vm" in refusal.error.message, refusal.error
            assert state(client, "vm") == before and get(client, "vm").status.pid == pid
            qmp.refuses = set()
            do(client, operation)
        prepare(client, "stats")
        qmp.refuses = {COMMANDS["stats"]}
        told = do(client, "stats")
        assert told.state == pb.DOMAIN_STATE_RUNNING and told.memory.actual_bytes > 0 and told.cpu_time_ns > 0
        qmp.refuses = set()
        act(client, "PowerOff", "vm")


@fault((*VERBS, "screenshot"), "the QMP socket is closed", told="DEADLINE_EXCEEDED in the time asked for; the daemon connects again, and the next call is done")
@fault("stats", "the QMP socket is closed", told="what the host knows, within a second")
@fault("power off", "the QMP socket is closed", told="done: it needs no answer of QEMU's")
def test_the_socket_is_closed_meanwhile(make_daemon):
    daemon = make_daemon(config=QUICK).start()
    pid = running(daemon.client())
    with between(daemon) as (client, qmp):
        for operation in (*VERBS, "screenshot", "stats"):
            prepare(client, operation)
            qmp.swallowed, qmp.swallows = [], {COMMANDS[operation]}
            call = Later(daemon.client(), operation, 2)
            wait_until(lambda operation=operation: COMMANDS[operation] in qmp.swallowed, "the command")
            qmp.cut()
            call.wait()
            if operation == "stats":
                assert call.error is None and call.answer.cpu_time_ns > 0, call.error
            else:
                assert call.error.code == "DEADLINE_EXCEEDED", call.error
            qmp.swallows = set()
            wait_until(lambda: do(client, "stats").state != pb.DOMAIN_STATE_UNRESPONSIVE, "the next connection")
            assert get(client, "vm").status.pid == pid
            do(client, operation)
        qmp.connected = False
        qmp.cut()
        do(client, "power off")
        assert not alive(pid) and state(client, "vm") == "SHUTOFF"


@fault(VERBS, "QEMU is killed", told="FAILED_PRECONDITION, `DOMAIN_ENDED`, but a shutdown is done; DOMAIN_CRASHED, and it can be started again")
@fault("power off", "QEMU is killed", told="done")
def test_qemu_is_killed_meanwhile(daemon, client):
    """It stands still while it is asked, so that the call is under way."""
    create(client, "vm", driver="qemu", accelerator=pb.ACCELERATOR_TCG, graphics=[pb.GRAPHICS_TYPE_VNC])
    for operation in VERBS:
        events = Events(client)
        pid = act(client, "Start", "vm").domain.status.pid
        prepare(client, operation)
        stop(pid)
        call = Later(daemon.client(), operation)
        wait_until(lambda operation=operation: get(client, "vm").status.job.type == f"domain.{operation}", "the job")
        os.kill(pid, signal.SIGKILL)
        call.wait()
        # The end is what a shutdown is for, whoever brings it about.
        assert operation == "shutdown" or (call.error.code, call.error.reason) == ("FAILED_PRECONDITION", "DOMAIN_ENDED"), call.error
        events.until("DOMAIN_CRASHED", "vm")
        assert state(client, "vm") == "CRASHED" and get(client, "vm").status.pid == 0
    pid = act(client, "Start", "vm").domain.status.pid
    stop(pid)
    os.kill(pid, signal.SIGKILL)
    do(client, "power off")
    assert state(client, "vm") in ("SHUTOFF", "CRASHED") and daemon.hypervisors() == []


@pytest.mark.parametrize("operation", [*VERBS, "screenshot", "power off"])
@fault((*VERBS, "screenshot", "power off"), "the daemon is killed, at any step",
       told="UNAVAILABLE; the next one takes the domain up as QEMU has it, the operation done or not, and the next call is done")
def test_the_daemon_is_killed_at_each_step(make_daemon, operation):
    daemon = make_daemon(config=QUICK)
    steps = Steps(daemon)
    daemon.start()
    client = daemon.client()
    pid = running(client)
    prepare(client, operation)
    steps.arm(0)
    do(client, operation)
    total = steps.get(CALLS)
    died = 0
    for number in range(1, total + 1, 1 if FULL or total < 12 else 2):
        if not alive(pid):
            pid = act(client, "Start", "vm").domain.status.pid
        prepare(client, operation)
        steps.arm(number)
        call = Later(daemon.client(), operation).wait()
        wait_until(lambda call=call: not daemon.running or call.answer, "the daemon's death or the end")
        steps.arm(0)
        # It may die right behind its answer.
        wait_until(lambda: answers(daemon) or not daemon.running, "a daemon that answers or is gone")
        if not daemon.running:
            died += 1
            assert call.answer or call.error.code == "UNAVAILABLE", call.error
            daemon.process.wait()
            daemon.close_clients()
            daemon.start()
            client = daemon.client()
        wait_until(lambda client=client: state(client, "vm") in ("RUNNING", "PAUSED", "SHUTTING_DOWN", "SHUTOFF"), "a settled state")
        known = get(client, "vm").status.pid
        assert known in (pid, 0) and daemon.hypervisors() == ([known] if known else [])
        assert known or operation == "power off"
    print(f"{total} steps, died at {died}")
    assert died > 0
    if get(client, "vm").status.pid:
        prepare(client, operation)
        do(client, operation)
        act(client, "PowerOff", "vm")
    assert daemon.hypervisors() == []


@contextlib.contextmanager
def lines(client):
    """A console and a screen, opened."""
    opened = [Stream(client, "vm").wait_opened(), Stream(client, "vm", method="OpenScreen").wait_opened()]
    try:
        yield opened
    finally:
        for line in opened:
            line.close()


@fault(("console", "screen"), "QEMU is stopped (SIGSTOP)", told="the stream stays, and goes on once QEMU does; the client can end it at any time")
@fault(("console", "screen"), "QEMU is killed", told="UNAVAILABLE, `CONSOLE_CLOSED`")
@fault(("console", "screen"), "the daemon is killed", told="UNAVAILABLE; the next daemon opens it again, and no client has it any more")
def test_lines_to_a_domain(daemon, client):
    pid = running(client)
    with lines(client) as (console, screen):
        screen.until(b"RFB 003.008\n")
        stop(pid)
        console.type(b"x")
        screen.type(b"RFB 003.008\n")
        os.kill(pid, signal.SIGCONT)
        # What it offers: one kind of authentication.
        screen.wait(lambda: len(screen.seen) >= 2, "the answer")
        console.half_close()
        assert console.ended() == "OK"
    with lines(client) as opened:
        stop(pid)
        for line in opened:
            line.half_close()
        for line in opened:
            line.call.cancel()
            line.ended()
        os.kill(pid, signal.SIGCONT)
    with lines(client) as opened:
        daemon.process.kill()
        daemon.process.wait()
        assert [line.ended() for line in opened] == ["UNAVAILABLE"] * 2
    daemon.close_clients()
    daemon.start()
    client = daemon.client()
    wait_until(lambda: state(client, "vm") == "RUNNING", "the adoption")
    with lines(client) as opened:
        os.kill(pid, signal.SIGKILL)
        assert [line.ended() for line in opened] == ["UNAVAILABLE"] * 2
        assert all(Refusal(line.error).reason == "CONSOLE_CLOSED" for line in opened)
