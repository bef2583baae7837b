"""Every method of the contract, called by every kind of identity over every way in, against what the contract says of it. Made from the descriptors: a new
method is in here without anybody's doing."""
import importlib
import os

import grpc
import pytest

from harness.client import pb, service_descriptors
from harness.daemon import Daemon
from harness.domains import create
from harness.security import Secured, as_user, with_token
from test_protocol import kinds_of

rules = importlib.import_module("virtplane.v1.rules_pb2")

# Identities, with the greatest role that each has over what is there; what is there is blue.
RANKS = {"stranger": rules.ROLE_ANYONE, "viewer": rules.ROLE_VIEWER, "operator": rules.ROLE_OPERATOR, "admin": rules.ROLE_ADMIN, "tenant": None}
UIDS = {"stranger": 61010, "viewer": 61011, "operator": 61012, "admin": 61013, "tenant": 61014}
POLICY = "bindings:\n" + "".join(
    f"""  - role: {role}
    subjects: ["uid:{UIDS[name]}", "cn:{name}", "token:{name}"]
{'    where: {labels: {tenant: red}}' if name == "tenant" else ''}
""" for name, role in (("viewer", "viewer"), ("operator", "operator"), ("admin", "admin"), ("tenant", "admin")))
TRANSPORTS = ["unix", "tls", "token"]
METHODS = [method for service in service_descriptors() for method in service.methods]
# Said of a call that was let pass the gate; whatever else is wrong with it, that is not.
REFUSALS = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


@pytest.fixture(scope="module")
def place():
    """A daemon with a blue domain, and a client for each identity and way in: place[(name, transport)] is (channel, metadata)."""
    made = []

    def make(**options):
        made.append(Daemon(**options))
        return made[-1]

    secured = Secured(make, POLICY, config="[daemon]\nsocket_mode=0666\n")
    os.chmod(secured.daemon.folder, 0o755)
    create(secured.daemon.client(), "blue", labels={"tenant": "blue"})
    clients = {}
    for name in RANKS:
        if os.geteuid() == 0:
            client = secured.daemon.client()
            with as_user(UIDS[name], 61000):
                grpc.channel_ready_future(client.channel).result(timeout=60)
            clients[name, "unix"] = (client.channel, ())
        anonymous = name == "stranger"
        clients[name, "tls"] = ((secured.client() if anonymous else secured.alice(name)).channel, ())
        client = secured.client()
        clients[name, "token"] = (client.channel, () if anonymous else with_token(client, secured.issuer.token(name)))
    yield clients
    for daemon in made:
        daemon.dispose()


def request(method, name):
    """A request of a method that names `name` wherever one names its resource."""
    made = importlib.import_module(f"{method.input_type.file.name[:-6].replace('/', '.')}_pb2")
    message = getattr(made, method.input_type.name)()

    def fill(part):
        fields = part.DESCRIPTOR.fields_by_name
        for field in ("name", "pool_name"):
            if field in fields:
                setattr(part, field, name)
        if "path" in fields and "name" not in fields and fields["path"].type == fields["path"].TYPE_STRING:
            part.path = "/nonexistent/" + name
        for field in ("domain", "pool", "volume", "secret", "open", "start", "header"):
            if field in fields and fields[field].message_type:
                fill(getattr(part, field))
                if "labels" in fields[field].message_type.fields_by_name:
                    getattr(part, field).labels["tenant"] = "blue"

    fill(message)
    return message


def call(channel, metadata, method, message):
    """(code, answers): OK for one that goes on."""
    client_streams, server_streams = kinds_of(method)
    kind = ("stream" if client_streams else "unary") + "_" + ("stream" if server_streams else "unary")
    path = f"/{method.containing_service.full_name}/{method.name}"
    packed = message.SerializeToString()
    invoke = getattr(channel, kind)(path)
    answers = []
    try:
        answer = invoke(iter([packed]) if client_streams else packed, metadata=metadata, timeout=0.3 if server_streams else 60)
        for item in answer if server_streams else [answer]:
            answers.append(item)
    except grpc.RpcError as error:
        code = error.code()
        return (grpc.StatusCode.OK if server_streams and code == grpc.StatusCode.DEADLINE_EXCEEDED else code), answers
    return grpc.StatusCode.OK, answers


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method(place, method):
    rule = method.GetOptions().Extensions[rules.access]
    assert rule.role and rule.scope and rule.resource
    for (name, transport), (channel, metadata) in place.items():
        what = f"{name} over {transport}"
        rank = RANKS[name]
        if rank is not None:
            # What is not there: who may do it is told so, and nothing is done.
            code, _ = call(channel, metadata, method, request(method, "absent"))
            allowed = rank >= rule.role
            if allowed:
                assert code not in REFUSALS, what
            else:
                assert code == (grpc.StatusCode.PERMISSION_DENIED if transport == "unix" or name != "stranger" else grpc.StatusCode.UNAUTHENTICATED), what
            continue
        # Another tenant's admin: what is blue is not there for it, and it makes nothing blue.
        code, answers = call(channel, metadata, method, request(method, "blue"))
        assert not any(b"blue" in answer for answer in answers), what
        if rule.role <= rules.ROLE_MEMBER or rule.scope == rules.METHOD_SCOPE_LIST:
            assert code not in REFUSALS, what
        elif rule.scope in (rules.METHOD_SCOPE_HOST, rules.METHOD_SCOPE_NEW):
            assert code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED), what
        else:
            assert code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED), what


def test_what_is_blue_is_still_there(place):
    """Nobody without the right has changed it, and those who have it see it."""
    channel, metadata = place["viewer", "tls"]
    method = next(method for method in METHODS if method.name == "GetDomain")
    code, answers = call(channel, metadata, method, pb.GetDomainRequest(name="blue"))
    assert code == grpc.StatusCode.OK and b"blue" in answers[0]
