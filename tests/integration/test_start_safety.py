"""Never a QEMU that the daemon does not know, and never two of one domain: whatever the disk does, whenever the daemon dies, whoever asks at the same time."""
import errno
import os
import shutil
import threading
import time

import grpc
import pytest

from harness import images
from harness.client import pb
from harness.daemon import alive, wait_until
from harness.disk import Disk
from harness.domains import act, create, get, state
from harness.errors import Refusal, refused
from harness.events import Events
from harness.faults import fault
from harness.steps import CALLS, HOLD_FSYNC, HOLD_IMAGES, Steps

SHARDS = 3
SETTLED = ("RUNNING", "SHUTOFF", "CRASHED", "PAUSED")


def all_known(daemon, client, name="vm"):
    """Waits until the domain has come to rest; no QEMU may run but the one that it names."""
    wait_until(lambda: state(client, name) in SETTLED, "a settled state")
    pid = get(client, name).status.pid
    wait_until(lambda: daemon.hypervisors() == ([pid] if pid else []), "only the QEMU that is known")


def runs_and_ends(daemon, client, name="vm"):
    """Whatever came before, the domain can be started and powered off."""
    if state(client, name) != "RUNNING":
        act(client, "Start", name)
    assert daemon.hypervisors() == [get(client, name).status.pid]
    act(client, "PowerOff", name)
    assert daemon.hypervisors() == [] and state(client, name) == "SHUTOFF"


def goes_on(daemon):
    """Starts the daemon anew: it knows what there is, and the domain can be used. Answers a client."""
    daemon.start()
    client = daemon.client()
    all_known(daemon, client)
    runs_and_ends(daemon, client)
    return client


def with_vm(make_daemon, aid):
    """A daemon with `aid` (Steps or Disk) and a domain that does not run; answers the daemon, the aid and a client."""
    daemon = make_daemon()
    helper = aid(daemon)
    daemon.start()
    client = daemon.client()
    create(client, "vm", driver="qemu", disks=[images.qcow2(daemon.path("disk.qcow2"))], accelerator=pb.ACCELERATOR_TCG)
    return daemon, helper, client


def failing_disk(daemon):
    disk = Disk(daemon.folder)
    daemon.env.update(disk.env)
    return disk


class Calls(threading.Thread):
    """A call on a thread of its own; `error` is the refusal, if it was one."""

    def __init__(self, call, *arguments, **fields):
        super().__init__(daemon=True)
        self.call, self.arguments, self.fields = call, arguments, fields
        self.error = self.answer = None
        self.start()

    def run(self):
        try:
            self.answer = self.call(*self.arguments, **self.fields)
        except grpc.RpcError as error:
            self.error = Refusal(error)

    def wait(self):
        self.join(90)
        assert not self.is_alive(), "the call does not end"
        return self


# ---- the daemon dies ----


@fault("start", "the disk of the store hangs", told="it waits, with no process")
def test_no_qemu_before_its_start_is_on_the_disk(make_daemon):
    """The disk hangs: the start waits for it, and a daemon that is killed then leaves nothing behind."""
    daemon, steps, client = with_vm(make_daemon, Steps)
    steps.set(HOLD_FSYNC, 1)
    other = Calls(create, daemon.client(), "other")
    steps.wait_held()
    act(client, "Start", "vm", no_wait=True)
    time.sleep(1)  # what must not happen has no sign to wait for
    assert daemon.hypervisors() == []
    assert state(client, "vm") == "SHUTOFF"
    daemon.kill()
    other.wait()
    steps.open_gates()
    goes_on(daemon)


@fault("start", "the daemon is killed, at any step, or stopped",
       told="the next one finds the domain running or shut off (`WHILE_DAEMON_DOWN`), and no other QEMU")
@pytest.mark.parametrize("shard", range(SHARDS))
def test_killed_at_each_step_of_a_start(make_daemon, shard):
    """At each call that a start makes: the next daemon knows what there is, and the domain can be started, once, and ended."""
    daemon, steps, client = with_vm(make_daemon, Steps)
    steps.arm(0)
    act(client, "Start", "vm")
    total = steps.get(CALLS)
    assert total > 20
    act(client, "PowerOff", "vm")
    died = 0
    for number in range(1 + shard, total, SHARDS):
        steps.arm(number)
        call = Calls(act, client, "Start", "vm")
        call.wait()
        wait_until(lambda: not daemon.running or call.answer, "the daemon's death or the start")
        steps.arm(0)
        if daemon.running:
            daemon.kill()
        else:
            died += 1
            daemon.close_clients()
        client = goes_on(daemon)
    print(f"{total} steps, died at {died}")
    assert died > 2


