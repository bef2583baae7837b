"""Attacks on the ways in, and what the rules promise: each must fail as docs/security.md says."""
import datetime
import json
import os
import signal
import socket
import ssl
import subprocess
import time

import grpc
import pytest
from cryptography import x509

from harness.client import Client, pb
from harness.daemon import program, wait_until
from harness.domains import act, create, names
from harness.errors import refused
from harness.security import Authority, Issuer, Secured, connect_as, with_token, write_policy

DAY = datetime.timedelta(days=1)
POLICY = """
bindings:
  - {role: admin, subjects: ["cn:alice", "token:alice"]}
  - {role: viewer, subjects: ["token-group:viewers", "uri:spiffe://example.org/ci/*", "dns:host1.example.org"]}
"""


@pytest.fixture
def secured(make_daemon):
    return Secured(make_daemon, POLICY)


def who(client, metadata=None):
    return client.auth.GetIdentity(pb.GetIdentityRequest(), metadata=metadata).identity.name


def is_shut_out(client):
    """Refused at the handshake, or with the first call."""
    with pytest.raises(grpc.RpcError) as caught:
        client.host.GetHost(pb.GetHostRequest())
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED), caught.value
    return caught.value


# ---- certificates ----

def test_a_certificate_tells_who_calls(secured):
    assert who(secured.alice()) == "cn:alice"
    uri = [x509.UniformResourceIdentifier("spiffe://example.org/ci/7"), x509.DNSName("other")]
    assert who(secured.alice("alice", names=uri)) == "uri:spiffe://example.org/ci/7"
    assert who(secured.alice("alice", names=[x509.DNSName("host1.example.org")])) == "dns:host1.example.org"
    # A name is of its kind: what is called like another's is not that one.
    assert who(secured.alice("uid:0")) == "cn:uid:0"
    with refused("PERMISSION_DENIED"):
        secured.alice("uid:0").domain.ListDomains(pb.ListDomainsRequest())


def test_without_a_certificate(secured, make_daemon):
    client = secured.client()
    assert who(client) == "anonymous"
    with refused("UNAUTHENTICATED", reason="NO_IDENTITY"):
        client.host.GetHost(pb.GetHostRequest())
    strict = Secured(make_daemon, POLICY, tokens=False)
    is_shut_out(strict.client())
    assert who(strict.alice()) == "cn:alice"


@pytest.mark.parametrize("wrong", ["foreign CA", "self-signed", "expired", "not yet", "a server's", "no name", "a name with a line's end"])
def test_wrong_certificates(secured, wrong):
    authority = secured.authority
    pair = {
        "foreign CA": lambda: Authority().issue("alice"),
        "self-signed": lambda: authority.issue("alice", self_signed=True),
        "expired": lambda: authority.issue("alice", start=-2 * DAY, end=-DAY),
        "not yet": lambda: authority.issue("alice", start=DAY, end=2 * DAY),
        "a server's": lambda: authority.issue("alice", server=True),
        "no name": lambda: authority.issue(""),
        "a name with a line's end": lambda: authority.issue("alice\nadmin"),
    }[wrong]()
    is_shut_out(secured.client(pair))


def test_a_withdrawn_certificate_ends_at_once(secured):
    """On the connection that is open, and for the stream that is; the neighbour's go on."""
    pair = secured.authority.issue("alice")
    client, neighbour = secured.client(pair), secured.alice()
    stream = client.event.WatchEvents(pb.WatchEventsRequest())
    other = neighbour.event.WatchEvents(pb.WatchEventsRequest())
    assert who(client) == "cn:alice"
    secured.withdraw(pair[0])
    with refused("UNAUTHENTICATED", reason="CERTIFICATE_REFUSED"):
        for _ in stream:
            pass
    with refused("UNAUTHENTICATED", reason="CERTIFICATE_REFUSED"):
        who(client)
    create(neighbour, "vm")
    assert any(response.event.name == "vm" for response in iter(lambda: next(other), None))


