"""Screens by TCP with TLS: who may connect, where, for how long; with real QEMU and the TLS of Python's library."""
import contextlib
import errno
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import grpc
import pytest
from cryptography import x509

from harness import rfb
from harness.client import pb
from harness.daemon import program, wait_until
from harness.disk import Disk
from harness.domains import act, create, get
from harness.errors import refused
from harness.events import Events
from harness.security import Authority, Secured, write_policy

POLICY = """
bindings:
  - {role: admin, subjects: ["cn:alice"]}
  - {role: viewer, subjects: ["cn:victor"]}
  - {role: operator, subjects: ["cn:olga"], where: {names: ["other-*"]}}
"""
GREETING = b"RFB 003.008\n"
VNC = pb.GRAPHICS_TYPE_VNC
# What a sanitizer keeps for itself is not the daemon's.
PLAIN = os.environ.get("VIRTPLANE_CONFIG", "plain") == "plain"


def tls_screen(port=0, address="", kind=VNC):
    return pb.TlsScreen(type=kind, address=address, port=port)


def create_vm(client, name="vm", screens=None, **fields):
    screens = screens or [tls_screen()]
    return create(client, name, driver="qemu", accelerator=pb.ACCELERATOR_TCG, graphics=[screen.type for screen in screens], tls_screens=screens, **fields)


def endpoint(client, name="vm", device="vnc"):
    [found] = [one for one in get(client, name).status.endpoints if one.device == device]
    return found.tls_address, found.tls_port


@pytest.fixture
def secured(make_daemon):
    return Secured(make_daemon, POLICY, tokens=False)


@pytest.fixture
def alice(secured):
    return secured.authority.issue("alice")


def context_with(secured, pair, version=ssl.TLSVersion.TLSv1_3):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(secured.daemon.path("ca.crt"))
    if pair:
        for name, text in zip(("shown.crt", "shown.key"), pair):
            secured.write(name, text)
        context.load_cert_chain(secured.daemon.path("shown.crt"), secured.daemon.path("shown.key"))
    return context


def connect(secured, address, pair, **options):
    raw = socket.create_connection(address, timeout=30)
    try:
        return context_with(secured, pair, **options).wrap_socket(raw, server_hostname="localhost")
    except BaseException:
        raw.close()
        raise


def greeting(secured, address, pair, **options):
    """What the screen says first; nothing of one that lets nobody in."""
    with contextlib.suppress(ssl.SSLError, ConnectionError), connect(secured, address, pair, **options) as connection:
        return rfb.take(connection, len(GREETING))
    return b""


def is_shut_out(secured, address, pair, **options):
    with contextlib.suppress(ssl.SSLError, ConnectionError), connect(secured, address, pair, **options) as connection:
        assert connection.recv(64) == b""


def picture(viewer, width, height):
    """All of the screen as it is; how many bytes of pixels came."""
    viewer.sendall(b"\3\0" + struct.pack(">HHHH", 0, 0, width, height))
    kind, rectangles = struct.unpack(">BxH", rfb.take(viewer, 4))
    assert kind == 0 and rectangles
    taken = 0
    for _ in range(rectangles):
        _, _, across, down, encoding = struct.unpack(">HHHHi", rfb.take(viewer, 12))
        assert encoding == 0
        taken += len(rfb.take(viewer, across * down * 4))
    return taken


def nobody_listens(address):
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        return probe.connect_ex(address) != 0