@fault("the daemon's start", "the store is put back to a time before a start",
       told="the process is found by its own record and taken up; if the store does not know the domain the log names the process")
@pytest.mark.parametrize("what", ["shut off", "unknown"])
def test_a_store_of_before_the_start(make_daemon, what):
    """The store is put back to an earlier state while a domain runs: the process is found by its own record."""
    daemon = make_daemon().start()
    client = daemon.client()
    if what == "unknown":
        daemon.stop()
        shutil.copytree(daemon.state_dir, daemon.path("before"))
        daemon.start()
        client = daemon.client()
    create(client, "vm", driver="qemu", disks=[images.qcow2(daemon.path("disk.qcow2"))])
    if what == "shut off":
        daemon.stop()
        shutil.copytree(daemon.state_dir, daemon.path("before"))
        daemon.start()
        client = daemon.client()
    pid = act(client, "Start", "vm").domain.status.pid
    daemon.stop()
    for name in os.listdir(daemon.state_dir):
        if name.startswith("store.db"):
            os.unlink(os.path.join(daemon.state_dir, name))
    for name in os.listdir(daemon.path("before")):
        if name.startswith("store.db"):
            shutil.copy(os.path.join(daemon.path("before"), name), daemon.state_dir)
    daemon.start()
    client = daemon.client()
    if what == "unknown":
        assert f"process {pid} runs" in daemon.log()
        return
    assert state(client, "vm") == "RUNNING" and get(client, "vm").status.pid == pid
    Events(client, start_revision=1).until("DOMAIN_ADOPTED", "vm")
    with refused("FAILED_PRECONDITION", "WRONG_STATE"):
        act(client, "Start", "vm")
    assert daemon.hypervisors() == [pid]
    act(client, "PowerOff", "vm")
    assert daemon.hypervisors() == []


@fault("start", "the daemon is killed, at any step, or stopped")
def test_stopped_during_a_start(make_daemon):
    """SIGTERM at several moments of a start: the daemon ends in time, and the next one knows what there is."""
    daemon = make_daemon().start()
    client = daemon.client()
    create(client, "vm", driver="qemu", disks=[images.qcow2(daemon.path("disk.qcow2"))])
    for delay_ms in (0, 5, 20, 50, 100):
        call = Calls(act, client, "Start", "vm")
        time.sleep(delay_ms / 1000)  # the moment is what varies; nothing is waited for
        daemon.terminate()
        daemon.wait_end()
        call.wait()
        daemon.close_clients()
        client = goes_on(daemon)


def test_stopped_while_the_disk_hangs(make_daemon):
    daemon, steps, client = with_vm(make_daemon, Steps)
    steps.set(HOLD_FSYNC, 1)
    call = Calls(act, client, "Start", "vm")
    steps.wait_held()
    daemon.terminate()
    time.sleep(0.5)  # what must not happen has no sign to wait for
    assert daemon.hypervisors() == []
    steps.open_gates()
    daemon.wait_end()
    call.wait()
    daemon.close_clients()
    goes_on(daemon)


# ---- power off ----


def test_power_off_asks_the_driver_whatever_is_stored(make_daemon):
    """The store still says SHUTOFF, and a start is under way: it is ended all the same."""
    daemon, steps, client = with_vm(make_daemon, Steps)
    steps.set(HOLD_FSYNC, 1)
    other = Calls(create, daemon.client(), "other")
    steps.wait_held()
    start = Calls(act, daemon.client(), "Start", "vm")
    wait_until(lambda: get(client, "vm").status.job.type == "domain.start", "the start")
    assert state(client, "vm") == "SHUTOFF"
    power_off = Calls(act, daemon.client(), "PowerOff", "vm")
    wait_until(lambda: get(client, "vm").status.job.type == "domain.power-off", "the power off")
    steps.open_gates()
    assert power_off.wait().error is None
    assert other.wait().error is None
    assert start.wait().error.code == "ABORTED"
    assert state(client, "vm") == "SHUTOFF" and daemon.hypervisors() == []
    runs_and_ends(daemon, client)


