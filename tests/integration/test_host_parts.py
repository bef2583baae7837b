"""What a guest has of its host: folders, NUMA nodes, and what cannot be had here, with the reason."""
import glob
import os
import shutil
import subprocess

import pytest

from harness import guest
from harness.client import pb
from harness.daemon import wait_until
from harness.domains import act, create, get
from harness.errors import refused

MIB = 1 << 20
VIRTIOFSD = shutil.which("virtiofsd") or next((path for path in ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd") if os.path.exists(path)), None)


def helpers(folder):
    """The processes whose log is virtiofsd's in this folder."""
    found = []
    for path in glob.glob("/proc/[0-9]*/fd/2"):
        try:
            if os.readlink(path).startswith(folder) and "virtiofsd" in os.readlink(path):
                found.append(int(path.split("/")[2]))
        except OSError:
            continue
    return found


@pytest.mark.timeout(900)
@pytest.mark.skipif(os.getuid() != 0 or not VIRTIOFSD, reason="virtiofsd is not there, or may not make its sandbox")
def test_a_shared_folder_and_nodes(daemon, client, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "from-host").write_text("hello guest")
    (tmp_path / "outside").write_text("not for the guest")
    (shared / "link").symlink_to("../outside")
    nodes = [pb.NumaNode(cpus="0", memory_bytes=128 * MIB, host_nodes="0", distances=[10, 33]),
             pb.NumaNode(cpus="1-2", memory_bytes=96 * MIB, distances=[33, 10])]
    with guest.shell(client, "vm", words="guest.net=off", kernel="full", memory_mib=224, vcpus=3, numa_nodes=nodes,
                     shared_folders=[pb.SharedFolder(tag="data", path=str(shared))]) as shell:
        shell.run("modprobe virtiofs 2>/dev/null; mount -t virtiofs data /mnt", timeout=60)
        assert shell.run("cat /mnt/from-host") == "hello guest"
        shell.run("cat /mnt/link", check=False)
        assert "not for the guest" not in shell.run("cat /mnt/link 2>&1 || true")
        shell.run("echo hello host >/mnt/from-guest; sync")
        assert (shared / "from-guest").read_text() == "hello host\n"
        shell.run("umount /mnt")
        assert shell.run("cat /sys/devices/system/node/online") == "0-1"
        assert shell.run("cat /sys/devices/system/node/node1/cpulist") == "1-2"
        assert shell.run("cat /sys/devices/system/node/node1/distance") == "33 10"
        assert 20_000 < int(shell.run("awk '/MemTotal/ {print $4}' /sys/devices/system/node/node1/meminfo")) <= 96 * 1024
        daemon.restart()
        client = daemon.client()
        assert helpers(daemon.folder) and shell.run("echo still here") == "still here"
    act(client, "PowerOff", "vm")
    wait_until(lambda: not helpers(daemon.folder), "the end of virtiofsd")


def test_folders_that_are_not_shared(make_daemon, tmp_path):
    daemon = make_daemon(config=f"[images]\nroots={tmp_path}\n").start()
    client = daemon.client()
    (tmp_path / "file").write_text("")
    (tmp_path / "way-out").symlink_to("/etc")
    cases = [("absent", "FILE_REFUSED"), ("file", "FILE_REFUSED"), ("way-out", "FILE_REFUSED")]
    for number, (name, reason) in enumerate(cases):
        create(client, f"vm{number}", driver="qemu", shared_folders=[pb.SharedFolder(tag="a", path=f"{tmp_path}/{name}")])
        with refused("FAILED_PRECONDITION", reason) as refusal:
            act(client, "Start", f"vm{number}")
        assert list(refusal.error.violations) == ["domain.spec.shared_folders[0].path"], refusal.error


def test_the_daemons_own_folder_is_not_shared(daemon, client):
    for number, path in enumerate((daemon.state_dir, os.path.dirname(daemon.folder), "/", daemon.state_dir + "/qemu")):
        create(client, f"vm{number}", driver="qemu", shared_folders=[pb.SharedFolder(tag="a", path=path)])
        with refused("FAILED_PRECONDITION", "FILE_REFUSED") as refusal:
            act(client, "Start", f"vm{number}")
        assert "own files" in refusal.error.message


def test_what_this_host_has_not(client):
    create(client, "pci", driver="qemu", host_devices=[pb.HostDevice(address="fffe:1f:1f.7")])
    with refused("FAILED_PRECONDITION", "HOST_DEVICE") as refusal:
        act(client, "Start", "pci")
    assert list(refusal.error.violations) == ["domain.spec.host_devices[0].address"]
    create(client, "numa", driver="qemu", numa_nodes=[pb.NumaNode(cpus="0", memory_bytes=64 * MIB, host_nodes="1000")])
    with refused("FAILED_PRECONDITION", "HOST_DEVICE") as refusal:
        act(client, "Start", "numa")
    assert list(refusal.error.violations) == ["domain.spec.numa_nodes[0].host_nodes"]
    create(client, "vsock", driver="qemu", vsock=pb.Vsock())
    assert get(client, "vsock").spec.vsock.cid >= 1000
    if not os.path.exists("/dev/vhost-vsock"):
        with refused("FAILED_PRECONDITION", "UNSUPPORTED") as refusal:
            act(client, "Start", "vsock")
        assert list(refusal.error.violations) == ["domain.spec.vsock"]
    else:
        act(client, "Start", "vsock")
        create(client, "same", driver="qemu", vsock=pb.Vsock(cid=get(client, "vsock").spec.vsock.cid))
        with refused("FAILED_PRECONDITION", "VSOCK_CID_TAKEN"):
            act(client, "Start", "same")
        act(client, "PowerOff", "vsock")


def test_bound_devices_of_the_host(client):
    """A device that another driver has is left to it, and it is said what to do."""
    for path in glob.glob("/sys/bus/pci/devices/*/iommu_group"):
        address = path.split("/")[-2]
        driver = os.path.join(os.path.dirname(path), "driver")
        if os.path.exists(driver) and os.path.basename(os.readlink(driver)) != "vfio-pci":
            break
    else:
        pytest.skip("no PCI device in an IOMMU group")
    create(client, "vm", driver="qemu", host_devices=[pb.HostDevice(address=address)])
    with refused("FAILED_PRECONDITION", "HOST_DEVICE") as refusal:
        act(client, "Start", "vm")
    assert "driverctl" in refusal.error.message


def test_what_contradicts_itself(client):
    node = dict(cpus="0", memory_bytes=64 * MIB)
    cases = {
        "shared_folders[1].tag": dict(shared_folders=[pb.SharedFolder(tag="a", path="/a"), pb.SharedFolder(tag="a", path="/b")]),
        "shared_folders[0].path": dict(shared_folders=[pb.SharedFolder(tag="a")]),
        "shared_folders[0].slot": dict(shared_folders=[pb.SharedFolder(tag="a", path="/a", slot=1)], interfaces=[pb.Interface(slot=1)]),
        "vsock.cid": dict(vsock=pb.Vsock(cid=2)),
        "vsock.slot": dict(vsock=pb.Vsock(slot=3), disks=[pb.Disk(path="/a", slot=3)]),
        "host_devices[0].address": dict(host_devices=[pb.HostDevice(address="3b:00.0")]),
        "host_devices[1].address": dict(host_devices=[pb.HostDevice(address="0000:3B:00.0"), pb.HostDevice(address="0000:3b:00.0")]),
        "numa_nodes[0].cpus": dict(numa_nodes=[pb.NumaNode(cpus="0", memory_bytes=64 * MIB)], vcpus=2),
        "numa_nodes[1].cpus": dict(numa_nodes=[pb.NumaNode(cpus="0", memory_bytes=32 * MIB)] * 2),
        "numa_nodes[0].memory_bytes": dict(numa_nodes=[pb.NumaNode(cpus="0", memory_bytes=32 * MIB)]),
        "numa_nodes[0].distances[0]": dict(numa_nodes=[pb.NumaNode(distances=[11], **node)]),
        "numa_nodes[0].policy": dict(numa_nodes=[pb.NumaNode(policy=pb.NUMA_POLICY_STRICT, **node)]),
        "numa_nodes[0].host_nodes": dict(numa_nodes=[pb.NumaNode(host_nodes="x", **node)]),
        "memory.hugepage_bytes": dict(memory=pb.Memory(hugepage_bytes=2 * MIB)),
    }
    for field, fields in cases.items():
        with refused("INVALID_ARGUMENT", "INVALID_SPEC") as refusal:
            create(client, "vm", driver="qemu", **fields)
        assert list(refusal.error.violations) == [f"domain.spec.{field}"], refusal.error
