"""What one client may use, and what the administrator sees of the clients and can do about them."""
import contextlib
import os
import re
import resource
import socket
import subprocess
import time

import grpc
import pytest

from harness.client import Client, pb
from harness.daemon import program, wait_until
from harness.domains import create, names
from harness.errors import Refusal, refused
from harness.h2 import Connection, message
from harness.security import Secured, as_user, connect_as, write_policy

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can be several users")
GET = "virtplane.v1.DomainService/GetDomain"
REQUEST = message(pb.GetDomainRequest(name="vm").SerializeToString())
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
POLICY = """
bindings:
  - {role: admin, subjects: ["uid:61001", "uid:61002"]}
limits:
  - {subjects: ["uid:61001"], connections: 3, calls: 6, streams: 2, calls_per_second: 50, message_bytes: 2000}
"""


@pytest.fixture
def shared(make_daemon):
    """A daemon whose socket others may use."""
    daemon = make_daemon()
    daemon.config = f"[daemon]\nsocket_mode=0666\n[auth]\npolicy={daemon.path('policy.yaml')}\n[limits]\nstreams=4\n"
    write_policy(daemon, POLICY)
    os.chmod(daemon.folder, 0o755)
    return daemon.start()


def refusal(call):
    try:
        call()
    except grpc.RpcError as error:
        return Refusal(error)
    return None


@needs_root
def test_an_identity_has_its_part_and_no_more(shared):
    greedy, other, root = connect_as(shared, 61001), connect_as(shared, 61002), shared.client()
    create(root, "vm")

    # Streams: the policy's number for the one, that of the settings for the others, root too.
    def open_streams(client, most):
        streams = [client.event.WatchEvents(pb.WatchEventsRequest(start_revision=1)) for _ in range(most)]
        for stream in streams:
            next(stream)
        with refused("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS") as caught:
            next(client.event.WatchEvents(pb.WatchEventsRequest(start_revision=1)))
        assert caught.error.retry_seconds > 0 and f"{most} streams" in caught.error.message
        return streams

    held = open_streams(greedy, 2) + open_streams(other, 4) + open_streams(root, 4)

    for stream in held:
        stream.cancel()
    wait_until(lambda: refusal(lambda: next(greedy.event.WatchEvents(pb.WatchEventsRequest(start_revision=1), timeout=5))) is None, "room for a stream")

    # The size of a request.
    with refused("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"):
        create(greedy, "large", labels={f"key{i}": "x" * 60 for i in range(40)})
    create(other, "large", labels={f"key{i}": "x" * 60 for i in range(40)})

    # Calls a second: a second's worth at once, and then no faster than that; the others do not notice.
    time.sleep(1.1)
    answers = [refusal(lambda: names(greedy)) for _ in range(400)]
    shed = [answer for answer in answers if answer]
    assert shed and {(answer.code, answer.reason) for answer in shed} == {("RESOURCE_EXHAUSTED", "CALLS_TOO_FAST")}
    assert all(0 < answer.retry_seconds <= 1 for answer in shed)
    assert len(answers) - len(shed) >= 40
    assert names(other) == ["large", "vm"]
    time.sleep(shed[-1].retry_seconds + 0.1)
    assert names(greedy) == ["large", "vm"]

    # A policy that is read again counts for who is here already.
    write_policy(shared, POLICY.replace("message_bytes: 2000", "message_bytes: 100000"))
    wait_until(lambda: refusal(lambda: create(greedy, "large2", labels={f"key{i}": "x" * 60 for i in range(40)})) is None, "the new limit", interval=0.3)


