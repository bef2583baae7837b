"""Devices that come to a running guest and go from it, seen from inside of it."""
import os
import subprocess

import pytest

from harness import guest
from harness.client import pb
from harness.daemon import wait_until
from harness.domains import act, create, get
from harness.errors import refused
from harness.events import Events
from test_guest_devices import disk, find_disk
from test_live_changes import LIVE, STORED, attach, detach, live, targets, update

MIB = 1 << 20

pytestmark = pytest.mark.timeout(900)


def qcow2(path, size_mib, base=None, options=()):
    backing = ["-b", base, "-F", "qcow2"] if base else []
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, *options, path, f"{size_mib}M"], check=True)
    return path


def open_files(daemon, pid):
    """The paths of the images that a process has open."""
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            path = os.readlink(entry.path)
        except OSError:
            continue
        if path.startswith(daemon.folder) and not path.endswith((".sock", ".log")):
            found.append(path)
    return found


def test_disks_come_and_go(daemon, client):
    path = daemon.path
    disks = [disk(path("a"), "vda", pb.DISK_BUS_VIRTIO, 11), disk(path("c"), "sda", pb.DISK_BUS_SCSI, 13)]
    with guest.shell(client, "vm", words="guest.net=off", kernel="full", memory_mib=256, disks=disks, iothreads=1,
                     usb_devices=[pb.USB_DEVICE_TABLET]) as shell:
        pid = get(client, "vm").status.pid
        before = sorted(open_files(daemon, pid))
        events = Events(client, filter=pb.EventFilter(names=["vm"]))
        # One with a backing file, on each bus where one can come.
        qcow2(path("base"), 21)
        new = {
            "vdb": pb.Disk(target="vdb", path=qcow2(path("top"), 21, path("base")), format=pb.IMAGE_FORMAT_QCOW2, serial="HOT", iothread=1,
                           cache=pb.DISK_CACHE_NONE, io=pb.DISK_IO_NATIVE, throttle=pb.Throttle(total_requests_per_second=1000, group="g")),
            "sdb": disk(path("d"), "sdb", pb.DISK_BUS_SCSI, 22),
            "sdc": disk(path("e"), "sdc", pb.DISK_BUS_USB, 23),
            "nvme0": disk(path("f"), "nvme0", pb.DISK_BUS_NVME, 24),
        }
        for count, (target, one) in enumerate(new.items(), 1):
            answer = attach(client, "vm", disk=one)
            assert target in targets(answer.domain.spec) and not answer.domain.status.HasField("live_spec")
            assert events.until("DEVICE_ADDED", "vm", count).detail == target
        names = {size: find_disk(shell, size) for size in (21, 22, 23, 24)}
        assert shell.run(f"cat /sys/block/{names[21]}/serial") == "HOT"
        shell.run(f"echo written | dd of=/dev/{names[21]} bs=512 conv=sync,fsync 2>/dev/null", timeout=60)
        [status] = [status for status in get(client, "vm").status.disks if status.target == "vdb"]
        assert [layer.path for layer in status.layers] == [path("top"), path("base")]
        for count, (target, size) in enumerate(zip(new, names), 1):
            detach(client, "vm", disk_target=target, timeout_seconds=120)
            assert events.until("DEVICE_REMOVED", "vm", count).detail == target
            shell.wait_for(f"test ! -e /sys/block/{names[size]}")
        domain = get(client, "vm")
        assert targets(domain.spec) == targets(live(domain)) == ["vda", "sda"] and not domain.status.pending_detaches
        assert [status.target for status in domain.status.disks] == ["vda", "sda"]
        assert sorted(open_files(daemon, pid)) == before
        # The same again in the same place.
        attach(client, "vm", disk=new["vdb"], scope=LIVE)
        shell.wait_for(f"grep -l HOT /sys/block/{names[21]}/serial")
        detach(client, "vm", disk_target="vdb", timeout_seconds=120)
        assert sorted(open_files(daemon, pid)) == before
    act(client, "PowerOff", "vm")


