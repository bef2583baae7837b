"""Changes of what runs, while QEMU, the guest or the daemon fails: what is told is what there is, and nothing is left over."""
import contextlib
import glob
import json
import os
import signal
import socket
import threading

import grpc
import pytest

from harness import images
from harness.client import pb
from harness.daemon import wait_until
from harness.domains import act, answers, create, get, state
from harness.errors import refused
from harness.events import Events
from harness.faults import fault
from harness.qmp import between
from harness.steps import CALLS, Steps
from test_hot_plug import open_files, qcow2
from test_live_changes import LIVE, attach, detach, live, targets

SHARDS = 4

pytestmark = pytest.mark.timeout(600)


def start_vm(daemon, client, **fields):
    """One disk, which is there from the start, and a machine without a system: it lets go of nothing before it is reset."""
    create(client, "vm", driver="qemu", disks=[images.qcow2(daemon.path("vda.qcow2"))], **fields)
    return act(client, "Start", "vm").domain.status.pid


def new_disk(daemon, name, base=None, **fields):
    path = qcow2(daemon.path(name + ".qcow2"), 16, base)
    return pb.Disk(target=name, path=path, format=pb.IMAGE_FORMAT_QCOW2, **fields)


def in_qemu(daemon, pid):
    """The images that QEMU has open."""
    return {path for path in open_files(daemon, pid) if path.endswith(".qcow2")}


def as_told(client):
    """The images that it should have."""
    return {layer.path for disk in get(client, "vm").status.disks for layer in disk.layers}


def check_truth(daemon, client, pid):
    """What is told of the domain is what QEMU has."""
    wait_until(lambda: in_qemu(daemon, pid) == as_told(client), "QEMU to have what is told")
    domain = get(client, "vm")
    told = {layer.path for disk in domain.status.disks for layer in disk.layers}
    assert {disk.path for disk in live(domain).disks} <= told


@fault("attach", "the chain is not safe", told="the finding's reason, as at a start; nothing has changed")
@fault("attach", "QEMU refuses a step", told="`QMP_ERROR` with its words; what was done before is taken back")
@fault("attach", "there is no free slot", told="`NO_FREE_SLOT`")
def test_attaches_that_are_refused(daemon, client):
    pid = start_vm(daemon, client)
    before = get(client, "vm")
    # A backing file whose format nobody has declared, and which has one itself.
    qcow2(daemon.path("under.qcow2"), 16)
    qcow2(daemon.path("base.qcow2"), 16, daemon.path("under.qcow2"))
    top = images.qcow2(daemon.path("top.qcow2"), backing=daemon.path("base.qcow2"), declare=False)
    with refused("FAILED_PRECONDITION", "PROBE_REFUSED_BACKING_FILE"):
        attach(client, "vm", disk=pb.Disk(target="vdb", path=top, format=pb.IMAGE_FORMAT_QCOW2))
    with refused("FAILED_PRECONDITION", "FILE_MISSING"):
        attach(client, "vm", disk=pb.Disk(target="vdb", path=daemon.path("none.qcow2"), format=pb.IMAGE_FORMAT_QCOW2))
    # An image that another QEMU writes to: its lock, after some nodes are there.
    busy = new_disk(daemon, "busy", daemon.path("under.qcow2"))
    create(client, "other", driver="qemu", disks=[busy.path])
    act(client, "Start", "other")
    with refused("FAILED_PRECONDITION", "QMP_ERROR") as refusal:
        attach(client, "vm", disk=busy)
    assert "lock" in refusal.error.message and "/dev/fdset" not in refusal.error.message, refusal.error
    with refused("FAILED_PRECONDITION", "NO_FREE_SLOT"):
        attach(client, "vm", disk=new_disk(daemon, "far", slot=40))
    with refused("FAILED_PRECONDITION", "NO_CONTROLLER"):
        attach(client, "vm", disk=new_disk(daemon, "sda", bus=pb.DISK_BUS_SCSI))
    with refused("FAILED_PRECONDITION", "DOMAIN_RUNNING"):
        attach(client, "vm", disk=new_disk(daemon, "sata", bus=pb.DISK_BUS_SATA))
    after = get(client, "vm")
    assert after.spec == before.spec and after.status.disks == before.status.disks and not after.status.HasField("live_spec")
    check_truth(daemon, client, pid)
    # The same slot and the same names are free.
    attach(client, "vm", disk=new_disk(daemon, "vdb"))
    check_truth(daemon, client, pid)