@fault("start", "an image does not answer (a dead file server)", told="the start ends at its deadline, by a cancellation or by a power off; nobody else waits")
def test_slow_images_delay_nobody_else(make_daemon):
    """Images that do not answer, as on a dead file server: more calls and starts than there are threads, and power offs and reads go through at once."""
    daemon = make_daemon()
    steps = Steps(daemon)
    daemon.start()
    client = daemon.client()
    create(client, "well", driver="qemu", disks=[images.qcow2(daemon.path("disk.qcow2"))])
    pid = act(client, "Start", "well").domain.status.pid
    create(client, "light")
    act(client, "Start", "light")
    slow = [images.qcow2(os.path.join(steps.images, f"{i}.qcow2")) for i in range(8)]
    for i, path in enumerate(slow):
        create(client, f"slow-{i}", driver="qemu", disks=[path])
    steps.set(HOLD_IMAGES, 1)
    walks = [Calls(lambda path=path: list(daemon.client().image.InspectChain(pb.InspectChainRequest(path=path)))) for path in slow]
    starts = [Calls(act, daemon.client(), "Start", f"slow-{i}") for i in range(8)]
    steps.wait_held(5)
    began = time.monotonic()
    assert state(client, "well") == "RUNNING"
    act(client, "PowerOff", "well")
    act(client, "Pause", "light")
    # A start that hangs, and one that waits for its turn behind such.
    for i in (0, 7):
        wait_until(lambda i=i: state(client, f"slow-{i}") == "STARTING", "the start")
        act(client, "PowerOff", f"slow-{i}")
    assert time.monotonic() - began < 40
    assert not alive(pid) and daemon.hypervisors() == []
    for i in (0, 7):
        assert starts[i].wait().error.code == "ABORTED" and state(client, f"slow-{i}") == "SHUTOFF"
    with refused("DEADLINE_EXCEEDED"):
        act(client, "PowerOff", "slow-0")
        act(client, "Start", "slow-0", timeout_seconds=0.3)
    steps.open_gates()
    for call in walks:
        assert call.wait().error is None or call.error.code == "RESOURCE_EXHAUSTED", call.error
    for call in starts[1:7]:
        assert call.wait().error is None
    assert sorted(daemon.hypervisors()) == sorted(get(client, f"slow-{i}").status.pid for i in range(1, 7))


# ---- a disk that is full ----


@fault("start", "the disk of the store is full", told="refused with `STORE_FULL`, after some with `STORE_BEHIND`")
def test_a_start_on_a_full_disk(make_daemon):
    """What cannot be recorded is not begun, and says why; with room again the journal has all of it."""
    daemon, disk, client = with_vm(make_daemon, failing_disk)
    disk.fail(errno.ENOSPC)
    asked = 0
    for _ in range(12):
        error = Calls(act, client, "Start", "vm").wait().error
        if error.reason == "STORE_BEHIND":
            break
        assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "STORE_FULL") and "could not be recorded" in error.message, error
        asked += 1
    # What waits for the disk has a bound.
    assert error.reason == "STORE_BEHIND" and asked >= 3
    assert daemon.hypervisors() == [] and state(client, "vm") == "SHUTOFF"
    disk.heal()
    wait_until(lambda: get(client, "vm").status.reason == "START_FAILED", "the record of the start")
    events = Events(client, start_revision=1)
    events.until("OPERATION_FAILED", count=asked)
    assert events.kinds("vm") == ["DOMAIN_CREATED"] + ["DOMAIN_STARTING", "DOMAIN_START_FAILED"] * asked
    runs_and_ends(daemon, client)


@fault("power off", "the disk of the store is full", told="done, answered with `STORE_FULL`, and recorded when there is room")
def test_a_power_off_on_a_full_disk(make_daemon):
    """It is done, and the answer says that it is not recorded yet."""
    daemon, disk, client = with_vm(make_daemon, failing_disk)
    pid = act(client, "Start", "vm").domain.status.pid
    disk.fail(errno.ENOSPC)
    for _ in range(2):
        with refused("RESOURCE_EXHAUSTED", "STORE_FULL") as refusal:
            act(client, "PowerOff", "vm")
        assert "is done, but could not be recorded yet" in refusal.error.message, refusal.error
        assert not alive(pid)
    disk.heal()
    wait_until(lambda: state(client, "vm") == "SHUTOFF", "the record of the power off")
    act(client, "PowerOff", "vm")
    runs_and_ends(daemon, client)


def test_a_failure_is_journalled_once_the_disk_has_room(make_daemon):
    _, disk, client = with_vm(make_daemon, failing_disk)
    create(client, "light", labels={"test.fault.pause": "fail:INTERNAL:no luck"})
    act(client, "Start", "light")
    revision = get(client, "light").revision
    disk.fail(errno.ENOSPC, times=1)
    with refused("INTERNAL", "INJECTED"):
        act(client, "Pause", "light")
    event = Events(client, start_revision=1).until("OPERATION_FAILED", "domain.pause")
    assert "no luck" in event.detail and disk.faults_left() == 0
    assert get(client, "light").revision == revision, "an event of an operation does not change the domain"


