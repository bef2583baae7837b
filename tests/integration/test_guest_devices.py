"""Everything that a spec can wish for, seen from inside a real guest."""
import glob
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time

import grpc
import pytest

from harness import guest
from harness.bridge import bridge as host_bridge
from harness.client import pb
from harness.daemon import wait_until
from harness.domains import act, create, get, state
from harness.errors import Refusal, refused
from harness.events import Events

MIB = 1 << 20

# Without KVM, and on a busy machine, a guest with many devices takes minutes to boot.
pytestmark = pytest.mark.timeout(900)


def disk(path, target, bus, size_mib=0, **fields):
    """A raw disk that is its own size in MiB, so that the guest can tell which it is."""
    if size_mib:
        with open(path, "wb") as file:
            file.write(target.encode().ljust(512, b"\0"))
            file.truncate(size_mib * MIB)
    return pb.Disk(target=target, path=path, bus=bus, format=pb.IMAGE_FORMAT_RAW if path else pb.IMAGE_FORMAT_UNSPECIFIED, **fields)


def find_disk(shell, size_mib):
    """The guest's name of the disk of that size."""
    output = shell.wait_for(f"grep -lx {size_mib * 2048} /sys/block/*/size")
    return output.splitlines()[0].split("/")[3]


def pci(shell):
    """The PCI devices: address to "vendor:device"."""
    output = shell.run("for d in /sys/bus/pci/devices/*; do echo ${d##*/} $(cat $d/vendor) $(cat $d/device); done")
    return {line.split()[0][5:]: ":".join(word[2:] for word in line.split()[1:]) for line in output.splitlines()}


def test_disks_on_all_buses(daemon, client):
    path = daemon.path
    disks = [
        disk(path("a"), "vda", pb.DISK_BUS_VIRTIO, 11, cache=pb.DISK_CACHE_NONE, io=pb.DISK_IO_NATIVE, iothread=1, serial="SERIAL-A",
             write_threshold_bytes=6 * MIB),
        disk(path("b"), "vdb", pb.DISK_BUS_VIRTIO, 12, io=pb.DISK_IO_IO_URING, iothread=2, read_only=True),
        disk(path("c"), "sda", pb.DISK_BUS_SCSI, 13, iothread=1, serial="SERIAL-C", cache=pb.DISK_CACHE_WRITETHROUGH),
        disk(path("d"), "sdb", pb.DISK_BUS_SATA, 14, serial="SERIAL-D"),
        disk(path("e"), "nvme0", pb.DISK_BUS_NVME, 15, serial="SERIAL-E", cache=pb.DISK_CACHE_UNSAFE),
        disk(path("f"), "sdc", pb.DISK_BUS_USB, 16),
        disk(path("g"), "sr0", pb.DISK_BUS_SATA, 17, device=pb.DISK_DEVICE_CDROM),
        disk(path("h"), "sr1", pb.DISK_BUS_SCSI, 18, device=pb.DISK_DEVICE_CDROM, iothread=1),
        pb.Disk(target="sr2", device=pb.DISK_DEVICE_CDROM),
    ]
    with guest.shell(client, "vm", words="guest.net=off", kernel="full", memory_mib=256, disks=disks, iothreads=2) as shell:
        spec = get(client, "vm").spec
        assert [item.slot for item in spec.disks] == [1, 2, 1, 1, 3, 1, 2, 2, 3]
        assert spec.disks[8].bus == pb.DISK_BUS_SATA and re.fullmatch(r"pc-q35-[\d.]+", spec.machine)
        names = {size: find_disk(shell, size) for size in range(11, 19)}
        assert names[11].startswith("vd") and names[12].startswith("vd") and names[15].startswith("nvme"), names
        assert all(names[size].startswith("sd") for size in (13, 14, 16)) and names[17].startswith("sr") and names[18].startswith("sr"), names
        shell.wait_for("test -e /sys/block/sr2")
        assert shell.run(f"cat /sys/block/{names[11]}/serial") == "SERIAL-A"
        assert shell.run(f"cat /sys/block/{names[15]}/device/serial").strip() == "SERIAL-E"
        assert shell.run(f"cat /sys/block/{names[13]}/device/vpd_pg80 | tr -d '\\000-\\037'").endswith("SERIAL-C")
        assert shell.run(f"cat /sys/block/{names[12]}/ro") == "1" and shell.run(f"cat /sys/block/{names[11]}/ro") == "0"
        assert shell.run(f"cat /sys/block/{names[11]}/queue/write_cache") == "write back"
        assert shell.run(f"cat /sys/block/{names[13]}/queue/write_cache") == "write through"
        for size, target in zip(range(11, 19), ("vda", "vdb", "sda", "sdb", "nvme0", "sdc", "sr0", "sr1")):
            assert shell.run(f"head -c {len(target)} /dev/{names[size]}") == target
        for size in (11, 13, 14, 15, 16):
            shell.run(f"echo written-{size} | dd of=/dev/{names[size]} bs=512 seek=8 conv=sync,fsync 2>/dev/null", timeout=60)
        # A write beyond the mark: once, and once more for a daemon that was not there.
        events = Events(client)

        def is_told():
            shell.run(f"dd if=/dev/zero of=/dev/{names[11]} bs=1M count=1 seek=8 conv=fsync 2>/dev/null")
            return "DISK_THRESHOLD_REACHED" in events.kinds()

        wait_until(is_told, "the mark")
        is_told()
        first = events.until("DISK_THRESHOLD_REACHED", "vm")
        assert re.fullmatch(rf"vda: a write went \d+ bytes beyond the mark of {6 * MIB}", first.detail), first
        daemon.restart()
        client = daemon.client()
        events = Events(client, start_revision=first.revision + 1)
        wait_until(is_told, "the mark, to another daemon")
        is_told()
    act(client, "PowerOff", "vm")
    events.until("DOMAIN_POWERED_OFF")
    assert events.kinds().count("DISK_THRESHOLD_REACHED") == 1
    for name, size in zip("acdef", (11, 13, 14, 15, 16)):
        with open(path(name), "rb") as file:
            assert file.seek(4096) and file.read(10) == f"written-{size}".encode(), name