def test_an_old_list_lets_nobody_in(secured):
    client = secured.alice()
    assert who(client) == "cn:alice"
    secured.write("ca.crl", secured.authority.crl(end=-DAY / 2))
    wait_until(lambda: "read again" in secured.daemon.log(), "the list is read")
    is_shut_out(secured.alice())


def test_tls_1_2_is_not_spoken(secured):
    pair = secured.authority.issue("alice")
    secured.write("alice.crt", pair[0])
    secured.write("alice.key", pair[1])

    def shake_hands(version):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = context.maximum_version = version
        context.load_verify_locations(secured.daemon.path("ca.crt"))
        context.load_cert_chain(secured.daemon.path("alice.crt"), secured.daemon.path("alice.key"))
        context.set_alpn_protocols(["h2"])
        with socket.create_connection(("localhost", int(secured.address.split(":")[1])), timeout=60) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as connection:
                return connection.version()

    assert shake_hands(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, OSError)):
        shake_hands(ssl.TLSVersion.TLSv1_2)


def test_certificates_are_changed_under_calls(secured):
    """A new CA and server certificate: who is connected goes on, until its own certificate is not right any more."""
    old = secured.alice()
    stream = old.event.WatchEvents(pb.WatchEventsRequest())
    assert who(old) == "cn:alice"
    # Damaged ones change nothing.
    secured.write("server.crt", "garbage")
    wait_until(lambda: "stays in force" in secured.daemon.log(), "the damaged file is told")
    assert who(secured.alice()) == "cn:alice"
    certificate, key = secured.authority.issue("server2", [x509.DNSName("localhost")], server=True)
    secured.write("server.key", key)
    secured.write("server.crt", certificate)

    def presented():
        return x509.load_pem_x509_certificate(ssl.get_server_certificate(("localhost", int(secured.address.split(":")[1]))).encode())

    def is_new():
        return presented().subject.rfc4514_string() == "CN=server2"

    wait_until(lambda: "read again" in secured.daemon.log(), "the new ones are read")
    assert who(secured.alice()) == "cn:alice" and who(old) == "cn:alice"
    create(old, "vm")
    assert any(response.event.name == "vm" for response in iter(lambda: next(stream), None))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "0.0.0.0:0"])
def test_tcp_without_certificates_is_not_served(make_daemon, address):
    daemon = make_daemon(listen=[address])
    code, said = daemon.try_start()
    assert code == 1 and "[tls]" in said and "vpctl pki" in said
    if not address.startswith("127"):
        daemon.arguments = ["--insecure-tcp"]
        code, said = daemon.try_start()
        assert code == 1 and "loopback" in said


def test_plain_tcp_is_whoever(make_daemon):
    daemon = make_daemon()
    daemon.listen = [daemon.address, "127.0.0.1:0"]
    daemon.arguments = ["--insecure-tcp"]
    daemon.start()
    client = Client("127.0.0.1:" + daemon.ready_line.rsplit(":", 1)[1].split()[0])
    daemon.clients.append(client)
    assert who(client) == "anonymous"
    create(client, "vm")
    with refused("UNAUTHENTICATED", reason="TOKEN_REFUSED"):
        who(client, with_token(client, Issuer().token("alice")))


# ---- tokens ----

@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_tells_who_calls(secured, algorithm):
    client = secured.client()
    token = secured.issuer.token("alice", algorithm)
    assert who(client, with_token(client, token)) == "token:alice"
    assert who(client, with_token(client, token)) == "token:alice"
    viewer = with_token(client, secured.issuer.token("bob", algorithm, groups=["viewers"], aud=["x", "virtplane"]))
    client.domain.ListDomains(pb.ListDomainsRequest(), metadata=viewer)
    with refused("PERMISSION_DENIED", reason="NOT_ALLOWED"):
        client.domain.CreateDomain(pb.CreateDomainRequest(domain=pb.Domain(name="x")), metadata=viewer)


def damaged(token):
    head, body, signature = token.split(".")
    return f"{head}.{body}.{'B' if signature[0] != 'B' else 'C'}{signature[1:]}"


def own_key(issuer):
    """Signed by the attacker, who sends the key along."""
    other = Issuer()
    return other.token("alice", header={"jwk": other.jwk("ES256"), "kid": None})


