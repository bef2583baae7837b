"""Calls that take long, or whose reader takes nothing: they end with an error and not as if they were whole, and short calls get through beside them."""
import os
import time

import pytest

from harness import images
from harness.client import pb
from harness.domains import create, names
from harness.errors import refused
from harness.h2 import Connection, message

CANCELLED = 1
CHAIN = "virtplane.v1.ImageService/InspectChain"
FOLDER = "virtplane.v1.ImageService/InspectPath"
BACKUP = "virtplane.v1.AdminService/BackupStore"


@pytest.fixture
def connect(daemon):
    """Makes connections by hand that are closed at the end."""
    made = []

    def make(**options):
        made.append(Connection(daemon.socket, **options))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


def chain(daemon, layers):
    path = images.raw(daemon.path("base.raw"))
    backing_format = "raw"
    for i in range(1, layers):
        overlay = daemon.path(f"{i}.qcow2")
        images.qemu_img("create", "-q", "-f", "qcow2", "-u", "-F", backing_format, "-b", path, overlay, "1M")
        path, backing_format = overlay, "qcow2"
    return path


def test_a_chain_that_was_not_told_to_its_end_is_no_success(daemon, client, connect):
    """The summary is the one message that finds no room: the reader takes nothing, and all layers are on their way."""
    path = chain(daemon, 65)
    answers = list(client.image.InspectChain(pb.InspectChainRequest(path=path, format=pb.IMAGE_FORMAT_QCOW2)))
    assert len(answers) == 66, "65 layers and no finding are what fills the queue"
    reader = connect(window=0)
    request = pb.InspectChainRequest(path=path, format=pb.IMAGE_FORMAT_QCOW2).SerializeToString()
    stream = reader.open(CHAIN, message(request))
    time.sleep(17)  # the daemon waits 10 s for its reader, once it has walked the chain
    reader.grow(stream)
    assert reader.wait(stream) == CANCELLED
    assert reader.streams[stream]["data"].count(b".qcow2") >= 64


def test_slow_calls_leave_room_for_others(daemon, client, connect):
    """Readers that take nothing hold folders, backups and chains; what is beyond is refused at once, and short calls are answered."""
    folder = daemon.path("images")
    os.mkdir(folder)
    for i in range(12000):
        images.raw(os.path.join(folder, f"a-name-that-is-longer-than-others-{i:05}.raw"), 1 << 20)
    path = chain(daemon, 150)
    create(client, "vm", labels={"note": "x" * 4000})
    for _ in range(2):
        connect(window=0).open(CHAIN, message(pb.InspectChainRequest(path=path, format=pb.IMAGE_FORMAT_QCOW2).SerializeToString()))

    def refused_beyond():
        with refused("RESOURCE_EXHAUSTED", "TOO_BUSY") as refusal:
            for _ in range(20):
                # The one before may have come when ours had taken the place.
                for _ in range(2):
                    connect(window=0).open(FOLDER, message(pb.InspectPathRequest(path=folder).SerializeToString()))
                list(client.image.InspectPath(pb.InspectPathRequest(path=folder), timeout=60))
        return refusal.error

    assert refused_beyond().retry_seconds > 0
    started = time.monotonic()
    for _ in range(20):
        client.host.GetHost(pb.GetHostRequest())
        client.image.ProbeImage(pb.ProbeImageRequest(path=path))
        client.event.ListEvents(pb.ListEventsRequest())
        assert names(client) == ["vm"]
    assert time.monotonic() - started < 60