@needs_root
def test_an_identity_has_its_connections_and_calls(shared):
    """By hand: a client of gRPC's would connect once for all. Those of one user do not take the room of another's."""
    with as_user(61001, 61001):
        held = [Connection(shared.socket) for _ in range(3)]
        late = Connection(shared.socket)
    for connection in held:
        assert connection.wait(connection.open(GET, REQUEST)) == NOT_FOUND
    assert late.wait(late.open(GET, REQUEST)) == EXHAUSTED
    assert names(connect_as(shared, 61002)) == []
    held.pop().close()

    def let_in():
        return late.wait(late.open(GET, REQUEST)) == NOT_FOUND

    wait_until(let_in, "room for the late one", interval=0.1)
    # Two streams and four more calls, which wait for the rest of their requests, are all that one may have under way.
    begun = [held[0].open("virtplane.v1.DomainService/OpenConsole", b"", end=False) for _ in range(2)]
    shed = held[1].open("virtplane.v1.DomainService/OpenConsole", b"", end=False)
    assert held[1].wait(shed) == EXHAUSTED and len(begun) == 2
    for connection in [*held, late]:
        connection.close()


@needs_root
def test_what_an_identity_may_create(make_daemon):
    """Counted by who has created it, over a restart and a crash; of all together too."""
    daemon = make_daemon()
    daemon.config = (f"[daemon]\nsocket_mode=0666\nmax_domains=5\nmax_secrets=2\n[auth]\npolicy={daemon.path('policy.yaml')}\n"
                     "[limits]\ndomains=2\nsecrets=1\n")
    write_policy(daemon, "bindings:\n  - {role: admin, subjects: [\"uid:61001\", \"uid:61002\"]}\nlimits:\n  - {subjects: [\"uid:0\"], domains: 0}\n")
    os.chmod(daemon.folder, 0o755)
    daemon.start()
    one, other, root = connect_as(daemon, 61001), connect_as(daemon, 61002), daemon.client()
    create(one, "a1")
    create(one, "a2", request_id="again")
    create(one, "a2", request_id="again")
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_DOMAINS") as caught:
        create(one, "a3")
    assert "uid:61001 has created 2" in caught.error.message and caught.error.retry_seconds > 0
    with refused("ALREADY_EXISTS"):
        create(other, "a1")
    create(other, "b1")
    # What another deletes is no longer counted for its owner either.
    root.domain.DeleteDomain(pb.DeleteDomainRequest(name="a1"))
    create(one, "a3")
    daemon.kill()
    daemon.start()
    one, other, root = connect_as(daemon, 61001), connect_as(daemon, 61002), daemon.client()
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_DOMAINS"):
        create(one, "a4")
    create(root, "c1")
    create(root, "c2")
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_DOMAINS") as caught:
        create(root, "c3")
    assert "there are 5 domains" in caught.error.message

    def make_secret(client, name, ephemeral=False):
        return client.secret.CreateSecret(pb.CreateSecretRequest(secret=pb.Secret(name=name, ephemeral=ephemeral)))

    make_secret(one, "s1", ephemeral=True)
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_SECRETS"):
        make_secret(one, "s2")
    one.secret.DeleteSecret(pb.DeleteSecretRequest(name="s1"))
    make_secret(one, "s2")
    make_secret(root, "s3")
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_SECRETS"):
        make_secret(other, "s4")


def test_wrong_limits_are_told_with_their_line(make_daemon):
    daemon = make_daemon()
    daemon.config = f"[auth]\npolicy={daemon.path('policy.yaml')}\n"
    wrong = {
        "limits: 7\n": "1: limits must be a list",
        "limits:\n- {calls: 7}\n": "2: a limit needs subjects",
        "limits:\n- subjects: [anonymous]\n  calls: -1\n": "3: \"-1\" is no number",
        "limits:\n- subjects: [anonymous]\n  cals: 1\n": "3: a limit has no \"cals\"",
        "limits:\n- subjects: [anonymous]\n  calls: 1\n  calls: 2\n": "4: a limit has \"calls\" twice",
        "limits:\n- subjects: [somebody]\n": "2: \"somebody\" is no subject",
        # The same list a thousand times: as many names as memory has room for.
        "bindings:\n- role: viewer\n  subjects: &all [" + ", ".join(["anonymous"] * 1000) + "]\n" + "- {role: viewer, subjects: *all}\n" * 1000:
            "more than 200000 names",
        "bindings: &a [*a]\n": "1: a binding must be a map",
        "bindings: " + "[" * 5000 + "]" * 5000 + "\n": "1: a binding must be a map",
    }
    for text, expected in wrong.items():
        write_policy(daemon, text)
        code, said = daemon.try_start()
        assert code == 1 and expected in said, (text[:80], said)
    for setting, expected in {"[limits]\ncals=1\n": "cals", "[limits]\ncalls=many\n": "calls", "[limits]\ncalls=2000000000\n": "too large",
                              "[daemon]\nmax_message_bytes=99999999\n": "too large"}.items():
        daemon.config = setting
        code, said = daemon.try_start()
        assert code == 1 and expected in said, said