WRONG_TOKENS = {
    "none": lambda issuer: issuer.token("alice", "none"),
    "None": lambda issuer: issuer.token("alice", "None", header={"alg": "None"}),
    "HS256 with the public key": lambda issuer: issuer.token("alice", "HS256", header={"kid": "RS256"}),
    "ES256 told as RS256": lambda issuer: issuer.token("alice", "ES256", header={"alg": "RS256"}),
    "another issuer": lambda issuer: issuer.token("alice", iss="https://evil.example.org"),
    "no issuer": lambda issuer: issuer.token("alice", iss=None),
    "wrong audience": lambda issuer: issuer.token("alice", aud="other"),
    "no audience": lambda issuer: issuer.token("alice", aud=None),
    "expired": lambda issuer: issuer.token("alice", exp=int(time.time()) - 1),
    "without an end": lambda issuer: issuer.token("alice", exp=None),
    "an end that is no time": lambda issuer: issuer.token("alice", exp="2099-01-01"),
    "not yet": lambda issuer: issuer.token("alice", nbf=int(time.time()) + 3600),
    "no subject": lambda issuer: issuer.token(None),
    "a subject with a line's end": lambda issuer: issuer.token("alice\nx"),
    "another's key": lambda issuer: Issuer().token("alice"),
    "a key of its own": own_key,
    "a damaged signature": lambda issuer: damaged(issuer.token("alice")),
    "no signature": lambda issuer: issuer.token("alice").rsplit(".", 1)[0] + ".",
    "two parts": lambda issuer: issuer.token("alice").rsplit(".", 1)[0],
    "nothing": lambda issuer: "",
    "long": lambda issuer: "x" * 9000,
}


@pytest.fixture(scope="module")
def module_daemon():
    from harness.daemon import Daemon
    made = []

    def make(**options):
        made.append(Daemon(**options))
        return made[-1]

    yield Secured(make, POLICY)
    for daemon in made:
        daemon.dispose()


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
def test_wrong_tokens(module_daemon, wrong):
    client = module_daemon.client()
    with refused("UNAUTHENTICATED", reason="TOKEN_REFUSED") as refusal:
        who(client, with_token(client, WRONG_TOKENS[wrong](module_daemon.issuer)))
    assert "eyJ" not in refusal.error.message, "a token is not told on"


def test_two_tokens_are_none(module_daemon):
    client = module_daemon.client()
    good = with_token(client, module_daemon.issuer.token("alice"))
    with refused("UNAUTHENTICATED", reason="TOKEN_REFUSED"):
        who(client, good + good)


def test_a_token_runs_out_under_its_stream(module_daemon):
    client = module_daemon.client()
    metadata = with_token(client, module_daemon.issuer.token("alice", exp=int(time.time()) + 2))
    stream = client.event.WatchEvents(pb.WatchEventsRequest(), metadata=metadata)
    with refused("UNAUTHENTICATED", reason="TOKEN_REFUSED"):
        for _ in stream:
            pass


def test_a_token_beside_a_certificate_counts(module_daemon):
    client = module_daemon.alice()
    assert who(client, with_token(client, module_daemon.issuer.token("bob"))) == "token:bob"


# ---- local callers ----

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be others")


@pytest.fixture
def shared(make_daemon):
    """A daemon whose socket others may use."""
    daemon = make_daemon()
    policy = daemon.path("policy.yaml")
    daemon.config = f"[daemon]\nsocket_mode=0660\nsocket_group=61000\n[auth]\npolicy={policy}\n"
    write_policy(daemon, """
bindings:
  - {role: operator, subjects: ["uid:61001"], where: {labels: {tenant: blue}}}
  - {role: admin, subjects: ["uid:61002"], where: {labels: {tenant: red}}}
  - {role: viewer, subjects: ["gid:61003"]}
""")
    os.chmod(daemon.folder, 0o755)
    return daemon.start()


@needs_root
def test_the_socket_has_its_mode_and_group(shared):
    status = os.stat(shared.socket)
    assert status.st_mode & 0o777 == 0o660 and status.st_gid == 61000


