"""Devices that come to a running guest and need something of the host: bridges, vhost-net, passt, passphrases. Seen from inside of the guest."""
import os
import shutil
import socket
import subprocess

import pytest

from harness import guest
from harness.client import pb
from harness.daemon import alive, process_state, wait_until
from harness.domains import act, get
from harness.errors import refused
from harness.events import Events
from test_disk_secrets import encrypted, found_in, luks, secret
from test_guest_devices import bridge, default_route, find_disk, passt_runs  # noqa: F401 # a fixture
from test_hot_plug import open_files
from test_live_changes import LIVE, attach, detach, live, targets

MIB = 1 << 20
MAC = "52:54:00:00:00:21"

# Without KVM a boot takes its time.
pytestmark = pytest.mark.timeout(900)


def taps(made):
    return os.listdir(f"/sys/class/net/{made.name}/brif")


def name_of(shell, mac=MAC):
    """The guest's name of the interface."""
    return shell.wait_for(f"grep -l {mac} /sys/class/net/*/address").splitlines()[0].split("/")[4]


def descriptors(pid, what):
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(entry.path))
        except OSError:
            continue
    return [target for target in found if what in target]


def zombies(pid):
    """Children of the process that have ended, of whichever of its threads."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
            found += [child for child in file.read().split() if process_state(int(child)) == "Z"]
    return found


def exchange(shell, host, bind, words):
    """The guest sends words to a server on this host."""
    with socket.create_server((bind, 0)) as server:
        server.settimeout(60)
        shell.type(f"echo {words} | nc {host} {server.getsockname()[1]}\n")
        peer, _ = server.accept()
        with peer:
            assert peer.recv(100).decode() == words + "\n"


def check_bridge(client, shell, made, pid, kept):
    interface = pb.Interface(type=pb.INTERFACE_TYPE_BRIDGE, bridge=made.name, mac=MAC, queues=2, inbound=pb.Bandwidth(bytes_per_second=10 * MIB))
    for _ in range(2):
        attach(client, "vm", interface=interface, timeout_seconds=60)
        name = name_of(shell)
        assert shell.run(f"ls -d /sys/class/net/{name}/queues/rx-* | wc -l").strip() == "2"
        shell.run(f"ifconfig {name} {made.guest} netmask 255.255.255.0 up")
        shell.wait_for(f"ping -c 1 -w 2 {made.host} >/dev/null")
        exchange(shell, made.host, made.host, "over the bridge")
        [tap] = taps(made)
        assert "tbf" in subprocess.run(["tc", "qdisc", "show", "dev", tap], check=True, stdout=subprocess.PIPE, text=True).stdout
        assert len(descriptors(pid, "/dev/net/tun")) == 2
        detach(client, "vm", interface_mac=MAC, timeout_seconds=120)
        # The tap device is QEMU's alone by then, and goes with it.
        wait_until(lambda: not taps(made), "the end of the tap device")
        shell.wait_for(f"test ! -e /sys/class/net/{name}")
        assert not descriptors(pid, "/dev/net/tun") and [one.mac for one in get(client, "vm").spec.interfaces] == kept


def check_vhost(client, shell, made, pid):
    interface = pb.Interface(type=pb.INTERFACE_TYPE_BRIDGE, bridge=made.name, mac=MAC, vhost=pb.VHOST_MODE_ON)
    if not os.path.exists("/dev/vhost-net"):
        with refused("FAILED_PRECONDITION", "UNSUPPORTED") as refusal:
            attach(client, "vm", interface=interface)
        assert "modprobe vhost_net" in refusal.error.message
        [field] = refusal.error.violations
        assert field.endswith(".vhost") and not descriptors(pid, "/dev/net/tun")
        wait_until(lambda: not taps(made), "the end of the tap device")
        return
    attach(client, "vm", interface=interface, timeout_seconds=60)
    assert descriptors(pid, "/dev/vhost-net")
    shell.run(f"ifconfig {name_of(shell)} {made.guest} netmask 255.255.255.0 up")
    shell.wait_for(f"ping -c 1 -w 2 {made.host} >/dev/null")
    detach(client, "vm", interface_mac=MAC, timeout_seconds=120)
    assert not descriptors(pid, "/dev/vhost-net")


def test_interfaces_of_the_host_come_and_go(daemon, client, bridge):  # noqa: F811 # the fixture
    """The one that is there from the start stays as it is, and so does QEMU's containment: it gets open devices, never the network itself."""
    with guest.shell(client, "vm", words="guest.net=off", kernel="full", memory_mib=256, vcpus=2,
                     interfaces=[pb.Interface(type=pb.INTERFACE_TYPE_NONE, mac="52:54:00:00:00:20")]) as shell:
        pid = get(client, "vm").status.pid
        kept = ["52:54:00:00:00:20"]
        check_bridge(client, shell, bridge, pid, kept)
        check_vhost(client, shell, bridge, pid)
        with refused("NOT_FOUND", "BRIDGE"):
            attach(client, "vm", interface=pb.Interface(type=pb.INTERFACE_TYPE_BRIDGE, bridge="nonesuch"))
        assert [one.mac for one in live(get(client, "vm")).interfaces] == kept and not descriptors(pid, "/dev/net/tun")
        # What a daemon attached a later one takes away.
        attach(client, "vm", interface=pb.Interface(type=pb.INTERFACE_TYPE_BRIDGE, bridge=bridge.name, mac=MAC), scope=LIVE, timeout_seconds=60)
        daemon.kill()
        daemon.close_clients()
        client = daemon.start().client()
        shell.run(f"ifconfig {name_of(shell)} {bridge.guest} netmask 255.255.255.0 up")
        shell.wait_for(f"ping -c 1 -w 2 {bridge.host} >/dev/null")
        detach(client, "vm", interface_mac=MAC, scope=LIVE, timeout_seconds=120)
        wait_until(lambda: not taps(bridge), "the end of the tap device")
        assert alive(pid)
    act(client, "PowerOff", "vm")


