"""Short ways to make domains and to move them about."""
import grpc

from .client import pb

VERBS = ("Start", "Shutdown", "PowerOff", "Reboot", "Reset", "Pause", "Resume")


def spec(driver="test", memory_mib=64, disks=(), vcpus=1, **fields):
    """A small spec. A disk is a path (qcow2), or a pb.Disk."""
    made = [disk if isinstance(disk, pb.Disk) else pb.Disk(target="vd" + "abcdefgh"[i], path=str(disk), format=pb.IMAGE_FORMAT_QCOW2)
            for i, disk in enumerate(disks)]
    return pb.DomainSpec(driver=driver, vcpus=vcpus, memory_bytes=memory_mib << 20, disks=made, **fields)


def create(client, name, labels=None, request_id="", **fields):
    """Creates a domain and answers it."""
    domain = pb.Domain(name=name, labels=labels or {}, spec=spec(**fields))
    return client.domain.CreateDomain(pb.CreateDomainRequest(domain=domain, request_id=request_id)).domain


def get(client, name):
    return client.domain.GetDomain(pb.GetDomainRequest(name=name)).domain


def state(client, name):
    """The state's name without its prefix: "RUNNING"."""
    return pb.DomainState.Name(get(client, name).status.state)[len("DOMAIN_STATE_"):]


def answers(daemon, name="vm"):
    """Whether a daemon that may be dying tells of this domain now."""
    try:
        return state(daemon.client(), name)
    except grpc.RpcError:
        return None


def act(client, verb, name, timeout_seconds=None, **fields):
    """Calls a verb: act(client, "Start", "vm")."""
    request = getattr(pb, f"{verb}DomainRequest")(name=name, **fields)
    if timeout_seconds is not None:
        request.timeout.FromMilliseconds(int(timeout_seconds * 1000))
    return getattr(client.domain, f"{verb}Domain")(request)


def names(client, **request):
    """The names of all domains, page by page."""
    found, token = [], ""
    while True:
        answer = client.domain.ListDomains(pb.ListDomainsRequest(page_token=token, **request))
        found += [domain.name for domain in answer.domains]
        token = answer.next_page_token
        if not token:
            return found
