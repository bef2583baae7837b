"""A save or a restore that is cut off, by whatever: the domain goes on, or is saved; its memory is neither lost nor used twice."""
import os
import shutil
import signal

import pytest

from harness import images
from harness.client import pb
from harness.daemon import alive, wait_until
from harness.domains import act, create, get, state
from harness.errors import refused
from harness.events import Events
from harness.faults import fault
from harness.steps import CALLS, Steps
from test_save import discard, files, start_vm
from test_start_safety import Calls

pytestmark = pytest.mark.timeout(600)
SHARDS = 2
# A guest that is taken up with its CPUs halted goes on in a moment.
SETTLED = ("RUNNING", "SAVED", "SHUTOFF", "CRASHED")


def with_vm(make_daemon):
    daemon = make_daemon()
    steps = Steps(daemon)
    client = daemon.start().client()
    domain = start_vm(daemon, client, accelerator=pb.ACCELERATOR_TCG)
    return daemon, steps, client, domain


def next_daemon(daemon):
    """Starts the daemon anew; answers a client and the domain, which has come to rest with no QEMU but its own."""
    if daemon.running:
        daemon.kill()
    daemon.close_clients()
    daemon.start()
    client = daemon.client()
    wait_until(lambda: state(client, "vm") in SETTLED, "a settled state")
    wait_until(lambda: daemon.hypervisors() == [pid for pid in [get(client, "vm").status.pid] if pid], "only the QEMU that is known")
    return client, get(client, "vm")


def run_until_death(daemon, client, steps, number, verb):
    """The verb, with a daemon that dies at its step of this number; whether it died."""
    steps.arm(number)
    call = Calls(act, client, verb, "vm")
    call.wait()
    wait_until(lambda: not daemon.running or call.answer or call.error, "the daemon's death or the end of the verb")
    steps.arm(0)
    return not daemon.running


def state_after(daemon, client, steps, number, verb, outcomes):
    """What the next daemon makes of a verb whose daemon dies at this step; noted in `outcomes`."""
    died = run_until_death(daemon, client, steps, number, verb)
    client, now = next_daemon(daemon)
    outcome = pb.DomainState.Name(now.status.state)[len("DOMAIN_STATE_"):]
    outcomes.append(f"{number}{'' if died else '-'}{outcome}")
    return client, now, outcome


@fault("save", "the daemon is killed, at any step, or stopped", told="the domain goes on, or is saved; there is no half file")
@pytest.mark.parametrize("shard", range(SHARDS))
def test_killed_at_each_step_of_a_save(make_daemon, shard):
    daemon, steps, client, domain = with_vm(make_daemon)
    steps.arm(0)
    act(client, "Save", "vm")
    total = steps.get(CALLS)
    assert total > 15
    act(client, "Start", "vm")
    outcomes = []
    for number in range(1 + shard, total + 1, SHARDS):
        client, now, outcome = state_after(daemon, client, steps, number, "Save", outcomes)
        if outcome == "RUNNING":
            wait_until(lambda: files(daemon, domain) == [], f"no half file (step {number})", timeout=10)
        else:
            assert outcome == "SAVED", outcomes
            assert os.path.getsize(now.status.saved.path) == now.status.saved.size_bytes
            assert act(client, "Start", "vm").domain.status.state == pb.DOMAIN_STATE_RUNNING
    print(outcomes)
    assert any("RUNNING" in outcome for outcome in outcomes) and any("SAVED" in outcome for outcome in outcomes), outcomes


@fault("restore", "the daemon is killed, at any step", told="the domain goes on, or is saved as before: its memory is neither lost nor used twice")
@pytest.mark.parametrize("shard", range(SHARDS))
def test_killed_at_each_step_of_a_restore(make_daemon, shard):
    daemon, steps, client, domain = with_vm(make_daemon)
    act(client, "Save", "vm")
    steps.arm(0)
    act(client, "Start", "vm")
    total = steps.get(CALLS)
    assert total > 20
    act(client, "Save", "vm")
    outcomes = []
    for number in range(1 + shard, total + 1, SHARDS):
        client, _, outcome = state_after(daemon, client, steps, number, "Start", outcomes)
        if outcome == "RUNNING":
            wait_until(lambda: files(daemon, domain) == [], f"the end of the file (step {number})", timeout=10)
            act(client, "Save", "vm")
        else:
            assert outcome == "SAVED" and "memory.save" in files(daemon, domain), outcomes
    print(outcomes)
    assert any("RUNNING" in outcome for outcome in outcomes) and any("SAVED" in outcome for outcome in outcomes), outcomes
    assert act(client, "Start", "vm").domain.status.state == pb.DOMAIN_STATE_RUNNING