def resident_kib(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
        return int(re.search(r"^VmRSS:\s+(\d+)", file.read(), re.M).group(1))


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def audited(secured):
    with open(os.path.join(secured.daemon.state_dir, "audit.jsonl"), encoding="utf-8") as file:
        return [line for line in map(json.loads, file) if line["method"].endswith("/OpenScreen")]


def test_a_viewer_with_the_right_certificate(secured, alice):
    client = secured.daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    address = endpoint(client)
    assert address[0] == "127.0.0.1" and address[1] >= 1024
    # Two at once, and each can do all that a viewer does.
    with connect(secured, address, alice) as one, connect(secured, address, alice) as other:
        assert one.version() == "TLSv1.3"
        for viewer in (one, other):
            width, height, name = rfb.open_screen(viewer)
            assert width >= 640 and height >= 400 and "vm" in name
        # More than any buffer of the way holds: all of the picture, over and over.
        assert sum(picture(one, width, height) for _ in range(20)) >= 20 * 640 * 400 * 4
    wait_until(lambda: len(audited(secured)) == 2, "both are written down")
    for line in audited(secured):
        assert line["identity"] == "cn:alice" and line["resource"] == "domain/vm" and line["outcome"] == "DONE" and "ipv4:127.0.0.1:" in line["caller"]


def test_who_is_refused(secured, alice):
    client = secured.daemon.client()
    events = Events(client)
    create_vm(client)
    create_vm(client, "other-vm")
    for name in ("vm", "other-vm"):
        act(client, "Start", name)
    address = endpoint(client)
    issue = secured.authority.issue
    assert greeting(secured, address, alice) == GREETING
    assert greeting(secured, endpoint(client, "other-vm"), issue("olga")) == GREETING

    withdrawn = issue("alice")
    secured.withdraw(withdrawn[0])
    wait_until(lambda: "read again" in secured.daemon.log(), "the list is read")
    for pair in (None, Authority().issue("alice"), issue("alice", self_signed=True), issue("alice", server=True), withdrawn, issue("victor"), issue("olga"),
                 issue("mallory")):
        is_shut_out(secured, address, pair)
    is_shut_out(secured, address, alice, version=ssl.TLSVersion.TLSv1_2)
    lines = [line for line in audited(secured) if line["outcome"] == "REFUSED"]
    assert [(line["identity"], line["reason"]) for line in lines] == [
        ("anonymous", "NO_IDENTITY"), ("anonymous", "CERTIFICATE_REFUSED"), ("anonymous", "CERTIFICATE_REFUSED"), ("anonymous", "CERTIFICATE_REFUSED"),
        ("anonymous", "CERTIFICATE_REFUSED"), ("cn:victor", "NOT_ALLOWED"), ("cn:olga", "DOMAIN_NOT_FOUND"), ("cn:mallory", "NOT_ALLOWED")], lines
    wait_until(lambda: events.kinds().count("CLIENT_REFUSED") == len(lines), "each is told")
    assert greeting(secured, address, alice) == GREETING


def test_a_right_that_is_taken_away(secured, alice):
    client = secured.daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    with connect(secured, endpoint(client), alice) as viewer, connect(secured, endpoint(client), secured.authority.issue("bob")):
        rfb.open_screen(viewer)
        write_policy(secured.daemon, POLICY.replace("cn:alice", "cn:bob"))
        with contextlib.suppress(ConnectionError):
            while viewer.recv(65536):
                pass
    is_shut_out(secured, endpoint(client), alice)
    assert greeting(secured, endpoint(client), secured.authority.issue("bob")) == GREETING
    assert audited(secured)[0]["identity"] == "cn:bob" or audited(secured)[0]["outcome"] == "REFUSED"


def test_those_without_a_certificate_if_the_policy_lets_them(secured):
    client = secured.daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    is_shut_out(secured, endpoint(client), None)
    write_policy(secured.daemon, POLICY + "  - {role: operator, subjects: [anonymous]}\n")
    wait_until(lambda: greeting(secured, endpoint(client), None) == GREETING, "they are let in")
    is_shut_out(secured, endpoint(client), Authority().issue("alice"))


def test_certificates_are_changed(secured, alice):
    client = secured.daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    with connect(secured, endpoint(client), alice) as viewer:
        rfb.take(viewer, len(GREETING))
        before = viewer.getpeercert(True)
        certificate, key = secured.authority.issue("server2", [x509.DNSName("localhost")], server=True)
        secured.write("server.key", key)
        secured.write("server.crt", certificate)

        def changed():
            with connect(secured, endpoint(client), alice) as other:
                return other.getpeercert(True) != before

        wait_until(changed, "the new certificate is shown")
        viewer.sendall(GREETING)  # who is there goes on
        assert rfb.take(viewer, 1)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_keeps_the_port(secured, alice, how):
    daemon = secured.daemon
    client = daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    address = endpoint(client)
    with connect(secured, address, alice) as viewer:
        rfb.open_screen(viewer)
        getattr(daemon, how)()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while viewer.recv(65536):
                pass
    assert nobody_listens(address)
    # Somebody else has it for a while.
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(address)
        squatter.listen()
        daemon.start()
        client = daemon.client()
        wait_until(lambda: "cannot be served for now" in daemon.log(), "it is told")
        assert endpoint(client) == address
    wait_until(lambda: greeting(secured, address, alice) == GREETING, "it is served again")
    daemon.restart()
    client = daemon.client()
    assert endpoint(client) == address and greeting(secured, address, alice) == GREETING
    act(client, "PowerOff", "vm")
    assert nobody_listens(address)


def test_the_listener_goes_with_the_domain(secured, alice):
    client = secured.daemon.client()
    create_vm(client)
    for _ in range(2):
        act(client, "Start", "vm")
        address = endpoint(client)
        with connect(secured, address, alice) as viewer, socket.create_connection(address):
            rfb.open_screen(viewer)
            act(client, "PowerOff", "vm")
            assert nobody_listens(address)
            with contextlib.suppress(ConnectionError):
                while viewer.recv(65536):
                    pass
        assert not [one for one in get(client, "vm").status.endpoints if one.tls_port]
    # Killed, it is the same; and a port of one's own is to be had at once again.
    port = address[1]
    client.domain.UpdateDomain(pb.UpdateDomainRequest(domain=pb.Domain(name="vm", spec=pb.DomainSpec(tls_screens=[tls_screen(port)])),
                                                      update_mask={"paths": ["spec.tls_screens"]}))
    for _ in range(3):
        act(client, "Start", "vm")
        assert endpoint(client) == ("127.0.0.1", port) and greeting(secured, address, alice) == GREETING
        os.kill(get(client, "vm").status.pid, signal.SIGKILL)
        wait_until(lambda: get(client, "vm").status.state == pb.DOMAIN_STATE_CRASHED, "its end is seen")
        assert nobody_listens(address)
    # While it is saved nobody listens.
    act(client, "Start", "vm")
    act(client, "Save", "vm")
    assert nobody_listens(address)
    act(client, "Start", "vm")
    assert greeting(secured, address, alice) == GREETING


def test_an_address_that_cannot_be_had(secured, alice):
    client = secured.daemon.client()
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        create_vm(client, screens=[tls_screen(port)])
        with refused("FAILED_PRECONDITION", reason="ADDRESS_IN_USE") as refusal:
            act(client, "Start", "vm")
        assert "vnc of the domain vm" in refusal.error.message and str(port) in refusal.error.message
        assert get(client, "vm").status.state == pb.DOMAIN_STATE_SHUTOFF
    act(client, "Start", "vm")
    assert greeting(secured, ("127.0.0.1", port), alice) == GREETING
    # A second domain that wants the same.
    create_vm(client, "second", screens=[tls_screen(port)])
    with refused("FAILED_PRECONDITION", reason="ADDRESS_IN_USE"):
        act(client, "Start", "second")
    create_vm(client, "far", screens=[tls_screen(address="192.0.2.1")])
    with refused("FAILED_PRECONDITION", reason="ADDRESS_UNUSABLE"):
        act(client, "Start", "far")
    assert greeting(secured, ("127.0.0.1", port), alice) == GREETING


def test_a_start_that_fails_gives_the_address_back(secured, alice):
    client = secured.daemon.client()
    image = secured.daemon.path("disk.raw")
    with socket.socket() as chooser:
        chooser.bind(("127.0.0.1", 0))
        address = chooser.getsockname()
    create_vm(client, screens=[tls_screen(address[1])], disks=[pb.Disk(path=image, format=pb.IMAGE_FORMAT_RAW)])
    with refused("FAILED_PRECONDITION", reason="FILE_MISSING"):
        act(client, "Start", "vm")
    assert nobody_listens(address)
    with open(image, "wb") as file:
        file.truncate(1 << 20)
    act(client, "Start", "vm")
    assert greeting(secured, address, alice) == GREETING
    # One that runs is not started, and is served as before.
    with refused("FAILED_PRECONDITION", reason="WRONG_STATE"):
        act(client, "Start", "vm")
    assert greeting(secured, address, alice) == GREETING


@pytest.mark.parametrize("screens, field", [
    ([tls_screen(address="localhost")], "tls_screens[0].address"),
    ([tls_screen(port=22)], "tls_screens[0].port"),
    ([tls_screen(kind=pb.GRAPHICS_TYPE_SPICE)], "tls_screens[0].type"),
    ([tls_screen(), tls_screen()], "tls_screens[1].type"),
    ([tls_screen(port=5901), tls_screen(port=70000)], "tls_screens[1].port"),
])
def test_what_is_no_setting(secured, screens, field):
    with refused("INVALID_ARGUMENT") as refusal:
        create(secured.daemon.client(), "vm", driver="qemu", graphics=[VNC], tls_screens=screens)
    assert any(violation.endswith(field) for violation in refusal.error.violations), refusal.error


def test_without_certificates(daemon, client):
    with refused("FAILED_PRECONDITION", reason="TLS_NOT_SET_UP") as refusal:
        create_vm(client)
    assert "[tls]" in refusal.error.message and "vpctl pki" in refusal.error.message
    create(client, "vm", driver="qemu", graphics=[VNC])
    with refused("FAILED_PRECONDITION", reason="TLS_NOT_SET_UP"):
        client.domain.UpdateDomain(pb.UpdateDomainRequest(domain=pb.Domain(name="vm", spec=pb.DomainSpec(tls_screens=[tls_screen()])),
                                                          update_mask={"paths": ["spec.tls_screens"]}))


def test_certificates_that_are_gone(secured):
    """A domain of before is not started without what its spec asks for."""
    daemon = secured.daemon
    create_vm(daemon.client())
    daemon.config, daemon.listen = "", [daemon.address]
    daemon.restart()
    client = daemon.client()
    with refused("FAILED_PRECONDITION", reason="TLS_NOT_SET_UP"):
        act(client, "Start", "vm")
    # It can be told to do without.
    client.domain.UpdateDomain(pb.UpdateDomainRequest(domain=pb.Domain(name="vm", labels={"a": "b"}), update_mask={"paths": ["labels"]}))
    client.domain.UpdateDomain(pb.UpdateDomainRequest(domain=pb.Domain(name="vm", spec=pb.DomainSpec(memory_bytes=96 << 20)),
                                                      update_mask={"paths": ["spec.memory_bytes"]}))
    with refused("FAILED_PRECONDITION", reason="TLS_NOT_SET_UP"):
        client.domain.UpdateDomain(pb.UpdateDomainRequest(domain=pb.Domain(name="vm", spec=pb.DomainSpec(tls_screens=[tls_screen(5901)])),
                                                          update_mask={"paths": ["spec.tls_screens"]}))
    client.domain.UpdateDomain(pb.UpdateDomainRequest(domain=pb.Domain(name="vm", spec=pb.DomainSpec()), update_mask={"paths": ["spec.tls_screens"]}))
    act(client, "Start", "vm")


def test_hands_that_are_not_shaken(secured, alice):
    """They are cut in time, whether they say nothing or a byte now and then; and shut nobody out."""
    client = secured.daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    address = endpoint(client)
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        silent, slow, wrong = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(3)]
        wrong.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while wrong.recv(4096):
            pass
        assert time.monotonic() - began < 5, "what speaks no TLS is let go at once"
        with contextlib.suppress(ConnectionError):
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 4:
                slow.sendall(bytes([byte]))
                time.sleep(0.5)
        with contextlib.suppress(ConnectionError):
            assert silent.recv(1) == b""
        assert 8 < time.monotonic() - began < 20
        # Many of them: the newest have a place.
        crowd = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(100)]
        assert greeting(secured, address, alice) == GREETING
        gone = 0
        for connection in crowd:
            connection.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                try:
                    gone += connection.recv(1) == b""
                except ConnectionError:
                    gone += 1
        assert gone >= 84, gone
    assert not audited(secured) or all(line["outcome"] == "DONE" for line in audited(secured))


