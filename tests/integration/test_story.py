"""The main job from end to end: a domain with a real disk starts on real QEMU, its events and its chain stream out."""
import os

from harness import images
from harness.client import pb
from harness.daemon import alive, wait_until
from harness.domains import act, create, get, state
from harness.errors import refused
from harness.events import Events


def inspect(client, path, **fields):
    """(layers, findings, summary) of a chain, in the order they came."""
    messages = list(client.image.InspectChain(pb.InspectChainRequest(path=path, **fields), timeout=120))
    assert messages[-1].WhichOneof("payload") == "summary"
    layers = [message.layer for message in messages if message.WhichOneof("payload") == "layer"]
    findings = [message.finding for message in messages if message.WhichOneof("payload") == "finding"]
    return layers, findings, messages[-1].summary


def codes(findings):
    return [pb.FindingCode.Name(finding.code)[len("FINDING_CODE_"):] for finding in findings]


def test_the_whole_story(daemon, client):
    base = images.qcow2(daemon.path("base.qcow2"))
    overlay = images.qcow2(daemon.path("overlay.qcow2"), backing="base.qcow2", declare=False)

    # The chain, and what is to be said about it.
    layers, findings, summary = inspect(client, overlay, format=pb.IMAGE_FORMAT_QCOW2)
    assert [layer.path for layer in layers] == [overlay, base]
    assert [layer.depth for layer in layers] == [0, 1]
    assert layers[0].format_source == pb.FORMAT_SOURCE_DECLARED_BY_CALLER
    assert layers[0].backing_path == "base.qcow2"
    assert layers[0].backing_format == pb.IMAGE_FORMAT_UNSPECIFIED
    assert layers[1].format == pb.IMAGE_FORMAT_QCOW2
    assert layers[1].format_source == pb.FORMAT_SOURCE_PROBED
    assert {"FORMAT_NOT_DECLARED", "PROBE_USED"} <= set(codes(findings))
    assert summary.safe and summary.depth == 2 and summary.errors == 0

    # The domain's life, as a stream of events.
    events = Events(client)
    created = create(client, "web", driver="qemu", disks=[overlay])
    assert created.uid and created.revision > 0 and created.status.state == pb.DOMAIN_STATE_SHUTOFF
    answer = act(client, "Start", "web")
    assert answer.domain.status.state == pb.DOMAIN_STATE_RUNNING
    assert answer.operation.state == pb.OPERATION_STATE_SUCCEEDED
    pid = answer.domain.status.pid
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
        command_line = file.read()
    assert "qemu-system" in command_line
    assert answer.domain.status.accelerator in (pb.ACCELERATOR_KVM, pb.ACCELERATOR_TCG)
    opened = answer.domain.status.disks[0]
    assert opened.target == "vda" and [layer.path for layer in opened.layers] == [overlay, base]

    act(client, "Pause", "web")
    assert state(client, "web") == "PAUSED"
    act(client, "Resume", "web")
    assert state(client, "web") == "RUNNING"
    act(client, "PowerOff", "web")
    assert state(client, "web") == "SHUTOFF"
    wait_until(lambda: not alive(pid), "QEMU's end")
    assert get(client, "web").status.pid == 0

    events.until("DOMAIN_POWERED_OFF", "web")
    kinds = [kind for kind in events.kinds() if kind.startswith("DOMAIN_")]
    assert kinds == ["DOMAIN_CREATED", "DOMAIN_STARTING", "DOMAIN_STARTED", "DOMAIN_PAUSED", "DOMAIN_RESUMED", "DOMAIN_POWERED_OFF"]
    assert "CHAIN_FINDING" in events.kinds()
    revisions = [event.revision for event in events.events]
    assert revisions == sorted(revisions)
    assert all(event.uid == created.uid for event in events.events if event.resource_type == "domain")
    events.cancel()