@fault("attach", "another file is put in the image's place after it was checked", told="QEMU has the one that was checked")
@fault("attach", "QEMU is stopped (SIGSTOP)", told="DEADLINE_EXCEEDED in the time asked for; once it goes on what was done is taken back")
def test_a_qemu_that_is_stopped_during_an_attach(daemon, client):
    pid = start_vm(daemon, client)
    disk = new_disk(daemon, "vdb")
    os.kill(pid, signal.SIGSTOP)
    with refused("DEADLINE_EXCEEDED"):
        attach(client, "vm", disk=disk, timeout_seconds=1)
    assert targets(get(client, "vm").spec) == ["vda"]
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: state(client, "vm") == "RUNNING", "QEMU to answer")
    # The next one waits until that is done.
    attach(client, "vm", disk=new_disk(daemon, "vdc"), timeout_seconds=60)
    check_truth(daemon, client, pid)
    assert disk.path not in in_qemu(daemon, pid)
    # What was checked is what is opened.
    os.kill(pid, signal.SIGSTOP)
    request = pb.AttachDeviceRequest(name="vm", device=pb.Device(disk=disk), no_wait=True)
    client.domain.AttachDevice(request)
    wait_until(lambda: disk.path in open_by(daemon.process.pid), "the image to be open")
    checked = os.stat(disk.path).st_ino
    os.rename(disk.path, disk.path + ".moved")
    qcow2(disk.path, 32)
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: "vdb" in targets(get(client, "vm").spec), "the attach")
    [there] = [os.stat(entry.path).st_ino for entry in os.scandir(f"/proc/{pid}/fd") if os.readlink(entry.path) == disk.path + ".moved"][:1]
    assert there == checked and disk.path not in in_qemu(daemon, pid)


def open_by(pid):
    found = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(entry.path))
        except OSError:
            continue
    return found


@fault(("attach", "detach"), "QEMU is killed", told="`DOMAIN_ENDED`; DOMAIN_CRASHED; what is stored is as it was")
def test_a_qemu_that_is_killed_during_a_change(daemon, client):
    pid = start_vm(daemon, client)
    os.kill(pid, signal.SIGSTOP)
    errors = []

    def change():
        try:
            attach(client, "vm", disk=new_disk(daemon, "vdb"))
        except grpc.RpcError as error:
            errors.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    wait_until(lambda: get(client, "vm").status.HasField("job"), "the attach")
    os.kill(pid, signal.SIGKILL)
    thread.join(60)
    assert errors and errors[0].code() == grpc.StatusCode.FAILED_PRECONDITION, errors
    wait_until(lambda: state(client, "vm") == "CRASHED", "the end")
    assert targets(get(client, "vm").spec) == ["vda"]
    pid = act(client, "Start", "vm").domain.status.pid
    # Of a domain that has ended nothing is pending; what was to go from what is stored has gone.
    with refused("DEADLINE_EXCEEDED", "DETACH_PENDING"):
        detach(client, "vm", disk_target="vda", timeout_seconds=0.5)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: state(client, "vm") == "CRASHED", "the end")
    domain = get(client, "vm")
    assert not domain.status.pending_detaches and not domain.spec.disks


@fault("detach", "the guest does not let go",
       told="DEADLINE_EXCEEDED, `DETACH_PENDING`; it stays pending, across a daemon's end too, and goes with the next reset")
def test_a_reset_lets_go(daemon, client):
    pid = start_vm(daemon, client)
    attach(client, "vm", disk=new_disk(daemon, "vdb"))
    for _ in range(2):
        with refused("DEADLINE_EXCEEDED", "DETACH_PENDING"):
            detach(client, "vm", disk_target="vdb", timeout_seconds=0.5)
    daemon.kill()
    daemon.start()
    client = daemon.client()
    assert [pending.disk_target for pending in get(client, "vm").status.pending_detaches] == ["vdb"]
    act(client, "Reset", "vm")
    wait_until(lambda: not get(client, "vm").status.pending_detaches, "the reset to end it")
    assert targets(get(client, "vm").spec) == ["vda"] and not get(client, "vm").status.HasField("live_spec")
    check_truth(daemon, client, pid)


