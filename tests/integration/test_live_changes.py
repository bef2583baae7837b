"""Changes of running domains: live, stored or both. Here with domains in memory; with QEMU in test_hotplug.py."""
import threading

import pytest

from harness.client import pb
from harness.daemon import wait_until
from harness.domains import act, create, get
from harness.errors import refused
from harness.events import Events

LIVE, STORED, BOTH = pb.CHANGE_SCOPE_LIVE, pb.CHANGE_SCOPE_STORED, pb.CHANGE_SCOPE_BOTH


def attach(client, name, timeout_seconds=None, disk=None, interface=None, **fields):
    request = pb.AttachDeviceRequest(name=name, device=pb.Device(disk=disk, interface=interface), **fields)
    if timeout_seconds is not None:
        request.timeout.FromMilliseconds(int(timeout_seconds * 1000))
    return client.domain.AttachDevice(request)


def detach(client, name, timeout_seconds=None, **fields):
    request = pb.DetachDeviceRequest(name=name, **fields)
    if timeout_seconds is not None:
        request.timeout.FromMilliseconds(int(timeout_seconds * 1000))
    return client.domain.DetachDevice(request)


def update(client, name, paths, scope=pb.CHANGE_SCOPE_UNSPECIFIED, **fields):
    domain = pb.Domain(name=name, spec=pb.DomainSpec(**fields))
    return client.domain.UpdateDomain(pb.UpdateDomainRequest(domain=domain, update_mask={"paths": paths}, scope=scope)).domain


def targets(spec):
    return [disk.target for disk in spec.disks]


def live(domain):
    return domain.status.live_spec if domain.status.HasField("live_spec") else domain.spec


def disk(target, **fields):
    return pb.Disk(target=target, path=f"/images/{target}.qcow2", format=pb.IMAGE_FORMAT_QCOW2, **fields)


def test_where_a_change_takes_effect(client):
    create(client, "vm", disks=[disk("vda")])
    # Of what does not run only what is stored changes.
    for scope in (LIVE, BOTH):
        with refused("FAILED_PRECONDITION", "DOMAIN_NOT_RUNNING"):
            attach(client, "vm", disk=disk("vdb"), scope=scope)
    attach(client, "vm", disk=disk("vdb"))
    assert targets(get(client, "vm").spec) == ["vda", "vdb"] and not get(client, "vm").status.HasField("live_spec")
    act(client, "Start", "vm")
    assert not get(client, "vm").status.HasField("live_spec")
    events = Events(client, filter=pb.EventFilter(names=["vm"]))
    answer = attach(client, "vm", disk=disk("vdc"))
    assert targets(answer.domain.spec) == ["vda", "vdb", "vdc"] and not answer.domain.status.HasField("live_spec")
    assert answer.operation.type == "domain.attach-device"
    assert events.until("DEVICE_ADDED", "vm").reason == "REQUESTED"
    events.until("DOMAIN_UPDATED", "vm")
    # The two part, and GetDomain shows it.
    attach(client, "vm", disk=disk("live"), scope=LIVE)
    detach(client, "vm", disk_target="vda", scope=STORED)
    domain = get(client, "vm")
    assert targets(domain.spec) == ["vdb", "vdc"] and targets(domain.status.live_spec) == ["vda", "vdb", "vdc", "live"]
    # A change of both leaves the rest apart.
    attach(client, "vm", interface=pb.Interface(mac="52:54:00:00:00:07"), scope=BOTH)
    domain = get(client, "vm")
    assert [len(spec.interfaces) for spec in (domain.spec, domain.status.live_spec)] == [1, 1]
    update(client, "vm", ["spec.vcpus"], vcpus=3)
    domain = get(client, "vm")
    assert (domain.spec.vcpus, domain.status.live_spec.vcpus) == (3, 3)
    update(client, "vm", ["spec.vcpus"], scope=STORED, vcpus=2)
    assert (get(client, "vm").spec.vcpus, get(client, "vm").status.live_spec.vcpus) == (2, 3)
    # A note is no difference.
    update(client, "vm", ["spec.description"], description="words")
    assert get(client, "vm").status.live_spec.description == "words"
    act(client, "PowerOff", "vm")
    assert not get(client, "vm").status.HasField("live_spec")
    act(client, "Start", "vm")
    domain = get(client, "vm")
    assert targets(domain.spec) == ["vdb", "vdc"] and not domain.status.HasField("live_spec")


def test_what_cannot_change(client):
    create(client, "vm", disks=[disk("vda")], interfaces=[pb.Interface(mac="52:54:00:00:00:01")])
    act(client, "Start", "vm")
    before = get(client, "vm")
    with refused("FAILED_PRECONDITION", "DOMAIN_RUNNING") as refusal:
        update(client, "vm", ["spec.machine", "spec.disks"], machine="pc", disks=[disk("vda", cache=pb.DISK_CACHE_NONE)])
    assert sorted(refusal.error.violations) == ["domain.spec.disks[0].cache", "domain.spec.machine"]
    assert "CHANGE_SCOPE_STORED" in refusal.error.message
    for twice in (dict(disk=disk("vda")), dict(interface=pb.Interface(mac="52:54:00:00:00:01"))):
        with refused("ALREADY_EXISTS", "DEVICE_EXISTS"):
            attach(client, "vm", **twice)
    for nothing in (dict(disk_target="vdx"), dict(interface_mac="52:54:00:00:00:09")):
        with refused("NOT_FOUND", "DEVICE_NOT_FOUND"):
            detach(client, "vm", **nothing)
    with refused("INVALID_ARGUMENT") as refusal:
        attach(client, "vm", disk=pb.Disk(target="vdb"))
    assert list(refusal.error.violations) == ["device.disk.path"]
    with refused("INVALID_ARGUMENT") as refusal:
        attach(client, "vm")
    assert list(refusal.error.violations) == ["device"]
    with refused("ABORTED", "REVISION_CONFLICT"):
        attach(client, "vm", disk=disk("vdb"), revision=4711)
    assert get(client, "vm") == before
    update(client, "vm", ["spec.machine"], scope=STORED, machine="pc")
    assert get(client, "vm").spec.machine == "pc" and not get(client, "vm").status.live_spec.machine