def test_strangers_shut_nobody_out(make_daemon):
    """However many they are, of one screen or of several: those who are let in are counted apart."""
    # An eighth for those who are let in, a sixteenth for the others.
    secured = Secured(lambda: make_daemon(prefix=["prlimit", "--nofile=256"]), POLICY, tokens=False)
    alice = secured.authority.issue("alice")
    client = secured.daemon.client()
    addresses = []
    for name in ("vm", "second", "third"):
        create_vm(client, name)
        act(client, "Start", name)
        addresses.append(endpoint(client, name))
    before = descriptors(secured.daemon)
    with contextlib.ExitStack() as stack:
        # Silent ones, and some that speak no TLS and do not close their end.
        for address in addresses:
            for _ in range(16):
                stack.enter_context(socket.create_connection(address, timeout=30))
        for _ in range(60):
            for address in addresses:
                stack.enter_context(socket.create_connection(address, timeout=30)).sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert [greeting(secured, address, alice) for address in addresses] == [GREETING] * 3
        assert descriptors(secured.daemon) <= before + 16 + 8
        # Those who are on their way out take no place either.
        viewers = [stack.enter_context(connect(secured, addresses[i % 3], alice)) for i in range(32)]
        for viewer in viewers:
            assert rfb.take(viewer, len(GREETING)) == GREETING
        is_shut_out(secured, addresses[0], alice)
        wait_until(lambda: [line["reason"] for line in audited(secured) if line["outcome"] == "FAILED"] == ["TOO_MANY_VIEWERS"], "it is told")
        for viewer in viewers[:3]:
            viewer.close()
        wait_until(lambda: greeting(secured, addresses[0], alice) == GREETING, "there is room again")