@needs_root
def test_the_kernel_tells_who_calls(shared):
    assert who(connect_as(shared, 61001)) == "uid:61001"
    stranger = connect_as(shared, 61009)
    assert who(stranger) == "uid:61009"
    with refused("PERMISSION_DENIED", reason="NOT_ALLOWED"):
        stranger.host.GetHost(pb.GetHostRequest())
    # No header makes one another.
    with refused("PERMISSION_DENIED"):
        stranger.host.GetHost(pb.GetHostRequest(), metadata=(("authorization", "Bearer x"), ("x-uid", "0")))


@needs_root
def test_tenants_do_not_see_each_other(shared):
    root = shared.client()
    create(root, "blue1", labels={"tenant": "blue"})
    create(root, "red1", labels={"tenant": "red"})
    create(root, "mine")
    blue, red = connect_as(shared, 61001), connect_as(shared, 61002)
    assert names(blue) == ["blue1"] and names(red) == ["red1"] and names(root) == ["blue1", "mine", "red1"]
    act(blue, "Start", "blue1")
    with refused("NOT_FOUND", reason="DOMAIN_NOT_FOUND") as hidden:
        act(blue, "Start", "red1")
    with refused("NOT_FOUND", reason="DOMAIN_NOT_FOUND") as absent:
        act(blue, "Start", "gone")
    assert hidden.error.message.replace("red1", "gone") == absent.error.message
    # Operators make nothing; who may make does so within what is theirs.
    with refused("PERMISSION_DENIED"):
        create(blue, "blue2", labels={"tenant": "blue"})
    create(red, "red2", labels={"tenant": "red"})
    with refused("PERMISSION_DENIED"):
        create(red, "red3", labels={"tenant": "blue"})
    with refused("PERMISSION_DENIED"):
        create(red, "red3")

    def update(client, name, paths, **labels):
        request = pb.UpdateDomainRequest(domain=pb.Domain(name=name, labels=labels))
        request.update_mask.paths.extend(paths)
        return client.domain.UpdateDomain(request)

    update(red, "red1", ["labels"], tenant="red", tier="front")
    with refused("PERMISSION_DENIED"):
        update(red, "red1", ["labels"], tenant="blue")
    with refused("PERMISSION_DENIED"):
        update(red, "red1", ["labels"])
    with refused("NOT_FOUND"):
        update(red, "blue1", ["labels"], tenant="red")

    def told(client):
        return {event.name for event in client.event.ListEvents(pb.ListEventsRequest(page_size=1000)).events}

    assert {"blue1"} <= told(blue) and not told(blue) & {"red1", "red2", "mine", "uid:61001"}
    assert {"red1", "red2"} <= told(red) and not told(red) & {"blue1", "mine"}
    operations = [item.resource_name for item in blue.operation.ListOperations(pb.ListOperationsRequest()).operations]
    assert operations == ["blue1"]
    assert {item.resource_name for item in red.operation.ListOperations(pb.ListOperationsRequest()).operations} <= {"red1"}
    [operation] = [item for item in root.operation.ListOperations(pb.ListOperationsRequest()).operations if item.resource_name == "blue1"]
    with refused("NOT_FOUND"):
        red.operation.GetOperation(pb.GetOperationRequest(uid=operation.uid))
    assert blue.operation.GetOperation(pb.GetOperationRequest(uid=operation.uid)).operation.uid == operation.uid

    stream = red.event.WatchEvents(pb.WatchEventsRequest(send_initial_state=True), timeout=90)
    seen = []
    for response in stream:
        if response.HasField("state"):
            seen.append(response.state.domain.name)
        elif response.HasField("bookmark"):
            create(root, "mine2")
            act(blue, "PowerOff", "blue1")
            act(red, "Start", "red2")
        elif response.HasField("event"):
            seen.append(response.event.name)
            if response.event.type == pb.EVENT_TYPE_DOMAIN_STARTED:
                break
    assert set(seen) == {"red1", "red2"}


