"""Requests that must not be taken: broken bytes, wrong values, unknown things. Each ends in a clear error, and the daemon goes on."""
import struct

import pytest

from harness.client import pb
from harness.domains import act, create, get, names, spec, state
from harness.errors import refused

GET = "virtplane.v1.DomainService/GetDomain"
CREATE = "virtplane.v1.DomainService/CreateDomain"


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def nested(bytes_wanted):
    """A length-delimited field 1 in field 1 in field 1 ... as deep as fits."""
    out = b""
    while len(out) < bytes_wanted:
        out = field(1, out)
    return out


@pytest.mark.parametrize("data", [
    pytest.param(nested(40_000), id="40 KB of nested messages"),
    pytest.param(field(4, nested(40_000)), id="nesting in the spec"),
    pytest.param(b"\xff" * 11, id="varint without end"),
    pytest.param(b"\x0a\xff\xff\xff\xff\x7f", id="length of 32 GiB"),
    pytest.param(b"\x0a\x05ab", id="cut in a string"),
    pytest.param(b"\x0b" * 1000, id="groups"),
    pytest.param(b"\x00", id="field number 0"),
    pytest.param(b"\x0f", id="wire type 7"),
    pytest.param(struct.pack("B", 8 << 3 | 1), id="cut in a fixed64"),
])
def test_malformed_bytes(client, data):
    with refused("INVALID_ARGUMENT"):
        client.raw(CREATE, field(1, data))
    with refused("INVALID_ARGUMENT"):
        client.raw(CREATE, data + b"\x0a\x05ab")
    assert names(client) == []


@pytest.mark.parametrize("value, why", [(b"a\xffb", "UTF-8"), (b"\xed\xa0\x80", "UTF-8"), (b"a\0b", "NUL"), (b"\xc0\x80", "UTF-8")])
def test_strings_that_are_none(client, value, why):
    with refused("INVALID_ARGUMENT") as refusal:
        client.raw(GET, field(1, value))
    assert why.lower() in str(refusal.error).lower()


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-dash", "a b", "a\nb", "x" * 64, "\u00e9t\u00e9", "%s%n"])
def test_bad_names(client, name):
    with refused("INVALID_ARGUMENT") as refusal:
        create(client, name)
    assert "domain.name" in refusal.error.violations, refusal.error
    assert names(client) == []


@pytest.mark.parametrize("path", ["relative/path", "", "/a\nb"])
def test_bad_paths(client, path):
    with refused("INVALID_ARGUMENT"):
        client.image.ProbeImage(pb.ProbeImageRequest(path=path))


def test_all_that_is_wrong_in_a_spec_is_named(client):
    bad = spec(driver="qemu", disks=[pb.Disk(target="vda", path="/a"), pb.Disk(target="vda", path="/b")])
    with refused("INVALID_ARGUMENT") as refusal:
        client.domain.CreateDomain(pb.CreateDomainRequest(domain=pb.Domain(name="vm", spec=bad)))
    assert any(path.startswith("domain.spec.disks[1]") for path in refusal.error.violations), refusal.error
    too_many = spec()
    too_many.vcpus = 5000
    with refused("INVALID_ARGUMENT") as refusal:
        client.domain.CreateDomain(pb.CreateDomainRequest(domain=pb.Domain(name="vm", spec=too_many)))
    assert "domain.spec.vcpus" in refusal.error.violations


def test_no_such_driver(client):
    with refused("INVALID_ARGUMENT") as refusal:
        create(client, "vm", driver="nonesuch")
    assert "domain.spec.driver" in refusal.error.violations


def test_oversized_requests(client):
    with refused("RESOURCE_EXHAUSTED"):
        client.raw(GET, field(1, b"x" * (5 << 20)))
    with refused("INVALID_ARGUMENT") as refusal:
        create(client, "vm", labels={"note": "x" * 100_000})
    assert refusal.error.violations
    assert names(client) == []


def test_unknown_domain(client):
    for call in (lambda: get(client, "nobody"), lambda: act(client, "Start", "nobody"), lambda: act(client, "PowerOff", "nobody"),
                 lambda: client.domain.DeleteDomain(pb.DeleteDomainRequest(name="nobody"))):
        with refused("NOT_FOUND", "DOMAIN_NOT_FOUND") as refusal:
            call()
        assert "nobody" in refusal.error.message
    with refused("INVALID_ARGUMENT"):
        client.domain.GetDomain(pb.GetDomainRequest())


def test_name_and_uid_must_agree(client):
    first, second = create(client, "first"), create(client, "second")
    assert client.domain.GetDomain(pb.GetDomainRequest(uid=first.uid)).domain.name == "first"
    assert client.domain.GetDomain(pb.GetDomainRequest(name="first", uid=first.uid)).domain.name == "first"
    with refused("NOT_FOUND") as refusal:
        client.domain.GetDomain(pb.GetDomainRequest(name="first", uid=second.uid))
    assert "first" in refusal.error.message and second.uid in refusal.error.message


