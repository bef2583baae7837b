"""The Python client, generated from proto/ into .cache/ and made anew when a file there changes.

Importing this makes `pb` (all messages of virtplane.v1), `health`, `reflection` and `Client` available.
"""
import contextlib
import glob
import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import types

import grpc

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def generate():
    """The folder of the generated modules."""
    proto = os.path.join(TOP, "proto")
    sources = sorted(glob.glob(os.path.join(proto, "**", "*.proto"), recursive=True))
    made = hashlib.sha256()
    for source in sources:
        with open(source, "rb") as file:
            made.update(source.encode() + b"\0" + file.read() + b"\0")
    folder = os.path.join(TOP, ".cache", "python", made.hexdigest()[:16])
    if os.path.isdir(folder):
        return folder
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    scratch = tempfile.mkdtemp(dir=os.path.dirname(folder))
    plugin = shutil.which("grpc_python_plugin")
    assert plugin, "grpc_python_plugin is missing: tools/setup --test installs it"
    subprocess.run(["protoc", f"-I{proto}", "-I/usr/include", f"--plugin=protoc-gen-grpc_python={plugin}", f"--python_out={scratch}",
                    f"--grpc_python_out={scratch}", *sources], check=True)
    with contextlib.suppress(OSError):  # another test process was quicker
        os.rename(scratch, folder)
    shutil.rmtree(scratch, ignore_errors=True)
    return folder


FOLDER = generate()
sys.path.insert(0, FOLDER)
# grpc/health/... lies beside grpcio's own package of that name.
grpc.__path__.append(os.path.join(FOLDER, "grpc"))


def _messages():
    namespace = types.SimpleNamespace()
    for path in glob.glob(os.path.join(FOLDER, "virtplane", "v1", "*_pb2.py")):
        module = importlib.import_module("virtplane.v1." + os.path.basename(path)[:-3])
        for key, value in vars(module).items():
            if not key.startswith("_"):
                setattr(namespace, key, value)
    return namespace


pb = _messages()
google_rpc = importlib.import_module("wire.google_rpc_pb2")
health = importlib.import_module("grpc.health.v1.health_pb2")
health_grpc = importlib.import_module("grpc.health.v1.health_pb2_grpc")
reflection = importlib.import_module("grpc.reflection.v1.reflection_pb2")
reflection_alpha = importlib.import_module("grpc.reflection.v1alpha.reflection_pb2")

SERVICES = ("Admin", "Auth", "Domain", "Event", "Guest", "Host", "Image", "Operation", "Secret", "Storage")
TIMEOUT = 90


def service_descriptors():
    """The service descriptors of the contract."""
    for service in SERVICES:
        module = importlib.import_module(f"virtplane.v1.{service.lower()}_service_pb2")
        yield module.DESCRIPTOR.services_by_name[service + "Service"]


class _WithDeadline(grpc.UnaryUnaryClientInterceptor):
    """Gives every unary call a deadline, so that a test never hangs."""

    def intercept_unary_unary(self, continuation, client_call_details, request):
        if client_call_details.timeout is None:
            client_call_details = client_call_details._replace(timeout=TIMEOUT)
        return continuation(client_call_details, request)


class Client:
    """A connection with a stub for each service: client.domain.GetDomain(pb.GetDomainRequest(name="a"))."""

    def __init__(self, address, options=(), credentials=None):
        # A channel of its own for each client: gRPC shares connections of alike channels otherwise.
        options = [("grpc.use_local_subchannel_pool", 1), *options]
        self.channel = grpc.secure_channel(address, credentials, options) if credentials else grpc.insecure_channel(address, options)
        channel = grpc.intercept_channel(self.channel, _WithDeadline())
        for service in SERVICES:
            module = importlib.import_module(f"virtplane.v1.{service.lower()}_service_pb2_grpc")
            setattr(self, service.lower(), getattr(module, service + "ServiceStub")(channel))
        self.health = health_grpc.HealthStub(channel)

    def raw(self, method, data, timeout=TIMEOUT):
        """Sends bytes as they are; answers bytes."""
        return self.channel.unary_unary("/" + method)(data, timeout=timeout)

    def close(self):
        self.channel.close()