@needs_root
def test_a_list_in_pages_shows_what_may_be_seen(shared):
    root, blue = shared.client(), connect_as(shared, 61001)
    for number in range(30):
        create(root, f"vm{number:02}", labels={"tenant": "blue" if number % 3 == 0 else "red"})
    found, token, pages = [], "", 0
    while True:
        page = blue.domain.ListDomains(pb.ListDomainsRequest(page_size=4, page_token=token))
        found += [domain.name for domain in page.domains]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert found == [f"vm{number:02}" for number in range(0, 30, 3)] and pages == 3


@needs_root
def test_groups_come_from_the_kernel(shared):
    client = shared.client()
    os.setgroups([61000, 61003])
    try:
        os.seteuid(61005)
        grpc.channel_ready_future(client.channel).result(timeout=60)
    finally:
        os.seteuid(0)
        os.setgroups([])
    assert "gid:61003" in client.auth.GetIdentity(pb.GetIdentityRequest()).identity.groups
    client.domain.ListDomains(pb.ListDomainsRequest())


@needs_root
def test_anothers_request_id_is_not_ones_own(shared):
    """A request id that is used again by another: not the first one's answer, and no word of it."""
    root, red = shared.client(), connect_as(shared, 61002)
    create(root, "secret-name", request_id="id-1", labels={"tenant": "blue"})
    made = create(red, "red1", request_id="id-1", labels={"tenant": "red"})
    assert made.name == "red1"
    again = create(red, "red1", request_id="id-1", labels={"tenant": "red"})
    assert again.uid == made.uid
    with pytest.raises(grpc.RpcError) as caught:
        create(red, "secret-name", request_id="id-1", labels={"tenant": "red"})
    assert "blue" not in caught.value.details()


@needs_root
def test_rights_end_while_streams_are_open(shared):
    blue = connect_as(shared, 61001)
    stream = blue.event.WatchEvents(pb.WatchEventsRequest())
    blue.domain.ListDomains(pb.ListDomainsRequest())
    write_policy(shared, "bindings:\n  - {role: viewer, subjects: [\"uid:61002\"]}\n")
    with refused("PERMISSION_DENIED", reason="NOT_ALLOWED"):
        for _ in stream:
            pass
    with refused("PERMISSION_DENIED"):
        blue.domain.ListDomains(pb.ListDomainsRequest())
    connect_as(shared, 61002).domain.ListDomains(pb.ListDomainsRequest())


@needs_root
def test_a_damaged_policy_changes_nothing(shared):
    blue = connect_as(shared, 61001)
    write_policy(shared, "bindings:\n  - role: viewer\n    subject: [x]\n")
    wait_until(lambda: "policy.yaml:3" in shared.log(), "the log tells the line")
    blue.domain.ListDomains(pb.ListDomainsRequest())
    write_policy(shared, "bindings:\n  - {role: viewer, subjects: [\"uid:61009\"]}\n")
    stranger = connect_as(shared, 61009)

    def let_in():
        try:
            return stranger.domain.ListDomains(pb.ListDomainsRequest()) is not None
        except grpc.RpcError:
            return False

    wait_until(let_in, "the mended policy counts")
    shared.process.send_signal(signal.SIGHUP)
    wait_until(lambda: shared.log().count("read again") >= 2, "SIGHUP reads it again")


def test_a_damaged_policy_is_no_start(make_daemon):
    daemon = make_daemon()
    daemon.config = f"[auth]\npolicy={daemon.path('policy.yaml')}\n"
    write_policy(daemon, "bindings:\n- {role: king, subjects: [anonymous]}\n")
    code, said = daemon.try_start()
    assert code == 1 and "policy.yaml:2" in said and "king" in said


# ---- asking ----