def test_the_limits_of_an_identity(make_daemon):
    """A viewer counts as one of its streams, as OpenScreen does."""
    secured = Secured(make_daemon, POLICY.replace('"cn:alice"', '"cn:alice", "cn:bob"'), tokens=False, config="[limits]\nstreams=2\n")
    alice, bob = secured.authority.issue("alice"), secured.authority.issue("bob")
    client = secured.daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    address = endpoint(client)
    events = secured.client(alice).event
    with connect(secured, address, alice) as one:
        assert rfb.take(one, len(GREETING)) == GREETING
        with connect(secured, address, alice) as two:
            assert rfb.take(two, len(GREETING)) == GREETING
            is_shut_out(secured, address, alice)
            with refused("RESOURCE_EXHAUSTED", reason="TOO_MANY_STREAMS"):
                next(events.WatchEvents(pb.WatchEventsRequest(start_revision=1)))
            assert greeting(secured, address, bob) == GREETING
        [line] = [line for line in audited(secured) if line["code"] == "RESOURCE_EXHAUSTED"]
        assert (line["identity"], line["outcome"], line["reason"]) == ("cn:alice", "FAILED", "TOO_MANY_STREAMS")
        wait_until(lambda: greeting(secured, address, alice) == GREETING, "the place is given back")
        watches = []

        def watches_too():
            with contextlib.suppress(grpc.RpcError):
                watches.append(events.WatchEvents(pb.WatchEventsRequest(start_revision=1)))
                return next(watches[-1])
            return False

        wait_until(watches_too, "a call has the place")
        is_shut_out(secured, address, alice)
        watches[-1].cancel()
    for _ in range(5):
        wait_until(lambda: greeting(secured, address, alice) == GREETING, "none is kept")