SLOW = "[qemu]\nsave_bytes_per_second=20000\nping_interval_ms=50\nunresponsive_after_ms=3000\n"


def slow_save(daemon, client, name="vm", **fields):
    """A save that is writing; it takes half a minute."""
    call = Calls(act, client, "Save", name, **fields)
    wait_until(lambda: get(client, name).status.reason == "SAVING", "the CPUs to be halted")
    wait_until(lambda: any(os.path.getsize(path) > 8192 for path in half_files(daemon)), "something to be written")
    return call


def half_files(daemon):
    return [os.path.join(folder, name) for folder, _, found in os.walk(daemon.folder) for name in found if name.endswith(".saving")]


def ended(call, code, reason=None):
    call.wait()
    assert call.error and call.error.code == code and (reason is None or call.error.reason == reason), call.error or call.answer
    return call.error


def goes_on(daemon, client, name="vm"):
    wait_until(lambda: state(client, name) == "RUNNING", "the domain to go on")
    wait_until(lambda: half_files(daemon) == [] and files(daemon, get(client, name)) == [], "no half file")


@fault("save", "it is cancelled, out of time, or QEMU hangs", told="the domain goes on; there is no half file")
@fault("save", "QEMU is killed, or the domain is powered off", told="the save fails; there is no half file")
def test_a_save_that_is_given_up(make_daemon):
    """Cancelled, out of time, its QEMU hung, killed, powered off: stated each time, and nothing is left."""
    daemon = make_daemon(config=SLOW).start()
    client = daemon.client()
    events = Events(client)
    domain = start_vm(daemon, client)
    # Cancelled.
    call = slow_save(daemon, client)
    [operation] = client.operation.ListOperations(pb.ListOperationsRequest(active_only=True)).operations
    assert operation.type == "domain.save" and operation.cancellable
    client.operation.CancelOperation(pb.CancelOperationRequest(uid=operation.uid))
    ended(call, "CANCELLED")
    goes_on(daemon, client)
    assert events.until("DOMAIN_RESUMED", "vm").reason == "SAVE_TAKEN_BACK"
    # Out of time, to a file.
    call = slow_save(daemon, client, path=daemon.path("vm.save"), timeout_seconds=3)
    ended(call, "DEADLINE_EXCEEDED")
    goes_on(daemon, client)
    assert not os.path.exists(daemon.path("vm.save"))
    # A paused one stays so.
    act(client, "Pause", "vm")
    call = Calls(act, client, "Save", "vm", timeout_seconds=2)
    ended(call, "DEADLINE_EXCEEDED")
    wait_until(lambda: half_files(daemon) == [], "no half file")
    assert state(client, "vm") == "PAUSED"
    act(client, "Resume", "vm")
    # QEMU hangs: the call ends all the same, and the domain goes on when QEMU does.
    call = slow_save(daemon, client, timeout_seconds=4)
    os.kill(domain.status.pid, signal.SIGSTOP)
    ended(call, "DEADLINE_EXCEEDED")
    assert get(client, "vm").name == "vm"
    os.kill(domain.status.pid, signal.SIGCONT)
    goes_on(daemon, client)
    # Powered off.
    call = slow_save(daemon, client)
    act(client, "PowerOff", "vm")
    call.wait()
    assert call.error and state(client, "vm") == "SHUTOFF"
    wait_until(lambda: half_files(daemon) == [], "no half file")
    # Killed.
    pid = act(client, "Start", "vm").domain.status.pid
    call = slow_save(daemon, client)
    os.kill(pid, signal.SIGKILL)
    ended(call, "FAILED_PRECONDITION", "DOMAIN_ENDED")
    assert state(client, "vm") == "CRASHED"
    wait_until(lambda: half_files(daemon) == [], "no half file")