def test_can_i(secured, tmp_path):
    def vpctl(*arguments, connect=None):
        # c-ares leaks ten bytes when it looks a name up.
        env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
        done = subprocess.run([program("VPCTL", "clients/cli/vpctl"), "--connect", connect or secured.daemon.address, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=30, env=env)
        return done.returncode, done.stdout

    assert vpctl("auth", "whoami", "-o", "name") == (0, f"uid:{os.getuid()}\n")
    assert vpctl("auth", "can-i", "DeleteDomain")[0] == 0
    code, said = vpctl("auth", "can-i", "DomainService/DeleteDomain", "x", "--as", "uri:spiffe://example.org/ci/1", "--explain")
    assert code == 1 and "policy.yaml:4" in said and "role does not have the method" in said
    assert vpctl("auth", "can-i", "ListDomains", "--as", "cn:x", "--group", "token-group:viewers")[0] == 0
    assert vpctl("auth", "can-i", "Nonesuch")[0] == 1
    # Over TLS, by a token.
    (tmp_path / "token").write_text(secured.issuer.token("bob", groups=["viewers"]) + "\n")
    remote = ("--ca", secured.daemon.path("ca.crt"), "--token-file", str(tmp_path / "token"))
    assert vpctl(*remote, "auth", "whoami", "-o", "name", connect=secured.address) == (0, "token:bob\n")
    assert vpctl(*remote, "auth", "can-i", "DeleteDomain", connect=secured.address)[0] == 1
    code, said = vpctl(*remote, "auth", "can-i", "ListDomains", "--as", "cn:alice", connect=secured.address)
    assert code == 1 and "only an admin" in said


# ---- what is written down ----

def audit(daemon):
    with open(os.path.join(daemon.state_dir, "audit.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_changes_and_refusals_are_written_down(secured):
    alice, nobody = secured.alice(), secured.alice("mallory")
    domain = create(alice, "vm")
    act(alice, "Start", "vm")
    with refused("PERMISSION_DENIED"):
        act(nobody, "PowerOff", "vm")
    with refused("NOT_FOUND"):
        act(alice, "Start", "absent")
    alice.domain.ListDomains(pb.ListDomainsRequest())
    wait_until(lambda: len(audit(secured.daemon)) >= 4, "the audit log is written")
    lines = {(line["identity"], line["method"].rsplit("/")[1], line["outcome"]): line for line in audit(secured.daemon)}
    made = lines[("cn:alice", "CreateDomain", "DONE")]
    assert made["resource"] == "domain/vm" and made["revision"] == domain.revision and made["code"] == "OK" and made["duration_us"] > 0
    assert lines[("cn:alice", "StartDomain", "DONE")]["resource"] == "domain/vm"
    assert lines[("cn:mallory", "PowerOffDomain", "REFUSED")]["code"] == "PERMISSION_DENIED"
    assert lines[("cn:alice", "StartDomain", "FAILED")]["reason"] == "DOMAIN_NOT_FOUND"
    assert not any(method == "ListDomains" for _, method, _ in lines), "what only looks is not written down"

    def told():
        page = alice.event.ListEvents(pb.ListEventsRequest(filter=pb.EventFilter(types=[pb.EVENT_TYPE_CLIENT_REFUSED])))
        return [event.name for event in page.events]

    wait_until(lambda: "cn:mallory" in told(), "the refusal is in the journal")


def test_the_audit_log_is_rotated(secured, make_daemon):
    daemon = make_daemon(config="[audit]\nmax_bytes=2000\nkeep=2\n").start()
    client = daemon.client()
    for number in range(30):
        create(client, f"vm{number}")
    path = os.path.join(daemon.state_dir, "audit.jsonl")
    wait_until(lambda: os.path.exists(path + ".2"), "it was rotated twice")
    daemon.stop()
    assert all(os.path.getsize(name) <= 2000 for name in (path, path + ".1", path + ".2")) and not os.path.exists(path + ".3")
    assert [line["resource"] for line in audit(daemon)][-1] == "domain/vm29"
    assert os.stat(path).st_mode & 0o777 == 0o600


@needs_root
def test_the_audit_log_goes_to_the_journal(make_daemon):
    """As entries of systemd's journal; its socket is one of ours, in a namespace of the daemon's own."""
    daemon = make_daemon(config="[audit]\nto=journal\n")
    journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.bind(daemon.path("journal"))
    journal.settimeout(20)
    path = "/run/systemd/journal"
    mounts = f"mount -t tmpfs none /run && mkdir -p {path} && touch {path}/socket && mount --bind {daemon.path('journal')} {path}/socket"
    daemon.prefix = ["unshare", "-m", "sh", "-c", mounts + ' && exec "$@"', "sh"]
    daemon.start()
    create(daemon.client(), "vm")
    entry = journal.recv(65536).decode()
    assert '"resource":"domain/vm"' in entry and "SYSLOG_IDENTIFIER=virtplaned-audit\n" in entry
    assert "VIRTPLANE_METHOD=virtplane.v1.DomainService/CreateDomain\n" in entry and "VIRTPLANE_IDENTITY=uid:0\n" in entry
    assert not os.path.exists(os.path.join(daemon.state_dir, "audit.jsonl"))
    journal.close()
    wrong = make_daemon(config="[audit]\nto=paper\n")
    code, said = wrong.try_start()
    assert code == 1 and "file, journal or both" in said


def test_names_do_not_break_the_log(secured):
    """What others chose stays within its line, and a name that has to be shortened is none that is lost."""
    for name in ("x" * 64, "é" * 32, '{"identity":"root"}'):
        with refused("PERMISSION_DENIED"):
            secured.alice(name).domain.ListDomains(pb.ListDomainsRequest())
    wait_until(lambda: len(audit(secured.daemon)) >= 3, "three lines")
    assert {line["identity"] for line in audit(secured.daemon)} == {"cn:" + "x" * 64, "cn:" + "é" * 32, 'cn:{"identity":"root"}'}


# ---- systemd ----

def test_socket_activation(make_daemon):
    """Started by whoever holds the socket, the daemon answers on that."""
    daemon = make_daemon()
    daemon.listen = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(daemon.socket)
    listening.listen()
    daemon.prefix = ["/bin/sh", "-c", 'exec env LISTEN_PID=$$ LISTEN_FDS=1 "$@" 3<&0', "sh"]
    command = daemon.command()
    with open(daemon.log_path, "ab") as log:
        daemon.process = subprocess.Popen(command, stdin=listening, stdout=log, stderr=log, env=daemon.env)
    listening.close()
    assert who(daemon.client()) == f"uid:{os.getuid()}"
    wait_until(lambda: f"ready unix:{daemon.socket}" in daemon.log(), "it says so")
    daemon.stop()
    assert os.path.exists(daemon.socket), "the socket's file is its maker's"


def test_a_users_own_daemon_needs_no_configuration(make_daemon):
    """And vpctl finds it, with no flag at all."""
    daemon = make_daemon()
    env = dict(daemon.env, XDG_RUNTIME_DIR=daemon.path("run"), XDG_STATE_HOME=daemon.path("home"), HOME=daemon.path("home"))
    env.pop("VIRTPLANE_ENDPOINT", None)
    user = []
    if os.geteuid() == 0:
        os.chmod(daemon.folder, 0o755)
        user = ["setpriv", "--reuid=61001", "--regid=61001", "--clear-groups"]
        for name, path in (("virtplaned", "server/virtplaned"), ("vpctl", "clients/cli/vpctl")):
            subprocess.run(["install", "-m", "755", program(name.upper(), path), daemon.path(name)], check=True)
    for folder in ("run", "home"):
        os.mkdir(daemon.path(folder), 0o700)
        if user:
            os.chown(daemon.path(folder), 61001, 61001)
    programs = [program("VIRTPLANED", "server/virtplaned"), program("VPCTL", "clients/cli/vpctl")]
    if user:
        programs = [daemon.path("virtplaned"), daemon.path("vpctl")]
    with open(daemon.log_path, "ab") as log:
        daemon.process = subprocess.Popen([*user, programs[0]], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    wait_until(lambda: "ready" in daemon.log(), "it is ready")
    done = subprocess.run([*user, programs[1], "auth", "whoami", "-o", "name"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=30)
    assert done.returncode == 0 and done.stdout == f"uid:{61001 if user else os.getuid()}\n", done.stdout
    assert os.path.exists(daemon.path("run/virtplane/virtplaned.sock"))
    daemon.close_clients()
    daemon.terminate()
    daemon.wait_end()