def test_the_write_threshold_of_a_disk_that_comes(daemon, client):
    """It is there before the guest writes, changes while it runs, and goes; that of another disk, which was told, is not told again for it."""
    def mark(target, bytes_written, **fields):
        disks = [pb.Disk.FromString(one.SerializeToString()) for one in live(get(client, "vm")).disks]
        [one] = [one for one in disks if one.target == target]
        one.write_threshold_bytes = bytes_written
        return update(client, "vm", ["spec.disks"], disks=disks, **fields)

    def told():
        return [event.detail for event in events.events if event.type == pb.EVENT_TYPE_DISK_THRESHOLD_REACHED]

    def write(name, seek):
        shell.run(f"dd if=/dev/zero of=/dev/{name} bs=1M count=1 seek={seek} conv=fsync 2>/dev/null", timeout=60)

    vda = disk(daemon.path("a"), "vda", pb.DISK_BUS_VIRTIO, 11)
    with guest.shell(client, "vm", words="guest.net=off", kernel="full", memory_mib=256, disks=[vda]) as shell:
        events = Events(client, filter=pb.EventFilter(names=["vm"]))
        attach(client, "vm", disk=disk(daemon.path("d"), "vdb", pb.DISK_BUS_VIRTIO, 22, write_threshold_bytes=6 * MIB))
        # With a data file it is that which is written to.
        data = qcow2(daemon.path("q"), 23, options=["-o", f"data_file={daemon.path('data')},data_file_raw=on"])
        attach(client, "vm", disk=pb.Disk(target="vdc", path=data, format=pb.IMAGE_FORMAT_QCOW2, write_threshold_bytes=6 * MIB))
        for target, size in (("vdb", 22), ("vdc", 23)):
            name = find_disk(shell, size)
            write(name, 1)
            assert not [detail for detail in told() if detail.startswith(target)]
            write(name, 8)
            wait_until(lambda t=target: [d for d in told() if d.startswith(t)], "the mark")
        name = find_disk(shell, 22)
        answer = mark("vdb", 12 * MIB)
        assert not answer.status.HasField("live_spec")
        assert events.until("DEVICE_CHANGED", "vm").detail == "vdb: write threshold"
        write(find_disk(shell, 23), 9)
        write(name, 9)
        write(name, 14)
        wait_until(lambda: len(told()) == 3, "the mark that was changed")
        assert told()[2].startswith("vdb: ") and told()[2].endswith(f"beyond the mark of {12 * MIB}")
        mark("vda", 4 * MIB, scope=LIVE)
        assert [one.write_threshold_bytes for one in get(client, "vm").status.live_spec.disks] == [4 * MIB, 12 * MIB, 6 * MIB]
        mark("vda", 0, scope=LIVE)
        assert not get(client, "vm").status.HasField("live_spec")
        write(find_disk(shell, 11), 8)
        assert len(told()) == 3
    act(client, "PowerOff", "vm")


def medium(path, text):
    with open(path, "wb") as file:
        file.write(text.encode().ljust(2048, b"\0") * 512)
    return path


def change_medium(client, path, **fields):
    disks = [pb.Disk.FromString(one.SerializeToString()) for one in live(get(client, "vm")).disks]
    [drive] = [one for one in disks if one.device == pb.DISK_DEVICE_CDROM]
    drive.path, drive.format = path, pb.IMAGE_FORMAT_RAW if path else pb.IMAGE_FORMAT_UNSPECIFIED
    return update(client, "vm", ["spec.disks"], disks=disks, **fields)


def update_forced(client, path):
    disks = [pb.Disk.FromString(one.SerializeToString()) for one in live(get(client, "vm")).disks]
    [drive] = [one for one in disks if one.device == pb.DISK_DEVICE_CDROM]
    drive.path, drive.format = path, pb.IMAGE_FORMAT_UNSPECIFIED
    domain = pb.Domain(name="vm", spec=pb.DomainSpec(disks=disks))
    return client.domain.UpdateDomain(pb.UpdateDomainRequest(domain=domain, update_mask={"paths": ["spec.disks"]}, force=True)).domain


def total_mib(shell):
    return int(shell.run("grep MemTotal /proc/meminfo").split()[1]) >> 10