def test_devices(daemon, client):
    fields = dict(
        vcpus=2, cpu=pb.Cpu(model="max", cores=2, threads=1, max_vcpus=4, features=[pb.CpuFeature(name="avx2", disabled=True)]),
        memory=pb.Memory(max_bytes=1024 * MIB, slots=2), hotplug_slots=3, guest_agent=True, rng=pb.Rng(bytes_per_second=1 << 20),
        watchdog=pb.Watchdog(action=pb.WATCHDOG_ACTION_PAUSE), usb_devices=[pb.USB_DEVICE_TABLET, pb.USB_DEVICE_KEYBOARD],
        tpm=pb.TPM_MODEL_CRB, graphics=[pb.GRAPHICS_TYPE_VNC, pb.GRAPHICS_TYPE_SPICE], video=pb.VIDEO_MODEL_VIRTIO,
        serial_ports=[pb.SerialPort(), pb.SerialPort(model=pb.SERIAL_PORT_MODEL_VIRTIO, no_log=True)],
        clock=pb.Clock(zone=pb.CLOCK_ZONE_LOCALTIME),
        interfaces=[pb.Interface(), pb.Interface(model=pb.INTERFACE_MODEL_E1000, mac="52:54:00:aa:bb:cc"), pb.Interface(type=pb.INTERFACE_TYPE_NONE)])
    with guest.shell(client, "vm", kernel="full", memory_mib=256, **fields) as shell:
        domain = get(client, "vm")
        user = domain.status.containment.uid
        assert swtpm_runs(user)
        assert sorted(endpoint.device for endpoint in domain.status.endpoints) == ["serial0", "serial1", "spice", "vnc"]
        # The machine.
        assert shell.run("nproc") == "2"
        assert shell.run("cat /sys/devices/system/cpu/possible") == "0-3"
        assert shell.run("grep -m1 'cpu cores' /proc/cpuinfo").endswith(": 2")
        flags = shell.run("grep -m1 ^flags /proc/cpuinfo").split()
        assert "avx" in flags and "avx2" not in flags
        assert 100 << 10 < int(shell.run("grep MemTotal /proc/meminfo").split()[1]) < 256 << 10
        # What is on the buses.
        found = list(pci(shell).values())
        assert found.count("1b36:000c") == 3 + 3, found  # PCI Express ports: three in use, three free
        for device in ("1af4:1050", "1b36:000d", "8086:25ab", "1af4:1005", "1af4:1002", "1af4:1003", "8086:100e"):
            assert device in found, (device, found)
        assert shell.wait_for("ls -d /sys/class/watchdog/watchdog0 /dev/watchdog")
        assert "i6300ESB" in shell.run("cat /sys/class/watchdog/watchdog0/identity")
        assert shell.run("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
        assert shell.run("cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
        shell.wait_for("grep -q 'QEMU USB Tablet' /proc/bus/input/devices && grep -q 'QEMU USB Keyboard' /proc/bus/input/devices")
        assert shell.run("ls /dev/virtio-ports") == "org.qemu.guest_agent.0"
        # Interfaces: two with a link, one without.
        macs = [interface.mac for interface in domain.spec.interfaces]
        for number, mac in enumerate(macs):
            name = shell.wait_for(f"grep -l {mac} /sys/class/net/*/address").split("/")[4]
            if number < 2:
                shell.wait_for(f"ifconfig {name} | grep -q 'inet addr:10.0.2.15'", timeout=60)
            else:
                assert shell.run(f"cat /sys/class/net/{name}/carrier") == "0"
        # A second console.
        shell.wait_for("test -c /dev/hvc0")
        with guest.Shell(domain, "serial1") as second:
            shell.run("echo to the second > /dev/hvc0")
            second.until(b"to the second")
        sockets = {endpoint.device: endpoint.socket_path for endpoint in domain.status.endpoints}
        with socket.socket(socket.AF_UNIX) as vnc:
            vnc.connect(sockets["vnc"])
            assert vnc.recv(12).startswith(b"RFB 003.")
        wait_until(lambda: get(client, "vm").status.agent.connected, "the agent's answer")
        with socket.socket(socket.AF_UNIX) as spice:
            spice.connect(sockets["spice"])
            spice.sendall(b"REDQ" + struct.pack("<IIIIBBIII", 2, 2, 18, 0, 1, 0, 0, 0, 18))
            assert spice.recv(4) == b"REDQ"
        # A watchdog that is fed no more.
        shell.type("exec 3>/dev/watchdog; echo 1 >&3\n")
        events = Events(client)
        wait_until(lambda: state(client, "vm") == "PAUSED", "the watchdog's bite", timeout=200)
        assert events.until("DOMAIN_WATCHDOG", "vm").reason == "PAUSE"
    act(client, "PowerOff", "vm")
    pid = domain.status.pid
    wait_until(lambda: not swtpm_runs(user), f"the end of swtpm (of {pid})")


def swtpm_runs(user):
    """As the user of the domain that it serves."""
    return subprocess.run(["pgrep", "-u", str(user), "-x", "swtpm"], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_uefi_with_secure_boot(daemon, client):
    """The machine's version, UEFI's variables and the TPM's state are kept from one start to the next, and go with the domain."""
    firmware = pb.Firmware(type=pb.FIRMWARE_TYPE_UEFI, secure_boot=True)
    variables = "/sys/firmware/efi/efivars"
    with guest.shell(client, "vm", words="guest.net=off", memory_mib=256, firmware=firmware, tpm=pb.TPM_MODEL_TIS) as shell:
        assert shell.run(f"tail -c 1 {variables}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c | od -An -tu1").strip() == "1"
        shell.run(f"printf '\\007\\000\\000\\000kept' > {variables}/VirtPlane-11111111-2222-3333-4444-555555555555")
        assert shell.run("cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
    act(client, "PowerOff", "vm")
    machine = get(client, "vm").spec.machine
    assert re.fullmatch(r"pc-q35-[\d.]+", machine)
    [folder] = [folder for folder, _, names in os.walk(daemon.state_dir) if "variables.fd" in names]
    assert kept_variable(folder) and os.listdir(folder + "/tpm")
    act(client, "Start", "vm")
    act(client, "PowerOff", "vm")
    assert kept_variable(folder) and get(client, "vm").spec.machine == machine
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))
    wait_until(lambda: not os.path.exists(folder), "the end of the folder")


def kept_variable(folder):
    with open(f"{folder}/variables.fd", "rb") as file:
        data = file.read()
    return "VirtPlane".encode("utf-16-le") in data and b"kept" in data


def test_throttle(daemon, client):
    limits = dict(write_bytes_per_second=MIB // 2, group="slow")
    disks = [disk(daemon.path(name), target, pb.DISK_BUS_VIRTIO, size, throttle=pb.Throttle(**limits))
             for name, target, size in (("a", "vda", 11), ("b", "vdb", 12))]
    with guest.shell(client, "vm", words="guest.net=off", disks=disks) as shell:
        names = [find_disk(shell, size) for size in (11, 12)]
        begin = time.monotonic()
        both = " ".join(f"dd if=/dev/zero of=/dev/{name} bs=64k count=16 oflag=direct 2>/dev/null &" for name in names)
        shell.run(f"({both} wait)", timeout=60)
        # Two MiB at half a MiB a second, the first of it at once.
        assert time.monotonic() - begin > 2
    act(client, "PowerOff", "vm")


@pytest.fixture
def bridge():
    """A bridge of the host's."""
    with host_bridge() as made:
        if not made:
            pytest.skip("no right to make a bridge and tap devices")
        made.add_address()
        yield made


def default_route():
    """(address, gateway) of this host, as passt gives them to the guest."""
    routes = json.loads(subprocess.run(["ip", "-j", "-4", "route", "show", "default"], check=True, stdout=subprocess.PIPE).stdout)
    if not routes:
        return None
    found = json.loads(subprocess.run(["ip", "-j", "-4", "addr", "show", "dev", routes[0]["dev"]], check=True, stdout=subprocess.PIPE).stdout)
    [address, *_] = [info for info in found[0]["addr_info"] if info["scope"] == "global"]
    return f"{address['local']}/{address['prefixlen']}", routes[0].get("gateway")


def passt_runs(folder):
    """Whether one does whose log is in this folder."""
    for path in glob.glob("/proc/[0-9]*/fd/2"):
        try:
            if os.readlink(path).startswith(folder) and "passt" in os.readlink(path):
                return True
        except OSError:
            continue
    return False


def test_bridge_and_passt(daemon, client, bridge):
    """One with two queues and a limit on a bridge; beside it, where it is installed, one by passt."""
    route = default_route() if shutil.which("passt") else None
    interfaces = [pb.Interface(type=pb.INTERFACE_TYPE_BRIDGE, bridge=bridge.name, queues=2, inbound=pb.Bandwidth(bytes_per_second=MIB // 2))]
    interfaces += [pb.Interface(type=pb.INTERFACE_TYPE_PASST)] if route else []
    with guest.shell(client, "vm", words="guest.net=off", vcpus=2, interfaces=interfaces) as shell:
        shell.wait_for("test -e /sys/class/net/eth0")
        assert shell.run("ls -d /sys/class/net/eth0/queues/rx-* | wc -l").strip() == "2"
        shell.run(f"ifconfig eth0 {bridge.guest} netmask 255.255.255.0 up")
        shell.wait_for(f"ping -c 1 -w 2 {bridge.host} >/dev/null")
        [tap] = os.listdir(f"/sys/class/net/{bridge.name}/brif")
        assert "tbf" in subprocess.run(["tc", "qdisc", "show", "dev", tap], check=True, stdout=subprocess.PIPE, text=True).stdout
        with socket.create_server((bridge.host, 0)) as server:
            # Two MiB at half a MiB a second.
            begin = time.monotonic()
            shell.type(f"nc {bridge.host} {server.getsockname()[1]} </dev/null | wc -c\n")
            server.settimeout(60)
            peer, _ = server.accept()
            with peer:
                peer.sendall(bytes(2 * MIB))
            shell.until(str(2 * MIB).encode(), timeout=60)
            assert time.monotonic() - begin > 2
        if route:
            # The gateway's address is that of this host's loopback.
            shell.run(f"ip addr add {route[0]} dev eth1; ip link set eth1 up; ip route add default via {route[1]} dev eth1")
            with socket.create_server(("127.0.0.1", 0)) as server:
                server.settimeout(60)
                shell.type(f"echo through passt | nc {route[1]} {server.getsockname()[1]}\n")
                peer, _ = server.accept()
                with peer:
                    assert peer.recv(100) == b"through passt\n"
            assert passt_runs(daemon.folder)
    act(client, "PowerOff", "vm")
    assert not passt_runs(daemon.folder)
    wait_until(lambda: not os.listdir(f"/sys/class/net/{bridge.name}/brif"), "the end of the tap device")


def test_interfaces_that_cannot_be(daemon, client, bridge):
    def bridged(**fields):
        return pb.Interface(type=pb.INTERFACE_TYPE_BRIDGE, **fields)

    cases = [("bridge", bridged(bridge="nonesuch"), "NOT_FOUND", "BRIDGE")]
    if not os.path.exists("/dev/vhost-net"):
        cases.append(("vhost", bridged(bridge=bridge.name, vhost=pb.VHOST_MODE_ON), "FAILED_PRECONDITION", "UNSUPPORTED"))
    for number, (field, interface, code, reason) in enumerate(cases):
        create(client, f"vm{number}", driver="qemu", interfaces=[pb.Interface(), interface])
        with refused(code, reason) as refusal:
            act(client, "Start", f"vm{number}")
        assert f"domain.spec.interfaces[1].{field}" in refusal.error.violations, refusal.error
        assert not os.listdir(f"/sys/class/net/{bridge.name}/brif")
    # Not every kernel can drop what comes too fast: then that is said.
    create(client, "vm", driver="qemu", interfaces=[bridged(bridge=bridge.name, outbound=pb.Bandwidth(bytes_per_second=MIB))])
    try:
        act(client, "Start", "vm")
    except grpc.RpcError as error:
        assert "domain.spec.interfaces[0].outbound" in Refusal(error).violations, Refusal(error)
    else:
        [tap] = os.listdir(f"/sys/class/net/{bridge.name}/brif")
        assert "police" in subprocess.run(["tc", "filter", "show", "dev", tap, "parent", "ffff:"], check=True, stdout=subprocess.PIPE, text=True).stdout
        act(client, "PowerOff", "vm")


def test_what_this_qemu_lacks(daemon, client):
    wishes = {
        "machine": dict(machine="q36"),
        "cpu.model": dict(cpu=pb.Cpu(model="Pentium9")),
    }
    for number, (field, fields) in enumerate(wishes.items()):
        create(client, f"vm{number}", driver="qemu", **fields)
        with refused("FAILED_PRECONDITION", "UNSUPPORTED") as refusal:
            act(client, "Start", f"vm{number}")
        assert list(refusal.error.violations) == [f"domain.spec.{field}"], refusal.error
        assert re.search(r"\d+\.\d+\.\d+", refusal.error.message), refusal.error.message
    create(client, "host", driver="qemu", cpu=pb.Cpu(model="host"), accelerator=pb.ACCELERATOR_TCG)
    with refused("FAILED_PRECONDITION", "UNSUPPORTED") as refusal:
        act(client, "Start", "host")
    assert "without KVM" in refusal.error.message


def test_arguments_of_ones_own(make_daemon):
    strict = make_daemon().start()
    wish = dict(driver="qemu", arguments=["-device", "virtio-rng-pci,addr=f.0"])
    with refused("PERMISSION_DENIED", "ARGUMENTS_NOT_ALLOWED") as refusal:
        create(strict.client(), "vm", **wish)
    assert list(refusal.error.violations) == ["domain.spec.arguments"]
    lax = make_daemon(config="[qemu]\nallow_arguments=true\n").start()
    client = lax.client()
    create(client, "vm", **wish)
    assert not get(client, "vm").status.tainted
    act(client, "Start", "vm")
    assert get(client, "vm").status.tainted
    act(client, "PowerOff", "vm")
    assert not get(client, "vm").status.tainted


def test_paths_in_the_spec_that_are_wrong(client):
    image = "/images/a.raw"
    cases = {
        "disks[0].io": dict(disks=[pb.Disk(path=image, io=pb.DISK_IO_NATIVE)]),
        "disks[0].bus": dict(disks=[pb.Disk(device=pb.DISK_DEVICE_CDROM, bus=pb.DISK_BUS_NVME)]),
        "disks[0].write_threshold_bytes": dict(disks=[pb.Disk(path=image, read_only=True, write_threshold_bytes=1)]),
        "disks[1].iothread": dict(disks=[pb.Disk(path=image), pb.Disk(path=image + "2", iothread=1)]),
        "disks[0].throttle.total_bytes_per_second":
            dict(disks=[pb.Disk(path=image, throttle=pb.Throttle(total_bytes_per_second=1, read_bytes_per_second=1))]),
        "disks[1].slot": dict(disks=[pb.Disk(path=image, slot=2), pb.Disk(path=image + "2", slot=2)]),
        "disks[0].slot": dict(disks=[pb.Disk(path=image, slot=17)], machine="pc"),
        "interfaces[0].slot": dict(disks=[pb.Disk(path=image, slot=5)], interfaces=[pb.Interface(slot=5)]),
        "interfaces[0].queues": dict(interfaces=[pb.Interface(queues=2)]),
        "interfaces[0].vhost": dict(interfaces=[pb.Interface(vhost=pb.VHOST_MODE_ON)]),
        "interfaces[0].inbound": dict(interfaces=[pb.Interface(inbound=pb.Bandwidth(bytes_per_second=1))]),
        "interfaces[0].bridge": dict(interfaces=[pb.Interface(type=pb.INTERFACE_TYPE_BRIDGE)]),
        "cpu.sockets": dict(cpu=pb.Cpu(sockets=3)),
        "cpu.max_vcpus": dict(cpu=pb.Cpu(max_vcpus=1, cores=1), vcpus_=4),
        "memory.slots": dict(memory=pb.Memory(slots=1)),
        "memory.max_bytes": dict(memory=pb.Memory(max_bytes=1 << 40)),
        "graphics[1]": dict(graphics=[pb.GRAPHICS_TYPE_VNC, pb.GRAPHICS_TYPE_VNC]),
        "firmware.secure_boot": dict(firmware=pb.Firmware(secure_boot=True)),
        "video": dict(video=99),
    }
    for field, fields in cases.items():
        vcpus = fields.pop("vcpus_", 1)
        spec = pb.DomainSpec(driver="qemu", vcpus=vcpus, **fields)
        with refused("INVALID_ARGUMENT", "INVALID_SPEC") as refusal:
            client.domain.CreateDomain(pb.CreateDomainRequest(domain=pb.Domain(name="vm", spec=spec)))
        assert list(refusal.error.violations) == [f"domain.spec.{field}"], (field, refusal.error)
