"""What any gRPC user takes for granted: health, reflection, unknown methods, deadlines, many calls at once, a drain at SIGTERM."""
import concurrent.futures
import importlib
import os
import threading
import time

import grpc
import pytest

from harness.client import health, pb, reflection, reflection_alpha, service_descriptors
from harness.daemon import wait_until
from harness.domains import act, create, get
from harness.errors import Refusal, refused
from harness.events import Events

BUILT = {
    "AdminService": {"GetDaemon", "BackupStore", "CheckStore", "ListConnections", "CloseConnection", "SetLogLevel"},
    "AuthService": {"GetIdentity", "CheckAccess"},
    "DomainService": {"CreateDomain", "GetDomain", "ListDomains", "UpdateDomain", "DeleteDomain", "StartDomain", "ShutdownDomain",
                      "PowerOffDomain", "RebootDomain", "ResetDomain", "PauseDomain", "ResumeDomain", "AttachDevice", "DetachDevice",
                      "GetDomainStats", "WatchDomainStats", "OpenConsole", "OpenScreen", "TakeScreenshot", "RunGuestCommand",
                      "SaveDomain", "RestoreDomain", "DiscardSavedState"},
    "EventService": {"WatchEvents", "ListEvents"},
    "GuestService": {"PingGuest", "GetGuestInfo", "ListGuestInterfaces", "ListGuestUsers", "GetGuestTime", "SetGuestTime", "SetGuestPassword",
                     "FreezeGuestFilesystems", "ThawGuestFilesystems", "TrimGuestFilesystems", "ExecGuest", "ReadGuestFile", "WriteGuestFile"},
    "HostService": {"GetHost", "GetCapabilities"},
    "ImageService": {"ProbeImage", "InspectChain", "InspectPath", "RecordBackingFormat"},
    "SecretService": {"CreateSecret", "GetSecret", "ListSecrets", "SetSecretValue", "DeleteSecret"},
    "OperationService": {"GetOperation", "ListOperations", "CancelOperation", "WatchOperation"},
}


def later_methods():
    """The methods of the contract that a later version builds."""
    return [method for service in service_descriptors() for method in service.methods
            if method.name not in BUILT.get(service.name, ())]


def kinds_of(method):
    """(client streams, server streams), which descriptors in Python do not tell."""
    made = importlib.import_module("google.protobuf.descriptor_pb2").MethodDescriptorProto()
    method.CopyToProto(made)
    return made.client_streaming, made.server_streaming