@fault("save", "the daemon is killed, at any step, or stopped")
def test_the_daemon_ends_during_a_save(make_daemon):
    """Killed, or stopped, while QEMU writes: the next one lets the guest go on."""
    # A daemon that waits longer for the calls under way sees the save through.
    daemon = make_daemon(config="[daemon]\ndrain_ms=100\n" + SLOW).start()
    client = daemon.client()
    domain = start_vm(daemon, client)
    for how in (daemon.kill, daemon.stop):
        slow_save(daemon, client)
        how()
        client = daemon.start().client()
        goes_on(daemon, client)
        assert get(client, "vm").status.pid == domain.status.pid
    # With QEMU gone as well there is nothing to go on with.
    slow_save(daemon, client)
    daemon.kill()
    os.kill(domain.status.pid, signal.SIGKILL)
    wait_until(lambda: not alive(domain.status.pid), "QEMU's end")
    client = daemon.start().client()
    wait_until(lambda: state(client, "vm") == "SHUTOFF", "the end")
    assert half_files(daemon) == []


def wrapped(daemon, script):
    """QEMU by way of a script, which `script` is the middle of, for restores alone."""
    path = daemon.path("qemu-system-x86_64")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\ncase "$*" in *-incoming*)\n{script}\n;; esac\nexec {shutil.which("qemu-system-x86_64")} "$@"\n')
    # The domain's user runs it.
    os.chmod(path, 0o755)
    os.chmod(daemon.folder, 0o711)
    return f"[qemu]\nbinary={path}\nping_interval_ms=50\n"


def test_a_restore_that_fails(make_daemon):
    """QEMU dies, says no, or hangs: the domain is saved as before, and can be restored."""
    daemon = make_daemon()
    daemon.config = wrapped(daemon, ':')
    client = daemon.start().client()
    events = Events(client)
    start_vm(daemon, client)
    path = act(client, "Save", "vm").domain.status.saved.path
    wrapped(daemon, 'echo "no memory for you" >&2; exit 3')
    with refused("FAILED_PRECONDITION", "RESTORE_FAILED") as refusal:
        act(client, "Start", "vm")
    assert "no memory for you" in refusal.error.message, refusal.error
    assert state(client, "vm") == "SAVED" and os.path.exists(path)
    assert events.until("DOMAIN_START_FAILED", "vm").state == pb.DOMAIN_STATE_SAVED
    # It hangs.
    wrapped(daemon, 'kill -STOP $$')
    with refused("DEADLINE_EXCEEDED"):
        act(client, "Restore", "vm", timeout_seconds=1)
    wait_until(lambda: state(client, "vm") == "SAVED" and daemon.hypervisors() == [], "the end of the restore")
    # It hangs, and is powered off.
    call = Calls(act, client, "Start", "vm")
    wait_until(lambda: state(client, "vm") == "STARTING" and daemon.hypervisors(), "the restore")
    act(client, "PowerOff", "vm")
    call.wait()
    assert call.error and state(client, "vm") == "SAVED" and os.path.exists(path)
    # The daemon dies beside it.
    call = Calls(act, client, "Start", "vm")
    wait_until(lambda: state(client, "vm") == "STARTING" and daemon.hypervisors(), "the restore")
    daemon.kill()
    wrapped(daemon, ':')
    [pid] = daemon.hypervisors()
    client = daemon.start().client()
    wait_until(lambda: state(client, "vm") == "UNRESPONSIVE", "it to be looked at")
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: state(client, "vm") == "SAVED", "the end of the restore")
    # The stream is damaged: QEMU's own words are told.
    with open(path, "r+b") as file:
        file.seek(16)
        file.seek(int.from_bytes(file.read(8), "little") + 200)
        file.write(b"\xff" * 4096)
    with refused("FAILED_PRECONDITION", "RESTORE_FAILED") as refusal:
        act(client, "Start", "vm")
    print(refusal.error.message)
    assert state(client, "vm") == "SAVED" and os.path.exists(path)
    assert discard(client, "vm").status.state == pb.DOMAIN_STATE_SHUTOFF
    assert act(client, "Start", "vm").domain.status.state == pb.DOMAIN_STATE_RUNNING
