"""What a hostile client can do with frames: whatever it is, the daemon's memory stays bounded and another client's calls are answered."""
import contextlib
import os
import resource
import socket
import struct
import threading
import time

import grpc
import hpack
import pytest

from harness.client import pb
from harness.daemon import wait_until
from harness.domains import create, get, names
from harness.errors import Refusal, refused
from harness.h2 import CONTINUATION, DATA, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, Connection, frame, message

GET = "virtplane.v1.DomainService/GetDomain"
REQUEST = message(pb.GetDomainRequest(name="vm").SerializeToString())
SECONDS = 10 if os.environ.get("VIRTPLANE_FULL") else 1.5
PLAIN = os.environ.get("VIRTPLANE_CONFIG", "plain") == "plain"
CALL_TIMEOUT = 60


def peak_mib(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))


class Flood:
    """A connection of its own that sends frames and throws away what it is answered."""

    def __init__(self, path, read=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.settimeout(5)
        self.encoder = hpack.Encoder()
        self.stream = 1
        self.sent = 0
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))
        if read:
            threading.Thread(target=self.drain, daemon=True).start()

    def drain(self):
        with contextlib.suppress(OSError):
            while self.socket.recv(1 << 20):
                pass

    def headers(self, *extra, method=GET):
        return self.encoder.encode([(":method", "POST"), (":scheme", "http"), (":path", "/" + method), (":authority", "localhost"),
                                    ("content-type", "application/grpc"), ("te", "trailers"), *extra])

    def next_stream(self):
        self.stream += 2
        return self.stream - 2

    def run(self, burst):
        """Sends burst() again and again, for a while, or until the daemon has had enough of it."""
        deadline = time.monotonic() + SECONDS
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                self.socket.sendall(burst())
                self.sent += 1

    def close(self):
        self.socket.close()


class Witness:
    """Another client, that calls all the time."""

    def __init__(self, client):
        self.client, self.failures, self.answered, self.closed, self.stop = client, [], 0, 0, False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stop:
            try:
                self.client.domain.GetDomain(pb.GetDomainRequest(name="vm"), timeout=CALL_TIMEOUT)
                self.answered += 1
            except grpc.RpcError as error:
                # The core may close connections to get memory back: a client connects anew and calls again.
                self.closed += error.code() == grpc.StatusCode.UNAVAILABLE
                if error.code() != grpc.StatusCode.UNAVAILABLE or self.closed > 3:
                    self.failures.append(Refusal(error))

    def end(self):
        """All of its calls were answered, and are now."""
        before = self.answered
        wait_until(lambda: self.answered > before + 5 or self.failures, "an answer", timeout=2 * CALL_TIMEOUT)
        self.stop = True
        self.thread.join(2 * CALL_TIMEOUT)
        assert not self.failures, self.failures[:3]


@pytest.fixture
def attacked(daemon, client):
    """The daemon, with a domain and a witness; and at the end it is as it was."""
    create(client, "vm")
    witness = Witness(client)
    yield daemon
    witness.end()
    assert names(daemon.client()) == ["vm"]


def rapid_reset(flood):
    """CVE-2023-44487: streams that are reset as soon as they are opened."""
    out = b""
    for _ in range(100):
        stream = flood.next_stream()
        out += frame(HEADERS, 4, stream, flood.headers()) + frame(DATA, 1, stream, REQUEST)
        out += frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
    return out


def header_bomb(flood):
    """One large header, repeated by two bytes each time."""
    if flood.stream == 1:
        return frame(HEADERS, 5, flood.next_stream(), flood.headers(("x-a", "A" * 4000)))
    return frame(HEADERS, 5, flood.next_stream(), flood.headers() + b"\xbe" * 15000)


def endless_header(flood):
    """CONTINUATION frames without end."""
    if flood.stream == 1:
        return frame(HEADERS, 0, flood.next_stream(), flood.headers())
    return frame(CONTINUATION, 0, 1, (b"\0\3x-a\x3cy" + b"y" * 59) * 240) * 4


