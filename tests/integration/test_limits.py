"""Control groups and pinned CPUs, as the kernel tells them of a running QEMU."""
import glob
import os

import pytest

from harness.client import pb
from harness.daemon import wait_until
from harness.domains import act, create, get
from harness.errors import refused

MIB = 1 << 20


def groups(pid):
    """Controller to folder of a process, of version 1, and "" for version 2."""
    found = {}
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                found[controller] = path
    return found


def value(controller, path, name):
    """What a file of a version 1 or 2 group says; None if this host has it otherwise."""
    for root in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        try:
            with open(f"{root}{path}/{name}", encoding="utf-8") as file:
                return file.read().strip()
        except OSError:
            continue
    return None


@pytest.fixture
def can_limit():
    """Skips where this user may make no control groups."""
    for root in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup"):
        if os.access(root, os.W_OK) and (root.endswith("cpu") or os.path.exists(root + "/cgroup.subtree_control")):
            return
    pytest.skip("no control group that this user may write")


def test_limits(daemon, client, can_limit):
    limits = pb.ResourceLimits(cpu_weight=200, cpu_millis=1500, memory_bytes=512 * MIB, processes=100)
    create(client, "vm", driver="qemu", limits=limits)
    act(client, "Start", "vm")
    domain = get(client, "vm")
    mine = groups(domain.status.pid)
    name = f"virtplane-{domain.uid}"
    path = f"/virtplane/{name}"
    assert path in mine.values(), mine
    if mine.get("cpu") == path:
        assert value("cpu", path, "cpu.shares") == "2048"
        assert value("cpu", path, "cpu.cfs_quota_us") == "150000"
    else:
        assert value("cpu", path, "cpu.weight") == "200" and value("cpu", path, "cpu.max") == "150000 100000"
    assert str(512 * MIB) in (value("memory", path, "memory.limit_in_bytes"), value("memory", path, "memory.max"))
    assert value("pids", path, "pids.max") == "100"
    daemon.restart()
    client = daemon.client()
    assert groups(get(client, "vm").status.pid) == mine
    act(client, "PowerOff", "vm")
    wait_until(lambda: not glob.glob(f"/sys/fs/cgroup/*/virtplane/{name}") + glob.glob(f"/sys/fs/cgroup/virtplane/{name}"), "the end of the groups")
    # The next start makes them anew, and one that fails leaves none.
    act(client, "Start", "vm")
    os.kill(get(client, "vm").status.pid, 9)
    wait_until(lambda: not glob.glob(f"/sys/fs/cgroup/*/virtplane/{name}") + glob.glob(f"/sys/fs/cgroup/virtplane/{name}"), "the end of the groups")


def test_limits_that_the_host_does_not_hold(client):
    device = pb.DeviceLimit(path="/dev/null", read_bytes_per_second=MIB)
    create(client, "vm", driver="qemu", limits=pb.ResourceLimits(devices=[device]))
    with refused("FAILED_PRECONDITION", "CGROUP") as refusal:
        act(client, "Start", "vm")
    assert all(field.startswith("domain.spec.limits.devices") for field in refusal.error.violations), refusal.error
    assert not glob.glob(f"/sys/fs/cgroup/*/virtplane/virtplane-{get(client, 'vm').uid}")


def allowed(path):
    with open(path + "/status", encoding="utf-8") as file:
        [line] = [line for line in file if line.startswith("Cpus_allowed_list:")]
    return line.split()[1]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_pinning(daemon, client):
    first, second = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))][:2]
    pinning = pb.Pinning(emulator_cpus=first, vcpus=[pb.CpuPin(index=1, cpus=second)], iothreads=[pb.CpuPin(index=1, cpus=f"{first},{second}")])
    create(client, "vm", driver="qemu", vcpus=2, iothreads=1, pinning=pinning)
    act(client, "Start", "vm")
    threads = {}
    for task in glob.glob(f"/proc/{get(client, 'vm').status.pid}/task/*"):
        with open(task + "/comm", encoding="utf-8") as file:
            name = file.read().strip()
        # KVM's own worker is where it likes.
        if not name.startswith("kvm-"):
            threads.setdefault(allowed(task), []).append(name)
    both = ",".join((first, second)) if int(second) - int(first) > 1 else f"{first}-{second}"
    # One virtual CPU, one I/O thread; all others are the emulator's.
    assert len(threads[second]) == 1 and len(threads[both]) == 1 and len(threads[first]) >= 2, threads
    act(client, "PowerOff", "vm")


def test_pinning_to_cpus_that_are_not_there(client):
    create(client, "vm", driver="qemu", pinning=pb.Pinning(vcpus=[pb.CpuPin(index=0, cpus="1000-1023")]))
    with refused("FAILED_PRECONDITION", "CPUS_UNAVAILABLE") as refusal:
        act(client, "Start", "vm")
    assert list(refusal.error.violations) == ["domain.spec.pinning.vcpus[0].cpus"]


def test_what_contradicts_itself(client):
    cases = {
        "limits.memory_bytes": dict(limits=pb.ResourceLimits(memory_bytes=MIB)),
        "limits.devices[0].path": dict(limits=pb.ResourceLimits(devices=[pb.DeviceLimit()])),
        "pinning.emulator_cpus": dict(pinning=pb.Pinning(emulator_cpus="1-0")),
        "pinning.vcpus[0].cpus": dict(pinning=pb.Pinning(vcpus=[pb.CpuPin(cpus="a")])),
        "pinning.vcpus[0].index": dict(pinning=pb.Pinning(vcpus=[pb.CpuPin(index=1, cpus="0")])),
        "pinning.iothreads[0].index": dict(pinning=pb.Pinning(iothreads=[pb.CpuPin(index=1, cpus="0")])),
    }
    for field, fields in cases.items():
        with refused("INVALID_ARGUMENT", "INVALID_SPEC") as refusal:
            create(client, "vm", driver="qemu", **fields)
        assert list(refusal.error.violations) == [f"domain.spec.{field}"], refusal.error