def test_all_clients_together(make_daemon):
    daemon = make_daemon(config="[daemon]\nmax_calls_per_second=30\nmax_message_bytes=5000\n").start()
    answers = [refusal(lambda: names(daemon.client())) for _ in range(60)]
    assert {answer.reason for answer in answers if answer} == {"CALLS_TOO_FAST"}
    time.sleep(1.1)
    with refused("RESOURCE_EXHAUSTED"):
        create(daemon.client(), "large", description="x" * 1000, labels={f"key{i}": "x" * 60 for i in range(60)})


# ---- by TCP ----

def tcp_client(daemon):
    client = Client("127.0.0.1:" + daemon.ready_line.rsplit(":", 1)[1].split()[0])
    daemon.clients.append(client)
    return client


def test_connections_by_tcp_do_not_use_up_the_descriptors(make_daemon):
    """The core would take as many as come, and without descriptors give up listening for good."""
    daemon = make_daemon(prefix=["prlimit", "--nofile=128"])
    daemon.listen = [daemon.address, "127.0.0.1:0"]
    daemon.arguments = ["--insecure-tcp"]
    daemon.start()
    port = int(daemon.ready_line.rsplit(":", 1)[1].split()[0])
    silent = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(300)]
    # Strangers make room for the next one, and local clients have room of their own.
    client = tcp_client(daemon)
    wait_until(lambda: refusal(lambda: names(client)) is None, "room for one by TCP", interval=0.2)
    create(daemon.client(), "vm")
    assert len(os.listdir(f"/proc/{daemon.process.pid}/fd")) < 120
    for connection in silent:
        connection.close()
    assert names(client) == ["vm"]