def invoke(channel, method, timeout=60):
    """Calls a method of any kind with an empty request; answers all messages."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    client_streams, server_streams = kinds_of(method)
    kind = ("stream" if client_streams else "unary") + "_" + ("stream" if server_streams else "unary")
    call = getattr(channel, kind)(path)
    answer = call(iter([b""]) if client_streams else b"", timeout=timeout)
    return list(answer) if server_streams else [answer]


@pytest.mark.parametrize("method", later_methods(), ids=lambda method: method.name)
def test_what_is_not_built_says_so(client, method):
    with refused("UNIMPLEMENTED") as refusal:
        invoke(client.channel, method)
    assert method.name in refusal.error.message


@pytest.mark.parametrize("path", ["/virtplane.v1.DomainService/Nonesuch", "/nonesuch.Service/Method", "/x"])
def test_unknown_methods_are_answered(client, path):
    for _ in range(20):  # a daemon that posts too few requests for such calls lets later ones hang
        with refused("UNIMPLEMENTED"):
            client.channel.unary_unary(path)(b"", timeout=60)
    with refused("UNIMPLEMENTED"):
        list(client.channel.stream_stream(path)(iter([b"", b""]), timeout=60))


def test_health(daemon, client):
    services = [""] + [service.full_name for service in service_descriptors()]
    for service in services:
        assert client.health.Check(health.HealthCheckRequest(service=service)).status == health.HealthCheckResponse.SERVING
    with refused("NOT_FOUND"):
        client.health.Check(health.HealthCheckRequest(service="nonesuch"))
    watch = client.health.Watch(health.HealthCheckRequest(service=services[1]), timeout=60)
    assert next(watch).status == health.HealthCheckResponse.SERVING
    daemon.terminate()
    said = []
    with pytest.raises(grpc.RpcError):
        for message in watch:
            said.append(message.status)
    assert said in ([health.HealthCheckResponse.NOT_SERVING], []), said
    daemon.wait_end()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection(client, version):
    module = reflection if version == "v1" else reflection_alpha
    call = client.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                                        request_serializer=module.ServerReflectionRequest.SerializeToString,
                                        response_deserializer=module.ServerReflectionResponse.FromString)

    def ask(**request):
        [answer] = call(iter([module.ServerReflectionRequest(**request)]), timeout=60)
        return answer

    listed = {service.name for service in ask(list_services="").list_services_response.service}
    assert {service.full_name for service in service_descriptors()} <= listed
    assert {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= listed

    descriptor = importlib.import_module("google.protobuf.descriptor_pb2")
    for question in ({"file_containing_symbol": "virtplane.v1.DomainService"}, {"file_by_filename": "virtplane/v1/domain_service.proto"},
                     {"file_containing_symbol": "virtplane.v1.DomainService.StartDomain"}):
        files = [descriptor.FileDescriptorProto.FromString(data)
                 for data in ask(**question).file_descriptor_response.file_descriptor_proto]
        assert "virtplane/v1/domain_service.proto" in [file.name for file in files]
    assert ask(file_containing_symbol="nonesuch.Thing").error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert ask(file_by_filename="nonesuch.proto").error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    options = "google.protobuf.FieldOptions"
    numbers = ask(all_extension_numbers_of_type=options).all_extension_numbers_response
    assert numbers.base_type_name == options and list(numbers.extension_number) == [50731]
    rules = ask(file_containing_extension={"containing_type": options, "extension_number": 50731}).file_descriptor_response
    assert descriptor.FileDescriptorProto.FromString(rules.file_descriptor_proto[0]).name == "virtplane/v1/rules.proto"
    assert ask(file_containing_extension={"containing_type": options, "extension_number": 1}).error_response.error_code == 5
    assert ask(all_extension_numbers_of_type="nonesuch.Thing").error_response.error_code == 5
    # Many questions in one stream.
    answers = list(call(iter([module.ServerReflectionRequest(list_services="") for _ in range(50)]), timeout=60))
    assert len(answers) == 50


def test_the_host(client):
    host = client.host.GetHost(pb.GetHostRequest()).host
    assert host.cpus >= 1 and host.memory_bytes > 0 and host.architecture and host.kernel_release
    assert host.kvm_available != bool(host.kvm_detail)
    capabilities = client.host.GetCapabilities(pb.GetCapabilitiesRequest())
    drivers = {driver.name: driver for driver in capabilities.drivers}
    assert {"test", "qemu"} <= set(drivers)
    assert drivers["qemu"].available and drivers["qemu"].version and "StartDomain" in drivers["qemu"].methods
    assert pb.ACCELERATOR_TCG in drivers["qemu"].accelerators
    assert "MigrateDomain" not in drivers["qemu"].methods
    assert set(capabilities.image_formats) == {"raw", "qcow", "qcow2", "qed", "vmdk", "vdi", "vpc", "vhdx", "dmg", "bochs", "cloop", "luks",
                                               "parallels"}


def test_the_daemon_describes_itself(daemon, client):
    described = client.admin.GetDaemon(pb.GetDaemonRequest()).daemon
    assert described.pid == daemon.process.pid and described.state_dir == daemon.state_dir
    assert daemon.address in described.addresses and described.version
    before = described.revision
    create(client, "vm")
    wait_until(lambda: client.admin.GetDaemon(pb.GetDaemonRequest()).daemon.revision > before, "the new revision")


def test_a_deadline_ends_the_call_and_not_the_job(client):
    create(client, "vm", labels={"test.fault.start": "delay:4000"})
    with refused("DEADLINE_EXCEEDED"):
        client.domain.StartDomain(pb.StartDomainRequest(name="vm"), timeout=1.5)
    wait_until(lambda: get(client, "vm").status.state == pb.DOMAIN_STATE_RUNNING, "the job's end")


def test_reads_do_not_wait_for_a_job(client):
    create(client, "vm", labels={"test.fault.start": "hang"})
    operation = act(client, "Start", "vm", no_wait=True).operation
    wait_until(lambda: get(client, "vm").status.job.type == "domain.start", "the job")
    domain = get(client, "vm")
    assert domain.status.job.operation_uid == operation.uid and domain.status.job.caller
    started = time.monotonic()
    for _ in range(100):
        get(client, "vm")
    assert time.monotonic() - started < 30
    # Another domain is not delayed either, and a power off gets through.
    create(client, "other")
    act(client, "Start", "other")
    act(client, "PowerOff", "vm")
    wait_until(lambda: not get(client, "vm").status.HasField("job"), "the job's end")
    ended = client.operation.GetOperation(pb.GetOperationRequest(uid=operation.uid)).operation
    assert ended.state == pb.OPERATION_STATE_CANCELLED and ended.error.message


def test_operations_are_watched_and_cancelled(client):
    create(client, "vm", labels={"test.fault.start": "hang"})
    operation = act(client, "Start", "vm", no_wait=True).operation
    watch = client.operation.WatchOperation(pb.WatchOperationRequest(uid=operation.uid), timeout=60)
    assert next(watch).operation.uid == operation.uid
    active = client.operation.ListOperations(pb.ListOperationsRequest(active_only=True)).operations
    assert [item.uid for item in active] == [operation.uid]
    client.operation.CancelOperation(pb.CancelOperationRequest(uid=operation.uid))
    last = [message.operation for message in watch][-1]
    assert last.state == pb.OPERATION_STATE_CANCELLED
    with refused("NOT_FOUND"):
        client.operation.GetOperation(pb.GetOperationRequest(uid="00000000-0000-4000-8000-000000000000"))


def test_a_job_that_takes_too_long_is_given_up(client):
    create(client, "vm", labels={"test.fault.start": "hang"})
    with refused("DEADLINE_EXCEEDED") as refusal:
        act(client, "Start", "vm", timeout_seconds=0.3)
    assert "vm" in refusal.error.message


def test_an_injected_failure_comes_back_as_it_is(client):
    create(client, "vm", labels={"test.fault.start": "fail:UNAVAILABLE:no luck"})
    with refused("UNAVAILABLE", "INJECTED") as refusal:
        act(client, "Start", "vm")
    assert "no luck" in refusal.error.message
    domain = get(client, "vm")
    assert domain.status.state == pb.DOMAIN_STATE_SHUTOFF and "no luck" in domain.status.detail


def test_many_clients_at_once(daemon, client):
    """8 connections, 8 threads each: creates, starts, reads, deletes; nothing is lost or mixed up."""
    def work(number):
        mine = daemon.client()
        for i in range(10):
            name = f"vm-{number}-{i}"
            created = create(mine, name, labels={"n": str(number)})
            act(mine, "Start", name)
            assert get(mine, name).uid == created.uid
            if i % 2:
                act(mine, "PowerOff", name)
                mine.domain.DeleteDomain(pb.DeleteDomainRequest(name=name))

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    left = client.domain.ListDomains(pb.ListDomainsRequest(page_size=1000)).domains
    assert len(left) == 80 and all(domain.status.state == pb.DOMAIN_STATE_RUNNING for domain in left)


def test_drain_at_sigterm(daemon, client):
    """A stream ends with UNAVAILABLE and says where to resume; a running call finishes; new ones are refused; exit code 0."""
    create(client, "vm", labels={"test.fault.start": "delay:2500"})
    events = Events(client)
    results = []

    def start():
        try:
            results.append(act(client, "Start", "vm").domain.status.state)
        except grpc.RpcError as error:
            results.append(Refusal(error))

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: get(client, "vm").status.HasField("job"), "the job")
    daemon.terminate()
    thread.join(90)
    assert results == [pb.DOMAIN_STATE_RUNNING], results
    events.wait(lambda: events.ended, "the end of the stream")
    refusal = Refusal(events.error)
    assert refusal.code == "UNAVAILABLE", refusal
    assert int(refusal.metadata["resume_revision"]) > 0
    daemon.wait_end()


def test_clients_that_vanish_leave_nothing(daemon, client):
    create(client, "vm")
    for _ in range(30):
        other = daemon.client()
        streams = [other.event.WatchEvents(pb.WatchEventsRequest(start_revision=1)) for _ in range(5)]
        for stream in streams:
            next(stream)
        other.close()
    wait_until(lambda: open_files(daemon) < 40, "the connections' end")
    act(client, "Start", "vm")


def open_files(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
