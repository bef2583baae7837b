"""A reconcile loop: every domain with the label wanted=running runs. It lists, then watches; after a break it lists anew, so nothing it missed matters.

usage: reconcile.py ADDRESS
"""
import sys

import grpc
from virtplane.v1 import domain_pb2, domain_service_pb2, domain_service_pb2_grpc, event_service_pb2

import stream


def reconcile(domains, uid):
    """Acts on what is there now, not on what an event said: that may be old by the time it is read."""
    try:
        domain = domains.GetDomain(domain_service_pb2.GetDomainRequest(uid=uid), timeout=10).domain
        if domain.labels.get("wanted") == "running" and domain.status.state == domain_pb2.DOMAIN_STATE_SHUTOFF:
            print("starting", domain.name, flush=True)
            domains.StartDomain(domain_service_pb2.StartDomainRequest(uid=uid), timeout=60)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            print(f"{uid}: {error.details()}", file=sys.stderr)  # a real one tries again, later and later


def main(address):
    channel = grpc.insecure_channel(address)
    domains = domain_service_pb2_grpc.DomainServiceStub(channel)

    def request():
        wanted = event_service_pb2.WatchEventsRequest(send_initial_state=True)
        wanted.filter.resource_types.append("domain")
        wanted.filter.labels["wanted"] = "running"
        return wanted

    for message in stream.follow(channel, request):
        payload = message.WhichOneof("payload")
        if payload == "state":
            reconcile(domains, message.state.domain.uid)
        elif payload == "event":
            reconcile(domains, message.event.uid)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