def test_taken_names(client):
    first = create(client, "vm")
    with refused("ALREADY_EXISTS") as refusal:
        create(client, "vm")
    assert "vm" in refusal.error.message
    with refused("ALREADY_EXISTS"):
        client.domain.CreateDomain(pb.CreateDomainRequest(domain=pb.Domain(name="other", uid=first.uid, spec=spec())))
    assert names(client) == ["vm"]
    assert get(client, "vm") == first


def test_illegal_state_changes(client):
    create(client, "vm")
    for verb in ("Pause", "Resume", "Shutdown", "Reboot", "Reset"):
        with refused("FAILED_PRECONDITION") as refusal:
            act(client, verb, "vm")
        assert "vm" in refusal.error.message and refusal.error.reason, refusal.error
    act(client, "Start", "vm")
    with refused("FAILED_PRECONDITION"):
        act(client, "Start", "vm")
    with refused("FAILED_PRECONDITION"):
        client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))
    assert state(client, "vm") == "RUNNING"
    act(client, "PowerOff", "vm")
    act(client, "PowerOff", "vm")  # OK: it does not run, which is what was asked for
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))
    with refused("NOT_FOUND"):
        get(client, "vm")


def test_paging(client):
    wanted = [f"vm-{i:02}" for i in range(25)]
    for name in reversed(wanted):
        create(client, name)
    assert names(client, page_size=7) == wanted
    first = client.domain.ListDomains(pb.ListDomainsRequest(page_size=7))
    assert len(first.domains) == 7 and first.next_page_token and first.revision > 0
    token = first.next_page_token
    for bad in ("x", token[:-1], token[:-1] + ("A" if token[-1] != "A" else "B")):
        with refused("INVALID_ARGUMENT"):
            client.domain.ListDomains(pb.ListDomainsRequest(page_size=7, page_token=bad))
    with refused("INVALID_ARGUMENT"):
        client.domain.ListDomains(pb.ListDomainsRequest(page_size=7, page_token=token, filter=pb.DomainFilter(names=["vm-1*"])))
    with refused("INVALID_ARGUMENT"):
        client.domain.ListDomains(pb.ListDomainsRequest(page_size=5000))


def test_filters(client):
    create(client, "web-1", labels={"tier": "web"})
    create(client, "web-2", labels={"tier": "web"})
    create(client, "db-1", labels={"tier": "db"})
    act(client, "Start", "web-2")

    def found(**fields):
        return names(client, filter=pb.DomainFilter(**fields))

    assert found(names=["web-*"]) == ["web-1", "web-2"]
    assert found(names=["?b-1", "web-1"]) == ["db-1", "web-1"]
    assert found(labels={"tier": "db"}) == ["db-1"]
    assert found(states=[pb.DOMAIN_STATE_RUNNING]) == ["web-2"]
    assert found(states=[pb.DOMAIN_STATE_SHUTOFF], labels={"tier": "web"}) == ["web-1"]
    assert found(drivers=["qemu"]) == []


def test_request_ids(client):
    first = create(client, "vm", request_id="one")
    assert create(client, "vm", request_id="one") == first, "a retry must answer the first result"
    with refused("INVALID_ARGUMENT") as refusal:
        create(client, "other", request_id="one")
    assert refusal.error.reason
    assert names(client) == ["vm"]
    answer = client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm", request_id="two"))
    assert client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm", request_id="two")) == answer


def test_updates(client):
    domain = create(client, "vm", labels={"a": "1"})
    new = pb.Domain(name="vm", revision=domain.revision, labels={"b": "2"}, spec=pb.DomainSpec(vcpus=4))
    request = pb.UpdateDomainRequest(domain=new)
    request.update_mask.paths.extend(["labels", "spec.vcpus"])
    after = client.domain.UpdateDomain(request).domain
    assert after.revision > domain.revision and after.spec.vcpus == 4 and dict(after.labels) == {"b": "2"}
    assert after.spec.memory_bytes == domain.spec.memory_bytes
    with refused("ABORTED") as refusal:
        client.domain.UpdateDomain(request)
    assert refusal.error.metadata["revision"] == str(after.revision)
    request.domain.revision = 0
    request.update_mask.paths[:] = ["spec.nonesuch"]
    with refused("INVALID_ARGUMENT"):
        client.domain.UpdateDomain(request)
    assert get(client, "vm") == after


def test_validate_only_changes_nothing(client):
    request = pb.CreateDomainRequest(domain=pb.Domain(name="vm", spec=spec()), validate_only=True)
    assert client.domain.CreateDomain(request).domain.name == "vm"
    assert names(client) == []


def test_what_later_versions_may_send_does_no_harm(client):
    """Unknown fields are let pass; an unknown enum value is refused where it would have to be obeyed."""
    assert client.raw("virtplane.v1.HostService/GetHost", field(1000, b"later versions may send this"))
    for fields in (dict(accelerator=99), dict(disks=[pb.Disk(target="vda", path="/a", format=99)]),
                   dict(interfaces=[pb.Interface(model=99)])):
        with refused("INVALID_ARGUMENT") as refusal:
            client.domain.CreateDomain(pb.CreateDomainRequest(domain=pb.Domain(name="vm", spec=pb.DomainSpec(driver="qemu", **fields))))
        assert refusal.error.violations, refusal.error
    assert names(client, filter=pb.DomainFilter(states=[99])) == []
