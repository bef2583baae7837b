"""A QEMU that does not answer hurts nobody but itself, and a daemon that comes back takes up all that runs, at once."""
import os
import signal
import statistics
import time

import pytest

from harness import images
from harness.client import pb
from harness.daemon import alive, process_state, wait_until
from harness.domains import act, create, get, names, state
from harness.errors import refused
from harness.events import Events
from harness.faults import fault

QUICK = "[qemu]\nping_interval_ms=50\nunresponsive_after_ms=400\n"
FULL = bool(os.environ.get("VIRTPLANE_FULL"))
PLAIN = os.environ.get("VIRTPLANE_CONFIG", "plain") == "plain"


def start_vm(daemon, client, name="vm"):
    create(client, name, driver="qemu", disks=[images.qcow2(daemon.path(name + ".qcow2"))], accelerator=pb.ACCELERATOR_TCG)
    return act(client, "Start", name).domain.status.pid


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", "the stop")


def seconds(call, *arguments, **fields):
    began = time.monotonic()
    call(*arguments, **fields)
    return time.monotonic() - began


def in_time(limit, call, *arguments, **fields):
    """The call ends with DEADLINE_EXCEEDED, in the time asked for."""

    def late():
        with refused("DEADLINE_EXCEEDED"):
            call(*arguments, **fields)

    took = seconds(late)
    assert limit - 0.05 < took < limit + 10, took


@fault(("pause", "reset", "shutdown"), "QEMU is stopped (SIGSTOP)", told="DEADLINE_EXCEEDED in the time asked for; reads answer at once; powering it off works")
@fault("power off", "QEMU is stopped (SIGSTOP)", told="done, as soon as the process has gone")
def test_each_call_ends_in_the_time_asked_for(daemon, client):
    pid = start_vm(daemon, client)
    stop(pid)
    for verb in ("Pause", "Reset", "Shutdown"):
        in_time(0.4, act, client, verb, "vm", timeout_seconds=0.4)
        assert seconds(get, client, "vm") < 1 and get(client, "vm").status.pid == pid
    # What waits behind a call that hangs is shown with it, and has its own time.
    act(client, "Pause", "vm", timeout_seconds=0.6, no_wait=True)
    wait_until(lambda: get(client, "vm").status.job.type == "domain.pause", "the job")
    assert names(client) == ["vm"]
    act(client, "PowerOff", "vm")
    assert not alive(pid) and state(client, "vm") == "SHUTOFF"


@fault("-", "QEMU is stopped (SIGSTOP)",
       told="after `unresponsive_after_ms` it is UNRESPONSIVE, its calls are refused with `WRONG_STATE`; powering it off works")
@fault("-", "QEMU goes on (SIGCONT)")
def test_it_is_shown_as_unresponsive(make_daemon):
    daemon = make_daemon(config=QUICK).start()
    client = daemon.client()
    events = Events(client)
    pid = start_vm(daemon, client)
    stop(pid)
    event = events.until("DOMAIN_UNRESPONSIVE", "vm")
    assert event.state == pb.DOMAIN_STATE_UNRESPONSIVE
    assert state(client, "vm") == "UNRESPONSIVE" and get(client, "vm").status.pid == pid
    with refused("FAILED_PRECONDITION", "WRONG_STATE") as refusal:
        act(client, "Pause", "vm")
    assert "powering it off works" in refusal.error.message
    with refused("FAILED_PRECONDITION", "WRONG_STATE"):
        act(client, "Start", "vm")
    os.kill(pid, signal.SIGCONT)
    events.until("DOMAIN_RESPONSIVE", "vm")
    assert state(client, "vm") == "RUNNING"
    stop(pid)
    events.until("DOMAIN_UNRESPONSIVE", "vm", count=2)
    act(client, "PowerOff", "vm")
    assert not alive(pid) and state(client, "vm") == "SHUTOFF"
    assert events.kinds("vm").count("DOMAIN_CRASHED") == 0