def reset(daemon):
    """Resets the machine behind the daemon's back."""
    [path] = glob.glob(daemon.state_dir + "/**/qmp.sock", recursive=True)
    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.connect(path)
        with qmp.makefile("rw") as lines:
            lines.readline()

            def ask(command, **arguments):
                lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                lines.flush()
                while True:
                    message = json.loads(lines.readline())
                    if "event" not in message:
                        return message["return"]

            ask("qmp_capabilities")
            ask("system_reset")
            wait_until(lambda: "disk-vdb" not in {child["name"] for child in ask("qom-list", path="/machine/peripheral")}, "the disk to go")


@fault("detach", "QEMU is stopped (SIGSTOP)", told="DEADLINE_EXCEEDED in the time asked for; it stays pending")
@fault("detach", "the guest lets go while no daemon runs",
       told="the next daemon tells DEVICE_REMOVED, `WHILE_DAEMON_DOWN`; it is taken out of what is stored, if that was asked for")
def test_it_goes_while_no_daemon_runs(daemon, client):
    pid = start_vm(daemon, client)
    attach(client, "vm", disk=new_disk(daemon, "vdb", qcow2(daemon.path("under.qcow2"), 16)))
    os.kill(pid, signal.SIGSTOP)
    with refused("DEADLINE_EXCEEDED"):
        detach(client, "vm", disk_target="vdb", timeout_seconds=0.5)
    os.kill(pid, signal.SIGCONT)
    # Asked again: QEMU drops what it has not read yet of a connection that goes.
    with contextlib.suppress(grpc.RpcError):
        detach(client, "vm", disk_target="vdb", timeout_seconds=1)
    daemon.kill()
    reset(daemon)
    daemon.start()
    client = daemon.client()
    event = Events(client, start_revision=1).until("DEVICE_REMOVED", "vm")
    assert event.detail == "vdb" and event.reason in ("WHILE_DAEMON_DOWN", "REQUESTED"), event
    domain = get(client, "vm")
    assert targets(domain.spec) == ["vda"] and not domain.status.HasField("live_spec") and not domain.status.pending_detaches
    check_truth(daemon, client, pid)


@fault("detach", "QEMU never received it, and the daemon is killed",
       told="the next daemon asks once more: DEVICE_REMOVE_REQUESTED, `ASKED_AGAIN`")
@pytest.mark.parametrize("device", [{"disk_target": "vdb"}, {"interface_mac": "52:54:00:00:00:07"}], ids=["disk", "interface"])
def test_what_qemu_never_heard_is_asked_again(daemon, client, device):
    [name] = device.values()
    pid = start_vm(daemon, client, interfaces=[pb.Interface(mac="52:54:00:00:00:07")])
    attach(client, "vm", disk=new_disk(daemon, "vdb"))
    with between(daemon) as (client, proxy):
        proxy.swallows.add("device_del")
        with refused("DEADLINE_EXCEEDED"):
            detach(client, "vm", timeout_seconds=0.3, **device)
        # A reset takes nothing out of which QEMU knows nothing.
        act(client, "Reset", "vm")
        before = get(client, "vm")
        assert targets(live(before)) == ["vda", "vdb"] and len(live(before).interfaces) == 1 and len(before.status.pending_detaches) == 1
        proxy.swallows.clear()
        daemon.kill()
        daemon.close_clients()
        client = daemon.start().client()
        events = Events(client, start_revision=before.revision + 1, filter=pb.EventFilter(names=["vm"]))
        told = events.until("DEVICE_REMOVE_REQUESTED", "vm")
        assert (told.detail, told.reason) == (name, "ASKED_AGAIN")
        [pending] = get(client, "vm").status.pending_detaches
        assert pending.request_time.ToNanoseconds() > before.status.pending_detaches[0].request_time.ToNanoseconds()
        # QEMU knows of it by now.
        act(client, "Reset", "vm")
        assert events.until("DEVICE_REMOVED", "vm").detail == name
        domain = get(client, "vm")
        assert not domain.status.pending_detaches and not domain.status.HasField("live_spec")
        assert len(domain.spec.disks) + len(domain.spec.interfaces) == 2
        assert proxy.swallowed == ["device_del"] and len([event for event in events.events if event.reason == "ASKED_AGAIN"]) == 1
    check_truth(daemon, daemon.client(), pid)