# ---- several at once ----


def act_together(daemon, calls):
    """Makes calls by clients of their own at the same moment; answers their errors."""
    barrier = threading.Barrier(len(calls))

    def begin(client, call):
        barrier.wait()
        return call(client)

    made = [Calls(begin, daemon.client(), call) for call in calls]
    return [call.wait().error for call in made]


@fault(("start", "power off", "delete"), "several ask for it at once", told="one start succeeds, all power offs do, and there is one event for each change")
def test_started_by_several(daemon, client):
    create(client, "vm", driver="qemu")
    for _ in range(3):
        errors = act_together(daemon, [lambda client: act(client, "Start", "vm")] * 4)
        assert errors.count(None) == 1
        assert {error.reason for error in errors if error} == {"WRONG_STATE"}
        assert daemon.hypervisors() == [get(client, "vm").status.pid]
        act(client, "PowerOff", "vm")


@fault(("start", "power off", "delete"), "several ask for it at once")
def test_powered_off_by_several(daemon, client):
    create(client, "vm", driver="qemu")
    events = Events(client)
    for number in range(3):
        act(client, "Start", "vm")
        assert act_together(daemon, [lambda client: act(client, "PowerOff", "vm")] * 4) == [None] * 4
        assert daemon.hypervisors() == [] and state(client, "vm") == "SHUTOFF"
        events.until_revision(get(client, "vm").revision)
        assert events.kinds().count("DOMAIN_POWERED_OFF") == number + 1


@fault(("start", "power off", "delete"), "several ask for it at once")
def test_started_while_it_is_powered_off(daemon, client):
    """The start waits its turn, or is overtaken: one of the two, and the domain is as the answers say."""
    create(client, "vm", driver="qemu")
    for _ in range(6):
        if state(client, "vm") != "RUNNING":
            act(client, "Start", "vm")
        off, start = act_together(daemon, [lambda client: act(client, "PowerOff", "vm"), lambda client: act(client, "Start", "vm")])
        assert off is None
        assert start is None or start.reason in ("WRONG_STATE", "OVERTAKEN"), start
        assert state(client, "vm") == ("SHUTOFF" if start else "RUNNING")
        all_known(daemon, client)


@fault(("start", "power off", "delete"), "several ask for it at once")
def test_deleted_by_several_and_started(daemon, client):
    def delete(client):
        return client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))

    for _ in range(4):
        create(client, "vm", driver="qemu")
        *deletes, start, off = act_together(daemon, [delete, delete, lambda client: act(client, "Start", "vm"), lambda client: act(client, "PowerOff", "vm")])
        if deletes.count(None) == 0:
            assert {error.reason for error in deletes} <= {"DOMAIN_RUNNING", "OVERTAKEN"}, deletes
            act(client, "PowerOff", "vm")
            delete(client)
        assert deletes.count(None) <= 1
        for error in (*deletes, start, off):
            assert error is None or error.code in ("NOT_FOUND", "FAILED_PRECONDITION", "ABORTED", "CANCELLED"), error
        assert daemon.hypervisors() == []


def test_the_second_of_two_daemons_is_kept_away_from_a_running_domain(make_daemon):
    """The record of the process is what counts: with its folder in another daemon's state, nothing is started or deleted beside a process that lives."""
    daemon = make_daemon().start()
    client = daemon.client()
    uid = create(client, "vm", driver="qemu").uid
    pid = act(client, "Start", "vm").domain.status.pid
    record = os.path.join(daemon.state_dir, "qemu", uid, "process")
    second = make_daemon().start()
    other = second.client()
    domain = pb.Domain(name="vm", uid=uid, spec=pb.DomainSpec(driver="qemu", vcpus=1, memory_bytes=64 << 20))
    other.domain.CreateDomain(pb.CreateDomainRequest(domain=domain))
    os.makedirs(os.path.join(second.state_dir, "qemu", uid), mode=0o700)
    shutil.copy(record, os.path.join(second.state_dir, "qemu", uid, "process"))
    with refused("FAILED_PRECONDITION", "PROCESS_ALIVE") as refusal:
        act(other, "Start", "vm")
    assert str(pid) in refusal.error.message and "power the domain off" in refusal.error.message
    with refused("FAILED_PRECONDITION", "PROCESS_ALIVE"):
        other.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))
    assert alive(pid)
    act(other, "PowerOff", "vm")
    assert not alive(pid)
    wait_until(lambda: state(client, "vm") == "CRASHED", "the first one's notice")
    act(other, "Start", "vm")