def test_half_open_handshakes(make_daemon):
    """10,000 connections that never come to the end of TLS: who does is served, and by the unix socket all along."""
    secured = Secured(make_daemon, "bindings:\n  - {role: admin, subjects: [\"cn:alice\"]}\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(10000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + 500), hard))
    port = int(secured.address.split(":")[1])
    silent = []
    try:
        for i in range(wanted):
            connection = socket.create_connection(("localhost", port), timeout=30)
            if i % 3 == 0:
                with contextlib.suppress(OSError):
                    connection.sendall(b"\x16\x03\x01\x02\x00")
            silent.append(connection)
        assert names(secured.daemon.client()) == []
        alice = secured.alice()
        wait_until(lambda: refusal(lambda: names(alice)) is None, "alice is let in", interval=0.2)
        assert len(os.listdir(f"/proc/{secured.daemon.process.pid}/fd")) < 4500
    finally:
        for connection in silent:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- what the administrator sees ----

def listed(client, **fields):
    return list(client.admin.ListConnections(pb.ListConnectionsRequest(**fields)).connections)


def test_connections_are_listed_and_closed(make_daemon):
    secured = Secured(make_daemon, "bindings:\n  - {role: viewer, subjects: [\"cn:alice\"]}\n")
    root, alice = secured.daemon.client(), secured.alice()
    names(root)
    stream = alice.event.WatchEvents(pb.WatchEventsRequest(start_revision=1))
    next(stream)
    mine, hers = listed(root)
    assert mine.id < hers.id and mine.identity == f"uid:{os.getuid()}" and mine.caller == f"uid={os.getuid()} pid={os.getpid()}"
    assert mine.address == secured.daemon.address and mine.active_calls == 1 and mine.total_calls == 2
    assert hers.identity == "cn:alice" and re.fullmatch(r"ipv[46]:.*:\d+", hers.caller) and hers.address == secured.address
    assert (hers.active_calls, hers.active_streams) == (1, 1) and hers.last_call_time.ToSeconds() >= hers.connect_time.ToSeconds() > 0
    page = root.admin.ListConnections(pb.ListConnectionsRequest(page_size=1))
    assert [item.id for item in page.connections] == [mine.id]
    assert [item.id for item in listed(root, page_size=1, page_token=page.next_page_token)] == [hers.id]
    with refused("PERMISSION_DENIED"):
        listed(alice)
    with refused("PERMISSION_DENIED"):
        alice.admin.CloseConnection(pb.CloseConnectionRequest(id=mine.id))

    assert root.admin.CloseConnection(pb.CloseConnectionRequest(id=hers.id)).connection.caller == hers.caller
    with refused("UNAVAILABLE"):
        for _ in stream:
            pass
    wait_until(lambda: [item.id for item in listed(root)] == [mine.id], "it is gone")
    with refused("NOT_FOUND", "CONNECTION_NOT_FOUND"):
        root.admin.CloseConnection(pb.CloseConnectionRequest(id=hers.id))
    # Nothing keeps its client from coming again, as another connection.
    def again():
        with contextlib.suppress(grpc.RpcError):
            return alice.event.ListEvents(pb.ListEventsRequest()) is not None
        return False
    wait_until(again, "a new connection")
    assert listed(root)[-1].id > hers.id

    def vpctl(*arguments):
        env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
        done = subprocess.run([program("VPCTL", "clients/cli/vpctl"), "--connect", secured.daemon.address, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=30, env=env)
        return done.returncode, done.stdout

    code, said = vpctl("admin", "connections")
    assert code == 0 and "cn:alice" in said and f"uid:{os.getuid()}" in said
    last = vpctl("admin", "connections", "-o", "name")[1].split()
    assert str(mine.id) in last
    code, said = vpctl("admin", "close", str(listed(root)[1].id))
    assert code == 0 and "closed" in said
    assert vpctl("admin", "close", "1000000")[0] == 1 and vpctl("admin", "close", "x")[0] == 2
    assert vpctl("admin", "log-level", "debug", "--for", "1h") == (0, "it was info\n")
    assert vpctl("admin", "log-level", "info") == (0, "it was debug\n")
    assert vpctl("admin", "log-level", "loud")[0] == 2


def test_the_level_of_the_log(daemon, client):
    def set_level(level, **fields):
        return client.admin.SetLogLevel(pb.SetLogLevelRequest(level=level, **fields)).previous_level

    assert set_level(pb.LOG_LEVEL_WARNING) == pb.LOG_LEVEL_INFO
    request = pb.SetLogLevelRequest(level=pb.LOG_LEVEL_DEBUG)
    request.duration.FromMilliseconds(1)
    assert client.admin.SetLogLevel(request).previous_level == pb.LOG_LEVEL_WARNING
    # It goes back to the one without a time, not to that of another with one.
    request.duration.FromMilliseconds(50)
    assert client.admin.SetLogLevel(request).previous_level in (pb.LOG_LEVEL_WARNING, pb.LOG_LEVEL_DEBUG)
    time.sleep(1)
    assert set_level(pb.LOG_LEVEL_WARNING) == pb.LOG_LEVEL_WARNING
    for level, seconds in ((0, 0), (9, 0), (pb.LOG_LEVEL_INFO, -1), (pb.LOG_LEVEL_INFO, 31 * 86400)):
        wrong = pb.SetLogLevelRequest(level=level)
        wrong.duration.FromSeconds(seconds)
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST") as caught:
            client.admin.SetLogLevel(wrong)
        assert list(caught.error.violations) == (["level"] if level in (0, 9) else ["duration"])