def test_the_loopback_without_tls_lets_nobody_in_here(secured):
    """That everybody may do everything by a port without TLS, when no policy says otherwise, is said of that port."""
    daemon = secured.daemon
    create_vm(daemon.client())
    daemon.config = re.sub(r"(?m)^policy=.*$", "", daemon.config) + "[daemon]\ninsecure_tcp=true\n"
    daemon.listen = [daemon.address]
    daemon.restart()
    act(daemon.client(), "Start", "vm")
    is_shut_out(secured, endpoint(daemon.client()), None)
    wait_until(lambda: audited(secured), "it is written down")
    [line] = audited(secured)
    assert (line["outcome"], line["code"], line["reason"]) == ("REFUSED", "UNAUTHENTICATED", "CERTIFICATE_NEEDED"), line


def test_refusals_of_the_unknown_are_not_all_written_down(secured, alice):
    """Whoever can reach the port could fill the disk with them."""
    client = secured.daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    address = endpoint(client)
    began = time.monotonic()
    foreign = Authority().issue("alice")
    for _ in range(20):
        is_shut_out(secured, address, None)
        is_shut_out(secured, address, foreign)
    # Those who are known are written down, each.
    for _ in range(3):
        is_shut_out(secured, address, secured.authority.issue("victor"))
    wait_until(lambda: len([line for line in audited(secured) if line["identity"] == "cn:victor"]) == 3, "each is told")
    unknown = [line for line in audited(secured) if line["identity"] == "anonymous"]
    assert 10 <= len(unknown) <= 11 + time.monotonic() - began
    assert len(unknown) + sum(line.get("left_out", 0) for line in audited(secured)) == 40
    time.sleep(1.1)
    is_shut_out(secured, address, None)
    wait_until(lambda: len([line for line in audited(secured) if line["identity"] == "anonymous"]) == len(unknown) + 1, "some are told again")