def test_only_checked(client):
    create(client, "vm", disks=[disk("vda")])
    act(client, "Start", "vm")
    before = get(client, "vm")
    answer = attach(client, "vm", disk=pb.Disk(path="/images/b.qcow2"), validate_only=True)
    assert targets(answer.domain.spec) == ["vda", "vdb"]
    assert get(client, "vm") == before


def test_an_attach_that_fails_changes_neither(client):
    create(client, "vm", disks=[disk("vda")], labels={"test.fault.change": "fail:UNAVAILABLE:no"})
    act(client, "Start", "vm")
    with refused("UNAVAILABLE", "INJECTED"):
        attach(client, "vm", disk=disk("vdb"))
    domain = get(client, "vm")
    assert targets(domain.spec) == ["vda"] and not domain.status.HasField("live_spec")


def test_a_guest_that_does_not_let_go(client):
    create(client, "vm", disks=[disk("vda"), disk("vdb")], labels={"test.guest.detach": "ignore"})
    act(client, "Start", "vm")
    events = Events(client, filter=pb.EventFilter(names=["vm"]))
    with refused("DEADLINE_EXCEEDED") as refusal:
        detach(client, "vm", disk_target="vdb", timeout_seconds=0.3)
    assert "vdb" in refusal.error.message
    events.until("DEVICE_REMOVE_REQUESTED", "vm")
    domain = get(client, "vm")
    [pending] = domain.status.pending_detaches
    assert pending.disk_target == "vdb" and pending.stored and targets(domain.spec) == targets(live(domain)) == ["vda", "vdb"]
    with refused("DEADLINE_EXCEEDED"):
        detach(client, "vm", disk_target="vdb", timeout_seconds=0.2)
    assert len(get(client, "vm").status.pending_detaches) == 1
    # With the domain the device goes, and out of what is stored, as was asked.
    act(client, "PowerOff", "vm")
    domain = get(client, "vm")
    assert targets(domain.spec) == ["vda"] and not domain.status.pending_detaches


def test_a_guest_that_lets_go_late(client):
    create(client, "vm", disks=[disk("vda"), disk("vdb"), disk("vdc")], labels={"test.guest.detach": "delay:700"})
    act(client, "Start", "vm")
    detach(client, "vm", disk_target="vdc")
    with refused("DEADLINE_EXCEEDED"):
        detach(client, "vm", disk_target="vdb", timeout_seconds=0.1)
    wait_until(lambda: not get(client, "vm").status.pending_detaches, "the guest to let go")
    domain = get(client, "vm")
    assert targets(domain.spec) == ["vda"] and not domain.status.HasField("live_spec")
    # Of the running domain alone: what is stored keeps it.
    with refused("DEADLINE_EXCEEDED"):
        detach(client, "vm", disk_target="vda", scope=LIVE, timeout_seconds=0.1)
    wait_until(lambda: not get(client, "vm").status.pending_detaches, "the guest to let go")
    domain = get(client, "vm")
    assert targets(domain.spec) == ["vda"] and targets(domain.status.live_spec) == []


def test_a_detach_that_is_cancelled_stays_pending(client):
    create(client, "vm", disks=[disk("vda")], labels={"test.guest.detach": "ignore"})
    act(client, "Start", "vm")
    operation = detach(client, "vm", disk_target="vda", no_wait=True).operation
    wait_until(lambda: get(client, "vm").status.pending_detaches, "the guest to be asked")
    client.operation.CancelOperation(pb.CancelOperationRequest(uid=operation.uid))
    wait_until(lambda: not get(client, "vm").status.HasField("job"), "the end of the job")
    assert len(get(client, "vm").status.pending_detaches) == 1


@pytest.mark.parametrize("scope", [LIVE, BOTH])
def test_a_retry_attaches_once(client, scope):
    create(client, "vm")
    act(client, "Start", "vm")
    first = attach(client, "vm", disk=disk("vda"), scope=scope, request_id="one")
    again = attach(client, "vm", disk=disk("vda"), scope=scope, request_id="one")
    assert targets(live(first.domain)) == targets(live(again.domain)) == ["vda"]


def test_many_at_once(client):
    create(client, "vm")
    act(client, "Start", "vm")
    threads = [threading.Thread(target=attach, args=(client, "vm"), kwargs=dict(disk=disk(f"vd{letter}"))) for letter in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    domain = get(client, "vm")
    assert sorted(targets(domain.spec)) == [f"vd{letter}" for letter in "abcdefgh"] and not domain.status.HasField("live_spec")