def large_headers(flood):
    return frame(HEADERS, 5, flood.next_stream(), flood.headers(*[(f"x-{i}", "y" * 100) for i in range(150)]))


def pings(_flood):
    return frame(PING, 0, 0, b"12345678") * 500


def settings(_flood):
    return frame(SETTINGS, 0, 0) * 500


def empty_data(flood):
    if flood.stream == 1:
        return frame(HEADERS, 4, flood.next_stream(), flood.headers())
    return frame(DATA, 0, 1) * 500


@pytest.mark.parametrize("attack, most_mib", [(rapid_reset, 500), (header_bomb, 300), (endless_header, 1200), (large_headers, 300), (pings, 300),
                                              (settings, 300), (empty_data, 300)])
@pytest.mark.parametrize("read", [True, False], ids=["answers read", "answers not read"])
def test_floods(attacked, attack, most_mib, read):
    flood = Flood(attacked.socket, read)
    flood.run(lambda: attack(flood))
    assert flood.sent > 0
    flood.close()
    if PLAIN:
        assert peak_mib(attacked) < most_mib


def test_a_greedy_client_waits_for_itself(daemon, client):
    """A connection that sends many calls at once, each with much to look for and nothing to find: another's is answered long before they all are."""
    for number in range(200):
        create(client, f"vm{number:03}", labels={"tenant": "blue"})
    other, calls = daemon.client(), 120
    names(other)
    patterns = [f"*{i % 10}*{letter}*" for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz" * 2)]
    request = message(pb.ListDomainsRequest(filter=pb.DomainFilter(names=patterns)).SerializeToString())
    assert len(request) * calls < 65000, "what a connection may send at once"

    def waiting():
        """The calls of the greedy one that are still to be answered, when the other's one is."""
        flood = Flood(daemon.socket)
        burst = b""
        for _ in range(calls):
            stream = flood.next_stream()
            burst += frame(HEADERS, 4, stream, flood.headers(method="virtplane.v1.DomainService/ListDomains")) + frame(DATA, 1, stream, request)
        flood.socket.sendall(burst)
        still = max(item.active_calls for item in other.admin.ListConnections(pb.ListConnectionsRequest()).connections)
        flood.close()
        return still

    # On a busy host the other may have had its turn late itself, before the daemon saw its call.
    assert any(waiting() > calls / 2 for _ in range(5))


def test_answers_that_nobody_reads(attacked):
    """Slow reads: a window of zero. What was answered is dropped after a while; other connections have room."""
    readers = [Connection(attacked.socket, window=0) for _ in range(3)]
    for reader in readers:
        for _ in range(1000):
            reader.streams[reader.h2.get_next_available_stream_id()] = {"data": b"", "headers": {}, "ended": False}
            stream = reader.h2.get_next_available_stream_id()
            reader.h2.send_headers(stream, reader.headers(GET))
            reader.h2.send_data(stream, REQUEST, end_stream=True)
        reader.flush()
    for reader in readers:
        reader.close()
    if PLAIN:
        assert peak_mib(attacked) < 300


def test_answers_that_nobody_reads_make_room(make_daemon):
    daemon = make_daemon(config="[daemon]\nmax_calls=100\nmax_streams=50\n").start()
    client = daemon.client()
    create(client, "vm")
    reader = Connection(daemon.socket, window=0)
    for _ in range(100):
        reader.open(GET, REQUEST)

    def shed():
        try:
            get(client, "vm")
        except grpc.RpcError as error:
            return Refusal(error)
        return None

    refusal = wait_until(shed, "a call that is shed")
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS") and refusal.retry_seconds > 0
    wait_until(lambda: not shed(), "room", interval=0.2)
    reader.close()


def test_streams_beyond_the_limit(make_daemon):
    daemon = make_daemon(config="[daemon]\nmax_streams=20\n").start()
    client = daemon.client()
    streams = [client.event.WatchEvents(pb.WatchEventsRequest()) for _ in range(20)]
    for stream in streams:
        next(stream)
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS") as refusal:
        next(client.event.WatchEvents(pb.WatchEventsRequest()))
    assert refusal.error.retry_seconds > 0
    assert names(client) == []
    streams.pop().cancel()

    def taken():
        with contextlib.suppress(grpc.RpcError):
            return next(client.event.WatchEvents(pb.WatchEventsRequest(), timeout=5)) is not None
        return False

    wait_until(taken, "room for a stream")


def test_requests_that_do_not_end(attacked):
    """Slow writes: the beginnings of 1,000 messages."""
    flood = Flood(attacked.socket)
    begun = b""
    for _ in range(1000):
        stream = flood.next_stream()
        begun += frame(HEADERS, 4, stream, flood.headers()) + frame(DATA, 0, stream, message(b"x" * 1000, 1 << 20))
    flood.socket.sendall(begun)
    time.sleep(SECONDS)
    flood.close()
    if PLAIN:
        assert peak_mib(attacked) < 300


def test_a_length_of_4_gib(attacked):
    """The length is a claim: nothing is allocated for it."""
    connections = [Connection(attacked.socket) for _ in range(20)]
    for connection in connections:
        connection.open(GET, message(b"abc", 0xffffffff), end=False)
    for connection in connections:
        stream = connection.open(GET, REQUEST)
        assert connection.wait(stream) == 0
        connection.close()
    if PLAIN:
        assert peak_mib(attacked) < 200


def test_half_open_connections(attacked, client):
    """10,000 that say nothing: those that do are served, and the others cost next to nothing."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(10000, hard - 500)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + 500), hard))
    silent = []
    try:
        for i in range(wanted):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(attacked.socket)  # waits for room in the queue of those that connect
            if i % 3 == 0:
                connection.sendall(PREFACE[:7])
            silent.append(connection)
        assert get(attacked.client(), "vm").name == "vm"
        assert len(os.listdir(f"/proc/{attacked.process.pid}/fd")) < 2000
        if PLAIN:
            assert peak_mib(attacked) < 200
    finally:
        for connection in silent:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_beyond_the_limit_are_told(make_daemon):
    """With 64 descriptors, half of them are for connections; what is beyond is refused with a reason, and finds room when others go."""
    daemon = make_daemon(prefix=["prlimit", "--nofile=64"]).start()
    held = [Connection(daemon.socket) for _ in range(32)]
    for connection in held:
        assert connection.wait(connection.open(GET, REQUEST)) == grpc.StatusCode.NOT_FOUND.value[0]
    late = daemon.client()
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_CONNECTIONS") as refusal:
        names(late)
    assert refusal.error.retry_seconds > 0
    for connection in held:
        connection.close()

    def served():
        with contextlib.suppress(grpc.RpcError):
            return names(late) == []
        return False

    wait_until(served, "room for the late one")


def test_what_clients_say_does_not_forge_the_log(attacked, client):
    """Names, paths and headers with line ends, terminal sequences and formats are never written to the log as they are."""
    evil = "vm\nerror: forged %s%n\x1b[31m"
    connection = Connection(attacked.socket)
    for extra in ([("x-note", "%s%n%p")], [("user-agent", "%n%n%n")], [("authorization", "Bearer %s%n")]):
        connection.wait(connection.open(GET, REQUEST, extra))
    with refused("INVALID_ARGUMENT"):
        client.domain.GetDomain(pb.GetDomainRequest(name=evil))
    with contextlib.suppress(grpc.RpcError):
        create(client, "labelled", labels={"note": evil, "test.fault.start": "fail:INTERNAL:" + evil})
        client.domain.StartDomain(pb.StartDomainRequest(name="labelled"))
    with contextlib.suppress(grpc.RpcError):
        client.domain.DeleteDomain(pb.DeleteDomainRequest(name="labelled"))
    with contextlib.suppress(grpc.RpcError):
        list(client.image.InspectChain(pb.InspectChainRequest(path="/nonexistent/%s%n")))
    log = attacked.log()
    assert "\x1b" not in log and "\nerror: forged" not in log, log