def test_a_start_that_is_recorded_late(make_daemon):
    """While the store has no room for it the screen's address is kept, and told when it has."""
    disks = []

    def make():
        daemon = make_daemon()
        disks.append(Disk(daemon.folder))
        daemon.env.update(disks[0].env)
        return daemon

    secured = Secured(make, POLICY, tokens=False)
    alice = secured.authority.issue("alice")
    client = secured.daemon.client()
    create_vm(client)
    late = False
    # What of it is refused depends on how many calls that write there are before.
    for after in range(1, 40):
        disks[0].fail(errno.ENOSPC, after=after)
        try:
            act(client, "Start", "vm")
        except grpc.RpcError as error:
            late = "is done, but could not be recorded yet" in error.details()
        disks[0].heal()
        if late:
            break
        wait_until(lambda: get(client, "vm").status.state not in (pb.DOMAIN_STATE_STARTING, pb.DOMAIN_STATE_SHUTTING_DOWN), "what came of it")
        act(client, "PowerOff", "vm")
    assert late
    wait_until(lambda: get(client, "vm").status.state == pb.DOMAIN_STATE_RUNNING, "it is recorded")
    address = endpoint(client)
    assert address[1] and greeting(secured, address, alice) == GREETING
    act(client, "PowerOff", "vm")
    assert nobody_listens(address)


def test_many_viewers(secured, alice):
    """Bounded; and who leaves makes room."""
    client = secured.daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    address = endpoint(client)
    context = context_with(secured, alice)

    def open_one():
        raw = socket.create_connection(address, timeout=30)
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            connection = context.wrap_socket(raw, server_hostname="localhost")
            with contextlib.suppress(AssertionError):
                assert rfb.take(connection, len(GREETING)) == GREETING
                return connection
        raw.close()
        return None

    viewers = [one for one in (open_one() for _ in range(40)) if one]
    assert len(viewers) == 32
    open_before = descriptors(secured.daemon)
    for viewer in viewers:
        viewer.close()
    wait_until(lambda: descriptors(secured.daemon) <= open_before - 60, "all are let go")
    assert greeting(secured, address, alice) == GREETING


