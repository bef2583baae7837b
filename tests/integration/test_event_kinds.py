"""Events that no call asks for: what QEMU tells of a guest and its disks, and who comes in."""
import os
import re
import subprocess

from harness.client import TOP, pb
from harness.daemon import program
from harness.domains import act, create, get, state
from harness.errors import refused
from harness.events import Events


def unreadable_image(path):
    """A disk whose first cluster is compressed and damaged: reading it fails, and its chain has nothing to show for it."""
    raw = path + ".raw"
    with open(raw, "wb") as file:
        file.write(bytes(i * 7 % 251 for i in range(65536)) + bytes(1 << 20))
    subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    mapped = subprocess.run(["qemu-img", "check", "--output", "json", path], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert '"compressed-clusters": 1' in mapped
    with open(path, "r+b") as file:
        # Behind header, refcount table, refcount block, L1 and L2 table: a cluster each.
        file.seek(5 << 16)
        assert any(file.read(64))
        file.seek(5 << 16)
        file.write(b"\xff" * 512)
    return path


def test_a_disk_that_cannot_be_read(daemon, client):
    """The firmware reads the boot disk: that fails, and is told without a change of the domain."""
    create(client, "vm", driver="qemu", disks=[unreadable_image(daemon.path("bad.qcow2"))], labels={"tier": "web"})
    events = Events(client, filter=pb.EventFilter(labels={"tier": "web"}))
    act(client, "Start", "vm")
    event = events.until("DISK_IO_ERROR", "vm", timeout=60)
    assert (event.resource_type, event.reason, event.driver, event.state) == ("domain", "READ_FAILED", "qemu", pb.DOMAIN_STATE_RUNNING)
    assert event.detail.startswith("read of vda: ")
    domain = get(client, "vm")
    assert state(client, "vm") == "RUNNING" and domain.status.reason == "REQUESTED" and domain.revision < event.revision
    # A firmware that tries again and again does not fill the journal.
    act(client, "PowerOff", "vm")
    assert events.kinds().count("DISK_IO_ERROR") <= 60


def test_how_far_an_operation_is(client):
    """Each step is told to who watches the operation; the journal has some of them, one a second at most, and none of what is short."""
    events = Events(client, filter=pb.EventFilter(resource_types=["operation"]))
    create(client, "short", labels={"test.fault.start": "progress:100"})
    act(client, "Start", "short")
    create(client, "long", labels={"test.fault.start": "progress:2500", "tier": "web"})
    operation = act(client, "Start", "long", no_wait=True).operation
    steps = [message.operation for message in client.operation.WatchOperation(pb.WatchOperationRequest(uid=operation.uid), timeout=60)]
    assert steps[-1].state == pb.OPERATION_STATE_SUCCEEDED and steps[-1].progress_percent == 100
    percents = [step.progress_percent for step in steps]
    assert percents == sorted(percents) and len(set(percents)) >= 5
    assert state(client, "long") == "RUNNING"
    create(client, "failed", labels={"test.fault.start": "fail:INTERNAL:no"})
    with refused("INTERNAL"):
        act(client, "Start", "failed")
    events.until("OPERATION_FAILED")
    assert set(events.kinds()) == {"OPERATION_PROGRESS", "OPERATION_FAILED"}
    told = [event for event in events.events if event.type == pb.EVENT_TYPE_OPERATION_PROGRESS]
    assert {(event.name, event.uid, event.driver, event.labels["tier"]) for event in told} == {("domain.start", operation.uid, "test", "web")}
    told_percents = [int(re.match(r"long: (\d+) %: waiting", event.detail).group(1)) for event in told]
    assert told_percents == sorted(set(told_percents)) and 1 <= len(told) <= 20
    # The clock of the journal is the wall's; what is bounded is counted by another.
    times = [event.time.ToMilliseconds() for event in told]
    assert all(later - earlier > 900 for earlier, later in zip(times, times[1:])), times


def test_clients_are_told_where_the_settings_ask_for_it(make_daemon):
    daemon = make_daemon(config="[events]\nclients = 1\n").start()
    events = Events(daemon.client(), start_revision=1, filter=pb.EventFilter(resource_types=["connection"]))
    event = events.until("CLIENT_CONNECTED")
    assert event.reason == "FIRST_CALL" and event.name and f"pid={os.getpid()}" in event.detail
    vpctl = subprocess.Popen([program("VPCTL", "clients/cli/vpctl"), "host"], env=dict(daemon.env, VIRTPLANE_ENDPOINT=daemon.address),
                             stdout=subprocess.DEVNULL)
    assert vpctl.wait(30) == 0
    assert f"pid={vpctl.pid}" in events.until("CLIENT_CONNECTED", count=2).detail


def test_clients_are_not_told_otherwise(daemon, client):
    create(client, "vm")
    events = Events(client, start_revision=1)
    events.until("DOMAIN_CREATED")
    assert events.kinds() == ["DAEMON_STARTED", "DOMAIN_CREATED"]


def test_each_type_is_in_the_page():
    """docs/events.md tells of each type who sends it, and of none that is not there; `_B` behind `X_A` is X_B."""
    with open(os.path.join(TOP, "docs", "events.md"), encoding="utf-8") as file:
        table = file.read().split("## The types")[1]
    types = {name[len("EVENT_TYPE_"):] for name in pb.EventType.keys()} - {"UNSPECIFIED"}
    told = set()
    for cell in re.findall(r"^\| [\w, ]+ \| (.*?) \|", table, flags=re.M):
        first = ""
        for name in re.findall(r"`(\w+)`", cell):
            if not name.startswith("_"):
                first = name
            meant = {first} if first == name else {first[:at] + name for at in range(len(first)) if first[at] == "_"} & types
            assert meant <= types and meant, f"{name} is no type"
            told |= meant
    assert told == types