def test_passt_comes_and_goes(daemon, client):
    assert shutil.which("passt"), "tools/packages has it"
    route = default_route()
    with guest.shell(client, "vm", words="guest.net=off", kernel="full", memory_mib=256) as shell:
        told = get(client, "vm").status
        assert "net" in told.containment.namespaces
        interface = pb.Interface(type=pb.INTERFACE_TYPE_PASST, mac=MAC)
        for number in range(2):
            attach(client, "vm", interface=interface, timeout_seconds=60)
            assert passt_runs(daemon.folder) and daemon.running
            name = name_of(shell)
            if route and route[1]:
                # The gateway's address is that of this host's loopback.
                shell.run(f"ip addr add {route[0]} dev {name}; ip link set {name} up; ip route add default via {route[1]} dev {name}")
                exchange(shell, route[1], "127.0.0.1", f"through passt {number}")
            detach(client, "vm", interface_mac=MAC, timeout_seconds=120)
            wait_until(lambda: not passt_runs(daemon.folder), "the end of passt")
            shell.wait_for(f"test ! -e /sys/class/net/{name}")
            wait_until(lambda: not zombies(daemon.process.pid), "the daemon to take note")
        # It ends with QEMU, too.
        attach(client, "vm", interface=interface, timeout_seconds=60)
    act(client, "PowerOff", "vm")
    wait_until(lambda: not passt_runs(daemon.folder), "the end of passt")


def test_encrypted_disks_come_and_go(daemon, client):
    secret(client, "disk")
    secret(client, "wrong", b"not that one")
    secret(client, "unset", None)
    images = {
        "vdb": encrypted(luks(daemon.path("a"), "from LUKS"), pb.IMAGE_FORMAT_LUKS, "vdb", secret="disk"),
        "vdc": encrypted(luks(daemon.path("b"), "from qcow2", "qcow2", 5), pb.IMAGE_FORMAT_QCOW2, "vdc", secret="disk"),
    }
    texts = {"vdb": (4, "from LUKS"), "vdc": (5, "from qcow2")}
    with guest.shell(client, "vm", words="guest.net=off", kernel="full", memory_mib=256) as shell:
        pid = get(client, "vm").status.pid
        before = sorted(open_files(daemon, pid))
        events = Events(client, filter=pb.EventFilter(names=["vm"]))
        for name, code, reason in (("wrong", "FAILED_PRECONDITION", "SECRET_WRONG"), ("unset", "FAILED_PRECONDITION", None), ("nonesuch", "NOT_FOUND", None)):
            for one in images.values():
                other = pb.Disk.FromString(one.SerializeToString())
                other.secret = name
                with refused(code, reason):
                    attach(client, "vm", disk=other)
        assert sorted(open_files(daemon, pid)) == before and not targets(live(get(client, "vm")))
        for _ in range(2):
            for target, one in images.items():
                attach(client, "vm", disk=one, timeout_seconds=60)
                size, text = texts[target]
                assert shell.run(f"head -c {len(text)} /dev/{find_disk(shell, size)}") == text
            assert targets(live(get(client, "vm"))) == ["vdb", "vdc"]
            for target, one in images.items():
                with refused("FAILED_PRECONDITION", "SECRET_IN_USE"):
                    client.secret.DeleteSecret(pb.DeleteSecretRequest(name="disk"))
                detach(client, "vm", disk_target=target, timeout_seconds=120)
            assert sorted(open_files(daemon, pid)) == before
        assert events.until("DEVICE_REMOVED", "vm", 4).detail == "vdc"
        assert not found_in(daemon.folder, b"tr0ub4dor & three")
        client.secret.DeleteSecret(pb.DeleteSecretRequest(name="disk"))
    act(client, "PowerOff", "vm")