def test_what_else_changes(daemon, client):
    path = daemon.path
    interfaces = [pb.Interface(mac="52:54:00:00:00:01")]
    disks = [disk(path("a"), "vda", pb.DISK_BUS_VIRTIO, 11),
             pb.Disk(target="sr0", device=pb.DISK_DEVICE_CDROM, path=medium(path("one.iso"), "the first"), format=pb.IMAGE_FORMAT_RAW)]
    with guest.shell(client, "vm", words="guest.net=off guest.cpu=" + ("on" if guest.accelerator() == pb.ACCELERATOR_KVM else "off"), kernel="full",
                     memory_mib=256, disks=disks, interfaces=interfaces, cpu=pb.Cpu(max_vcpus=4), memory=pb.Memory(max_bytes=1024 * MIB, slots=2)) as shell:
        events = Events(client, filter=pb.EventFilter(names=["vm"]))
        pid = get(client, "vm").status.pid
        shell.wait_for("test -e /sys/block/sr0 && test -e /sys/class/net/eth0")

        # Media: the second has the place of the first, and QEMU lets go of that.
        assert shell.run("head -c 9 /dev/sr0") == "the first"
        domain = change_medium(client, medium(path("two.iso"), "a second"))
        assert domain.spec.disks[1].path == path("two.iso") and not domain.status.HasField("live_spec")
        assert events.until("DEVICE_CHANGED", "vm").detail == "sr0"
        shell.wait_for("head -c 8 /dev/sr0 | grep -q 'a second'", timeout=60)
        assert path("one.iso") not in open_files(daemon, pid) and path("two.iso") in open_files(daemon, pid)
        # Somebody reads: the drive is locked.
        # No child of the shell, which ends with one now and then.
        shell.run("(setsid sleep 1000 </dev/sr0 >/dev/null 2>&1 &); sleep 0.5")
        with refused("FAILED_PRECONDITION", "TRAY_LOCKED"):
            change_medium(client, "")
        assert live(get(client, "vm")).disks[1].path == path("two.iso")
        assert not update_forced(client, "").spec.disks[1].path
        assert path("two.iso") not in open_files(daemon, pid)
        shell.run("killall sleep")
        assert not [event for event in events.events if event.type == pb.EVENT_TYPE_TRAY_CHANGED and event.detail != "sr0"]

        # Limits.
        update(client, "vm", ["spec.disks"], disks=[pb.Disk(target="vda", path=path("a"), format=pb.IMAGE_FORMAT_RAW, bus=pb.DISK_BUS_VIRTIO,
               slot=disks[0].slot or live(get(client, "vm")).disks[0].slot, throttle=pb.Throttle(write_bytes_per_second=MIB, group="g")),
               live(get(client, "vm")).disks[1]])
        assert live(get(client, "vm")).disks[0].throttle.group == "g"

        # Memory: a piece comes and goes; less than that the balloon takes.
        before = total_mib(shell)
        update(client, "vm", ["spec.memory_bytes"], memory_bytes=384 * MIB)
        shell.wait_for(f"test $(( $(grep MemTotal /proc/meminfo | tr -dc 0-9) >> 10 )) -gt {before + 100}", timeout=60)
        with refused("FAILED_PRECONDITION", "MEMORY_PIECES"):
            update(client, "vm", ["spec.memory_bytes"], memory_bytes=390 * MIB)
        domain = update(client, "vm", ["spec.memory_bytes"], memory_bytes=256 * MIB)
        assert domain.spec.memory_bytes == 256 * MIB and not domain.status.pending_detaches
        assert abs(total_mib(shell) - before) < 20
        update(client, "vm", ["spec.memory_bytes"], memory_bytes=224 * MIB)
        wait_until(lambda: client.domain.GetDomainStats(pb.GetDomainStatsRequest(name="vm")).stats.memory.actual_bytes <= 224 * MIB, "the balloon", timeout=90)

        # Interfaces.
        mac = "52:54:00:00:00:02"
        attach(client, "vm", interface=pb.Interface(mac=mac))
        shell.wait_for(f"grep -l {mac} /sys/class/net/*/address")
        detach(client, "vm", interface_mac=mac, timeout_seconds=120)
        shell.wait_for(f"! grep -q {mac} /sys/class/net/*/address")

        # CPUs. One that QEMU emulates is not used here: a process that comes to it may die.
        kvm = guest.accelerator() == pb.ACCELERATOR_KVM
        update(client, "vm", ["spec.vcpus"], vcpus=3)
        shell.wait_for("test $(nproc) = 3" if kvm else "test -d /sys/devices/system/cpu/cpu2", timeout=60)
        if kvm:
            domain = update(client, "vm", ["spec.vcpus"], vcpus=2)
            shell.wait_for("test $(nproc) = 2", timeout=60)
            assert domain.spec.vcpus == 2 and not domain.status.HasField("live_spec") and not domain.status.pending_detaches
        else:
            with refused("FAILED_PRECONDITION", "UNSUPPORTED"):
                update(client, "vm", ["spec.vcpus"], vcpus=2)
        with refused("INVALID_ARGUMENT", "INVALID_SPEC"):
            update(client, "vm", ["spec.vcpus"], vcpus=5)

        # A guest that does not let go, and a daemon that comes back meanwhile.
        act(client, "Pause", "vm")
        with refused("DEADLINE_EXCEEDED", "DETACH_PENDING") as refusal:
            detach(client, "vm", interface_mac="52:54:00:00:00:01", timeout_seconds=1)
        assert "52:54:00:00:00:01" in refusal.error.message and "paused" in refusal.error.message
        wanted = get(client, "vm")
        assert [pending.interface_mac for pending in wanted.status.pending_detaches] == ["52:54:00:00:00:01"]
    daemon.restart()
    client = daemon.client()
    wait_until(lambda: get(client, "vm").status.reason == "DAEMON_RESTARTED", "the adoption")
    domain = get(client, "vm")
    assert domain.spec == wanted.spec and live(domain) == live(wanted)
    # The guest has been asked again, or is about to be.
    assert [pending.interface_mac for pending in domain.status.pending_detaches] == ["52:54:00:00:00:01"]
    assert domain.status.disks == wanted.status.disks
    act(client, "Resume", "vm")
    wait_until(lambda: not get(client, "vm").status.pending_detaches, "the guest to let go", timeout=120)
    domain = get(client, "vm")
    assert not domain.spec.interfaces and not domain.status.HasField("live_spec")
    act(client, "PowerOff", "vm")
