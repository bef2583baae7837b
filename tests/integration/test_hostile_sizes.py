"""Messages that are too large by far: refused before they take the daemon's memory, whatever the size that they claim or unfold to."""
import os

import grpc
import pytest

from harness.client import pb
from harness.domains import names

GET = "/virtplane.v1.DomainService/GetDomain"
MIB = 1024 * 1024


def peak_mib(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))


def unknown_field(size):
    """Field 1000, `size` zeros: no bound of a field applies."""
    out = b"\xc2\x3e"
    length = size
    while length >= 0x80:
        out += bytes([length & 0x7F | 0x80])
        length >>= 7
    return out + bytes([length]) + bytes(size)


plain = pytest.mark.skipif(os.environ.get("VIRTPLANE_CONFIG", "plain") != "plain", reason="the sanitizer's own memory would be in the figure")


@plain
def test_a_huge_message_is_not_gathered_first(daemon, client):
    with pytest.raises(grpc.RpcError) as refusal:
        client.channel.unary_unary(GET)(unknown_field(600 * MIB), timeout=60)
    assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert peak_mib(daemon) < 400
    assert names(client) == []


@plain
def test_a_compressed_message_is_not_unfolded(daemon, client):
    with pytest.raises(grpc.RpcError) as refusal:
        client.channel.unary_unary(GET)(unknown_field(600 * MIB), timeout=60, compression=grpc.Compression.Gzip)
    assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "ompress" in refusal.value.details()
    assert peak_mib(daemon) < 100
    client.domain.ListDomains(pb.ListDomainsRequest())