def let_go(client):
    """Takes vdb away. The guest is no help, but now and then its firmware: a reset takes out what is pending."""
    try:
        detach(client, "vm", disk_target="vdb", scope=LIVE, timeout_seconds=0.2)
    except grpc.RpcError:
        act(client, "Reset", "vm")
    wait_until(lambda: "vdb" not in targets(live(get(client, "vm"))), "the disk to go")


class Change(threading.Thread):
    """A change in the background, however it ends."""

    def __init__(self, call, *arguments, **fields):
        super().__init__(daemon=True)
        self.call, self.arguments, self.fields = call, arguments, fields
        self.start()

    def run(self):
        try:
            self.call(*self.arguments, **self.fields)
        except grpc.RpcError:
            pass


@fault("attach", "the daemon is killed, at any step",
       told="the next one finds the device (DEVICE_ADDED, `WHILE_DAEMON_DOWN`) or clears away what there is of it")
@pytest.mark.parametrize("shard", range(SHARDS))
def test_killed_at_each_step_of_an_attach(make_daemon, shard):
    daemon = make_daemon()
    steps = Steps(daemon)
    client = daemon.start().client()
    pid = start_vm(daemon, client, interfaces=[pb.Interface()])
    disk = new_disk(daemon, "vdb", qcow2(daemon.path("under.qcow2"), 16))
    steps.arm(0)
    attach(client, "vm", disk=disk, scope=LIVE)
    total = steps.get(CALLS)
    assert total > 10
    died = 0
    for number in range(1 + shard, total, SHARDS):
        # The guest is no help: a reset takes out what is pending.
        if "vdb" in targets(live(get(client, "vm"))):
            let_go(client)
        steps.arm(number)
        change = Change(attach, client, "vm", disk=disk, scope=LIVE)
        wait_until(lambda c=change: not daemon.running or not c.is_alive(), "the daemon's death or the attach")
        steps.arm(0)
        died += not daemon.running
        if daemon.running:
            daemon.kill()
        change.join(30)
        daemon.close_clients()
        client = daemon.start().client()
        check_truth(daemon, client, pid)
        assert targets(get(client, "vm").spec) == ["vda"]
    assert died > 1
    # Whatever was left, it is no obstacle.
    if "vdb" not in targets(live(get(client, "vm"))):
        attach(client, "vm", disk=disk, scope=LIVE)
    check_truth(daemon, client, pid)


@fault("detach", "the daemon is killed, at any step", told="the device is there, pending or not, or has gone, as is told")
def test_killed_at_steps_of_a_detach(make_daemon):
    daemon = make_daemon()
    steps = Steps(daemon)
    client = daemon.start().client()
    pid = start_vm(daemon, client)
    disk = new_disk(daemon, "vdb", qcow2(daemon.path("under.qcow2"), 16))
    for number in range(1, 40, 3):
        if "vdb" not in targets(live(get(client, "vm"))):
            attach(client, "vm", disk=disk, scope=LIVE)
        if not get(client, "vm").status.pending_detaches:
            with contextlib.suppress(grpc.RpcError):
                detach(client, "vm", disk_target="vdb", scope=LIVE, timeout_seconds=0.2)
        steps.arm(number)
        reset = Change(act, client, "Reset", "vm")
        wait_until(lambda c=reset: not daemon.running or not c.is_alive(), "the daemon's death or the reset")
        steps.arm(0)
        # It may die right behind its answer.
        wait_until(lambda: not daemon.running or answers(daemon), "a daemon that answers or is gone")
        if daemon.running:
            wait_until(lambda c=client: "vdb" not in targets(live(get(c, "vm"))), "the disk to go")
            check_truth(daemon, client, pid)
            continue
        reset.join(30)
        daemon.close_clients()
        client = daemon.start().client()
        check_truth(daemon, client, pid)