def test_an_unsafe_chain_is_refused_with_layer_and_remedy(daemon, client):
    images.raw(daemon.path("deepest.raw"))
    base = images.qcow2(daemon.path("base.qcow2"), backing="deepest.raw", backing_format="raw")
    overlay = images.qcow2(daemon.path("overlay.qcow2"), backing="base.qcow2", declare=False)

    _, findings, summary = inspect(client, overlay, format=pb.IMAGE_FORMAT_QCOW2)
    assert not summary.safe and summary.errors >= 1
    [finding] = [finding for finding in findings if finding.severity == pb.SEVERITY_ERROR]
    assert codes([finding]) == ["PROBE_REFUSED_BACKING_FILE"]
    assert finding.path == base and finding.depth == 1
    assert "qemu-img rebase" in finding.remedy or "record" in finding.remedy

    create(client, "unsafe", driver="qemu", disks=[overlay])
    with refused("FAILED_PRECONDITION", "PROBE_REFUSED_BACKING_FILE") as refusal:
        act(client, "Start", "unsafe")
    metadata = refusal.error.metadata
    assert metadata["path"] == base and metadata["depth"] == "1" and metadata["disk"] == "vda" and metadata["remedy"]
    assert base in refusal.error.message
    assert state(client, "unsafe") == "SHUTOFF"
    assert daemon.hypervisors() == []


def test_recording_the_format_makes_the_chain_usable(daemon, client):
    base = images.qcow2(daemon.path("base.qcow2"), backing=images.raw(daemon.path("deepest.raw")), backing_format="raw")
    overlay = images.qcow2(daemon.path("overlay.qcow2"), backing=base, declare=False)
    answer = client.image.RecordBackingFormat(pb.RecordBackingFormatRequest(path=overlay, backing_format=pb.IMAGE_FORMAT_QCOW2))
    assert answer.changed and answer.backing_format == pb.IMAGE_FORMAT_QCOW2
    assert images.recorded_backing_format(overlay) == "qcow2"
    images.qemu_img("check", "-q", overlay)
    layers, _, summary = inspect(client, overlay, format=pb.IMAGE_FORMAT_QCOW2)
    assert summary.safe and summary.depth == 3
    assert layers[1].format_source == pb.FORMAT_SOURCE_DECLARED_BY_OVERLAY
    again = client.image.RecordBackingFormat(pb.RecordBackingFormatRequest(path=overlay, backing_format=pb.IMAGE_FORMAT_QCOW2))
    assert not again.changed
    create(client, "vm", driver="qemu", disks=[overlay])
    assert act(client, "Start", "vm").domain.status.state == pb.DOMAIN_STATE_RUNNING
    with refused("FAILED_PRECONDITION"):
        client.image.RecordBackingFormat(pb.RecordBackingFormatRequest(path=overlay, backing_format=pb.IMAGE_FORMAT_RAW))


def test_an_image_in_use_is_not_written_to(daemon, client):
    base = images.qcow2(daemon.path("base.qcow2"))
    overlay = images.qcow2(daemon.path("overlay.qcow2"), backing=base, declare=False)
    create(client, "vm", driver="qemu", disks=[overlay])
    act(client, "Start", "vm")
    with refused("FAILED_PRECONDITION", "IMAGE_IN_USE") as refusal:
        client.image.RecordBackingFormat(pb.RecordBackingFormatRequest(path=overlay, backing_format=pb.IMAGE_FORMAT_QCOW2))
    assert overlay in refusal.error.message
    assert images.recorded_backing_format(overlay) is None


def test_what_was_proven_is_what_is_opened(daemon, client):
    """A path that is swapped between creation and start is judged as it is at the start, and QEMU gets that very file."""
    disk = images.qcow2(daemon.path("disk.qcow2"))
    create(client, "vm", driver="qemu", disks=[disk])
    act(client, "Start", "vm")
    pid = get(client, "vm").status.pid
    opened = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert disk in opened
    with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
        assert disk not in file.read(), "QEMU was given a path"


def test_findings_of_probing_alone(daemon, client):
    path = images.qcow2(daemon.path("disk.qcow2"), size="32M")
    layer = client.image.ProbeImage(pb.ProbeImageRequest(path=path)).layer
    assert layer.format == pb.IMAGE_FORMAT_QCOW2 and layer.virtual_size_bytes == 32 << 20
    assert layer.file_size_bytes == os.path.getsize(path)
    with refused("NOT_FOUND"):
        client.image.ProbeImage(pb.ProbeImageRequest(path=path + ".not"))
    os.mkfifo(daemon.path("fifo"))
    with refused("FAILED_PRECONDITION"):
        client.image.ProbeImage(pb.ProbeImageRequest(path=daemon.path("fifo")))