@fault("-", "another QEMU is stopped (SIGSTOP)", told="nothing: calls on other domains take as long as before")
def test_its_neighbour_feels_nothing(make_daemon):
    """Several that hang, with calls that wait for them: another domain's calls take as long as before."""
    daemon = make_daemon(config=QUICK).start()
    client = daemon.client()
    hung = {f"hung-{i}": start_vm(daemon, client, f"hung-{i}") for i in range(4)}
    start_vm(daemon, client, "well")

    def round_trip():
        act(client, "Pause", "well")
        act(client, "Resume", "well")
        get(client, "well")

    before = [seconds(round_trip) for _ in range(30)]
    for name, pid in hung.items():
        stop(pid)
        act(client, "Reset", name, timeout_seconds=20, no_wait=True)
    with_hung = [seconds(round_trip) for _ in range(30)]
    print(f"round trip: median {statistics.median(before) * 1e3:.1f} ms before, {statistics.median(with_hung) * 1e3:.1f} ms beside 4 that hang")
    # One that waited for them would take seconds.
    assert statistics.median(with_hung) < 3 * statistics.median(before) + 0.3
    for name in hung:
        act(client, "PowerOff", name)
    assert not any(alive(pid) for pid in hung.values()) and state(client, "well") == "RUNNING"


def test_power_off_ends_with_the_process(daemon, client):
    """No polling: it answers a moment after the process has gone."""
    took = []
    create(client, "vm", driver="qemu", accelerator=pb.ACCELERATOR_TCG)
    for _ in range(5):
        pid = act(client, "Start", "vm").domain.status.pid
        took.append(seconds(act, client, "PowerOff", "vm"))
        assert not alive(pid)
    print(f"power off: median {statistics.median(took) * 1e3:.0f} ms")
    # The machine may be busy for some of the time: one of them tells.
    assert not PLAIN or min(took) < 0.3


@fault("the daemon's start", "a QEMU hangs", told="the daemon waits for it for a second; it is UNRESPONSIVE")
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_one_that_hangs_keeps_no_daemon_from_its_start(make_daemon, how):
    daemon = make_daemon().start()
    client = daemon.client()
    hung, well = start_vm(daemon, client, "hung"), start_vm(daemon, client, "well")
    stop(hung)
    getattr(daemon, how)()
    assert seconds(daemon.start) < 15
    client = daemon.client()
    assert state(client, "well") == "RUNNING" and get(client, "well").status.pid == well
    wait_until(lambda: state(client, "hung") == "UNRESPONSIVE", "the hung one's state")
    assert get(client, "hung").status.pid == hung
    os.kill(hung, signal.SIGCONT)
    wait_until(lambda: state(client, "hung") == "RUNNING", "its return")
    stop(hung)
    act(client, "PowerOff", "hung")
    assert not alive(hung)


@fault("-", "the daemon is killed or stopped while domains run")
@pytest.mark.timeout(700)
def test_many_are_taken_up_at_once(make_daemon):
    """100 domains within a second (fewer in the short run). QEMU itself is what is slow: they are started paused, some at a time."""
    number = 100 if FULL else 30
    daemon = make_daemon().start()
    client = daemon.client()
    names_of = [f"vm-{i:03}" for i in range(number)]
    for name in names_of:
        create(client, name, driver="qemu", memory_mib=16, accelerator=pb.ACCELERATOR_TCG)
        act(client, "Start", name, paused=True, no_wait=True)
    wait_until(lambda: all(state(client, name) == "PAUSED" for name in names_of), "all to be started", timeout=300)
    pids = {name: get(client, name).status.pid for name in names_of}
    revision = client.admin.GetDaemon(pb.GetDaemonRequest()).daemon.revision
    daemon.kill()
    took = seconds(daemon.start)
    client = daemon.client()
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
        [memory] = [line.split()[1] for line in file if line.startswith("VmRSS")]
    print(f"{number} domains taken up, and the daemon ready, in {took:.2f} s; {int(memory) // 1024} MiB")
    events = Events(client, start_revision=revision + 1)
    for name in names_of:
        events.until("DOMAIN_ADOPTED", name)
        assert state(client, name) == "PAUSED" and get(client, name).status.pid == pids[name]
    # One after the other they would take a time limit each.
    assert not PLAIN or took < 10, took
    for name in names_of:
        act(client, "PowerOff", name, no_wait=True)
    wait_until(lambda: all(state(client, name) == "SHUTOFF" for name in names_of), "all to be off", timeout=300)
    assert daemon.hypervisors() == []