def test_a_viewer_that_takes_nothing(secured, alice):
    """What waits for it is bounded, and the others see the screen."""
    client = secured.daemon.client()
    create_vm(client)
    act(client, "Start", "vm")
    pid = get(client, "vm").status.pid
    address = endpoint(client)
    with connect(secured, address, alice) as slow, connect(secured, address, alice) as other:
        width, height, _ = rfb.open_screen(slow)
        rfb.open_screen(other)
        ask = b"\3\0\0\0\0\0" + width.to_bytes(2, "big") + height.to_bytes(2, "big")
        before = resident_kib(secured.daemon)
        for _ in range(2000):
            slow.sendall(ask)
        other.sendall(ask)
        assert rfb.take(other, 1) == b"\0"
        # The beginning of its own has come too: what it leaves unread is what tells of its going, below.
        assert rfb.take(slow, 1) == b"\0"
        # Nor does the guest's side: then the viewer waits.
        os.kill(pid, signal.SIGSTOP)
        try:
            slow.settimeout(1)
            with pytest.raises(TimeoutError):
                for _ in range(100):
                    slow.sendall(ask * 100000)
            assert not PLAIN or resident_kib(secured.daemon) - before < 8 * 1024
            # One that goes then is let go as well.
            slow.close()
            wait_until(lambda: len(audited(secured)) == 1, "its end is seen", timeout=30)
        finally:
            os.kill(pid, signal.SIGCONT)
        act(client, "PowerOff", "vm")


def test_spice(secured, alice):
    client = secured.daemon.client()
    try:
        create_vm(client, screens=[tls_screen(), tls_screen(kind=pb.GRAPHICS_TYPE_SPICE)])
        act(client, "Start", "vm")
    except grpc.RpcError as error:
        if "SPICE" in str(error) or "spice" in str(error):
            pytest.skip("this QEMU has no SPICE")
        raise
    assert greeting(secured, endpoint(client), alice) == GREETING
    with connect(secured, endpoint(client, device="spice"), alice) as connection:
        # A link to the main channel: the magic, version 2.2, the size of the rest.
        rest = (0).to_bytes(4, "little") + bytes([1, 0]) + b"".join(n.to_bytes(4, "little") for n in (0, 0, 18))
        connection.sendall(b"REDQ" + b"".join(n.to_bytes(4, "little") for n in (2, 2, len(rest))) + rest)
        assert rfb.take(connection, 4) == b"REDQ"


def test_vpctl(secured, alice):
    def vpctl(*arguments, code=0):
        done = subprocess.run([program("VPCTL", "clients/cli/vpctl"), "--connect", secured.daemon.address, "domain", *arguments], env=secured.daemon.env,
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done
        return done.stdout + done.stderr

    for wrong in ("nonsense", "localhost:1", "::1:5901", "70000", "", "127.0.0.1:"):
        assert "--vnc-tls is PORT" in vpctl("create", "vm", "--vnc-tls", wrong, code=2)
    vpctl("create", "vm", "--vnc-tls", "[::1]:0", "--start")
    found = re.search(r"screen +vnc by TLS at \[::1\]:(\d+)\n", vpctl("show", "vm"))
    assert found and endpoint(secured.daemon.client()) == ("::1", int(found.group(1)))
    assert greeting(secured, ("::1", int(found.group(1))), alice) == GREETING
    with connect(secured, ("::1", int(found.group(1))), alice) as viewer:
        threading.Timer(0.2, vpctl, ("poweroff", "vm")).start()
        with contextlib.suppress(ConnectionError):
            while viewer.recv(65536):
                pass


def test_a_domain_in_memory_has_none(secured):
    """The test driver has no port that could be served: nobody listens."""
    client = secured.daemon.client()
    create(client, "vm", graphics=[VNC], tls_screens=[tls_screen()])
    act(client, "Start", "vm")
    assert not [one for one in get(client, "vm").status.endpoints if one.tls_port]
