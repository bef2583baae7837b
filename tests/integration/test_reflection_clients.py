"""Clients with no .proto file, which learn the contract from the daemon's reflection, do the main story: grpcurl and buf curl."""
import json
import os
import subprocess

import pytest

from harness import images
from harness.client import TOP
from harness.domains import create

GRPCURL = os.path.join(TOP, ".cache", "go", "grpcurl")


def run(command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)


@pytest.fixture
def on_tcp(make_daemon):
    """A daemon that answers on the loopback as well; .port says where."""
    daemon = make_daemon()
    daemon.listen = [daemon.address, "127.0.0.1:0"]
    daemon.arguments = ["--insecure-tcp"]
    daemon.start()
    daemon.port = int(daemon.ready_line.rsplit("127.0.0.1:", 1)[1].split()[0].rstrip(","))
    return daemon


def test_buf_curl(on_tcp):
    create(on_tcp.client(), "vm")

    def curl(method, data):
        return run([f"{TOP}/.cache/buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", data,
                    f"http://127.0.0.1:{on_tcp.port}/{method}"])

    done = curl("virtplane.v1.DomainService/GetDomain", '{"name": "vm"}')
    assert done.returncode == 0 and json.loads(done.stdout)["domain"]["status"]["state"] == "DOMAIN_STATE_SHUTOFF", done.stdout
    done = curl("virtplane.v1.DomainService/GetDomain", '{"name": "nobody"}')
    assert done.returncode != 0 and "nobody" in done.stdout


@pytest.mark.skipif(not os.path.exists(GRPCURL), reason="no Go here, so no grpcurl")
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_grpcurl(on_tcp, transport):
    target = ["-unix", on_tcp.socket] if transport == "unix" else [f"127.0.0.1:{on_tcp.port}"]

    def call(method, data=None, *options, ok=True):
        done = run([GRPCURL, "-plaintext", *options, "-d", json.dumps(data or {}), *target, f"virtplane.v1.{method}"])
        assert (done.returncode == 0) == ok, done.stdout
        return done.stdout

    assert "virtplane.v1.DomainService" in run([GRPCURL, "-plaintext", *target, "list"]).stdout.split()
    described = run([GRPCURL, "-plaintext", *target, "describe", "virtplane.v1.DomainService.StartDomain"]).stdout
    assert "StartDomainRequest" in described and "Proves the chain" in described, "the comments come along"

    images.raw(on_tcp.path("deepest.raw"))
    base = images.qcow2(on_tcp.path("base.qcow2"))
    unsafe_base = images.qcow2(on_tcp.path("unsafe-base.qcow2"), backing="deepest.raw", backing_format="raw")
    overlay = images.qcow2(on_tcp.path("overlay.qcow2"), backing=base, declare=False)
    unsafe = images.qcow2(on_tcp.path("unsafe.qcow2"), backing=unsafe_base, declare=False)

    said = call("ImageService/InspectChain", {"path": overlay, "format": "IMAGE_FORMAT_QCOW2"})
    assert "FINDING_CODE_PROBE_USED" in said and '"safe": true' in said
    for name, path in (("web", overlay), ("bad", unsafe)):
        disk = {"target": "vda", "path": path, "format": "IMAGE_FORMAT_QCOW2"}
        spec = {"driver": "qemu", "memory_bytes": 64 << 20, "disks": [disk]}
        call("DomainService/CreateDomain", {"domain": {"name": name, "spec": spec}})
    assert "DOMAIN_STATE_RUNNING" in call("DomainService/StartDomain", {"name": "web"})
    call("DomainService/PowerOffDomain", {"name": "web"})
    said = call("DomainService/StartDomain", {"name": "bad"}, ok=False)
    assert "FailedPrecondition" in said and unsafe_base in said and "PROBE_REFUSED_BACKING_FILE" in said
    # The stream stays open; the client's time limit ends it.
    said = call("EventService/WatchEvents", {"start_revision": 1}, "-max-time", "2", ok=False)
    for kind in ("CREATED", "STARTED", "POWERED_OFF"):
        assert f"EVENT_TYPE_DOMAIN_{kind}" in said
