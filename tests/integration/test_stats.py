"""Counters: of a real QEMU beside what the host's own tools tell, of one that hangs, of many at once; and the stream's manners, on the test driver."""
import json
import os
import signal
import subprocess
import time

import pytest

from harness import guest, images
from harness.bridge import bridge as host_bridge
from harness.client import pb
from harness.daemon import process_state, program, wait_until
from harness.domains import act, create, get
from harness.errors import refused
from harness.faults import fault

RUNNING, PAUSED, UNRESPONSIVE = pb.DOMAIN_STATE_RUNNING, pb.DOMAIN_STATE_PAUSED, pb.DOMAIN_STATE_UNRESPONSIVE


def stats(client, name, **options):
    return client.domain.GetDomainStats(pb.GetDomainStatsRequest(name=name), **options).stats


def watch(client, interval_ms=100, timeout=60, **domain_filter):
    request = pb.WatchDomainStatsRequest(filter=pb.DomainFilter(**domain_filter))
    request.interval.FromMilliseconds(interval_ms)
    return client.domain.WatchDomainStats(request, timeout=timeout)


def running(client, name, **fields):
    create(client, name, **fields)
    return act(client, "Start", name).domain


def qemu(daemon, client, name="vm", **fields):
    return running(client, name, driver="qemu", accelerator=pb.ACCELERATOR_TCG, **fields).status.pid


def test_a_real_domain(daemon, client):
    disks = [pb.Disk(target="vda", path=images.qcow2(daemon.path("a.qcow2")), format=pb.IMAGE_FORMAT_QCOW2),
             pb.Disk(target="sda", path=images.qcow2(daemon.path("b.qcow2")), format=pb.IMAGE_FORMAT_QCOW2, bus=pb.DISK_BUS_SCSI),
             pb.Disk(target="sdb", path=images.qcow2(daemon.path("c.qcow2")), format=pb.IMAGE_FORMAT_QCOW2, bus=pb.DISK_BUS_SATA),
             pb.Disk(target="nvme0n1", path=images.qcow2(daemon.path("d.qcow2")), format=pb.IMAGE_FORMAT_QCOW2, bus=pb.DISK_BUS_NVME),
             pb.Disk(target="sdc", path=images.qcow2(daemon.path("e.qcow2")), format=pb.IMAGE_FORMAT_QCOW2, bus=pb.DISK_BUS_USB),
             pb.Disk(target="cd", device=pb.DISK_DEVICE_CDROM)]
    pid = qemu(daemon, client, vcpus=2, disks=disks, interfaces=[pb.Interface(), pb.Interface(type=pb.INTERFACE_TYPE_NONE)])
    domain = get(client, "vm")
    # The firmware reads the first disk, and the CPU works on it.
    wait_until(lambda: stats(client, "vm").disks[0].read_bytes > 0, "the firmware's read")
    told = stats(client, "vm")
    assert (told.name, told.uid, told.state) == ("vm", domain.uid, RUNNING)
    assert abs(told.time.ToNanoseconds() / 1e9 - time.time()) < 5
    assert [disk.target for disk in told.disks] == [disk.target for disk in disks]
    assert told.disks[0].read_requests > 0 and told.disks[0].read_time_ns > 0
    assert told.disks[0].write_bytes == 0 and told.disks[0].errors == 0
    assert [interface.mac for interface in told.interfaces] == [interface.mac for interface in domain.spec.interfaces]
    assert not any(interface.counted for interface in told.interfaces)
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    process_ns = (int(fields[11]) + int(fields[12])) * 10**9 // os.sysconf("SC_CLK_TCK")
    again = stats(client, "vm")
    assert told.cpu_time_ns - 10**8 <= process_ns <= again.cpu_time_ns + 10**8
    assert [vcpu.index for vcpu in told.vcpus] == [0, 1] and told.vcpus[0].cpu_time_ns > 0
    assert sum(vcpu.cpu_time_ns for vcpu in told.vcpus) <= again.cpu_time_ns
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert 0.5 * resident < told.memory.resident_bytes < 2 * resident
    assert told.memory.actual_bytes == 64 << 20 and not told.memory.HasField("guest_time")
    # Nothing moves in a halted guest, and its counters are told all the same.
    act(client, "Pause", "vm")
    halted = stats(client, "vm")
    assert halted.state == PAUSED and halted.disks[0].read_bytes >= told.disks[0].read_bytes
    assert stats(client, "vm").disks[0] == halted.disks[0]
    act(client, "PowerOff", "vm")
    off = stats(client, "vm")
    assert off.state == pb.DOMAIN_STATE_SHUTOFF and off.cpu_time_ns == 0 and not off.disks and not off.HasField("memory")


def test_memory_without_a_balloon(daemon, client):
    qemu(daemon, client, memory=pb.Memory(no_balloon=True), memory_mib=48)
    for _ in range(2):
        assert stats(client, "vm").memory.actual_bytes == 48 << 20


@pytest.fixture
def bridge():
    """A bridge of the host, or None where none can be made."""
    with host_bridge() as made:
        yield made


@pytest.mark.timeout(900)
def test_a_real_guest(daemon, client, bridge):
    """What the guest does is what is counted: its writes and flushes, its memory, and what goes through a tap device, seen from its side."""
    path = daemon.path("data")
    with open(path, "wb") as file:
        file.truncate(16 << 20)
    disk = pb.Disk(target="vda", path=path, format=pb.IMAGE_FORMAT_RAW)
    nic = pb.Interface(type=pb.INTERFACE_TYPE_BRIDGE, bridge=bridge.name) if bridge else pb.Interface()
    with guest.shell(client, "vm", words="guest.net=off", disks=[disk], interfaces=[nic]) as shell:
        before = stats(client, "vm")
        shell.run("dd if=/dev/zero of=/dev/vda bs=64k count=32 conv=fsync 2>/dev/null", timeout=120)
        after = stats(client, "vm")
        was, now = before.disks[0], after.disks[0]
        assert now.write_bytes - was.write_bytes == 2 << 20 and now.write_requests > was.write_requests
        assert now.flush_requests > was.flush_requests and now.write_time_ns > was.write_time_ns
        assert now.allocation_bytes >= 2 << 20 and now.errors == 0
        assert after.cpu_time_ns > before.cpu_time_ns and after.vcpus[0].cpu_time_ns > before.vcpus[0].cpu_time_ns
        # The guest's own word comes two seconds after the first question.
        told = wait_until(lambda: stats(client, "vm").memory.guest_total_bytes and stats(client, "vm").memory, "the guest's memory", timeout=120)
        total = int(shell.run("awk '/^MemTotal/ {print $2}' /proc/meminfo")) << 10
        assert abs(told.guest_total_bytes - total) < 4 << 20 and told.actual_bytes == 160 << 20
        assert 0 < told.guest_unused_bytes < total and 0 < told.guest_available_bytes < total
        assert abs(told.guest_time.ToSeconds() - time.time()) < 300
        if not bridge:
            return
        shell.run(f"ip link set eth0 up && ip address add {bridge.guest}/24 dev eth0")
        was = stats(client, "vm").interfaces[0]
        assert was.counted
        shell.run(f"ping -c 3 -w 3 {bridge.host} >/dev/null", check=False)
        now = wait_until(lambda: stats(client, "vm").interfaces[0].transmit_packets > was.transmit_packets and stats(client, "vm").interfaces[0],
                         "packets from the guest")
        assert now.transmit_bytes >= was.transmit_bytes + 42
        bridge.add_address()
        shell.wait_for(f"ping -c 1 -w 2 {bridge.host}")
        assert stats(client, "vm").interfaces[0].receive_packets > now.receive_packets


@fault("stats", "QEMU is stopped (SIGSTOP)", told="what the host knows, within a second, or at once when the domain is known to be UNRESPONSIVE")
def test_one_that_hangs_tells_what_the_host_knows(make_daemon):
    daemon = make_daemon(config="[qemu]\nping_interval_ms=50\nunresponsive_after_ms=8000\n").start()
    client = daemon.client()
    pid = qemu(daemon, client, "hung")
    qemu(daemon, client, "well")
    before = stats(client, "hung")
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", "the stop")
    # Before anybody has noticed: with the caller's own time, or after a second.
    began = time.monotonic()
    with refused("DEADLINE_EXCEEDED"):
        stats(client, "hung", timeout=0.2)
    assert time.monotonic() - began < 6
    told = stats(client, "hung")
    assert 0.9 < time.monotonic() - began < 7
    assert told.state == UNRESPONSIVE and get(client, "hung").status.state == RUNNING
    assert told.cpu_time_ns >= before.cpu_time_ns and told.memory.resident_bytes > 0 and not told.disks
    assert told.vcpus[0].cpu_time_ns >= before.vcpus[0].cpu_time_ns and told.memory.actual_bytes == 0
    # From then on at once, and the neighbour's are there all the time.
    stream = watch(client, 100)
    seen = {"hung": [], "well": []}
    for item in stream:
        seen[item.stats.name].append(item.stats)
        if len(seen["hung"]) >= 3 and len(seen["well"]) >= 10:
            break
    stream.cancel()
    assert {item.state for item in seen["hung"]} == {UNRESPONSIVE} and {item.state for item in seen["well"]} == {RUNNING}
    wait_until(lambda: get(client, "hung").status.state == UNRESPONSIVE, "its state")
    began = time.monotonic()
    assert stats(client, "hung").state == UNRESPONSIVE and time.monotonic() - began < 5
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: stats(client, "hung").state == RUNNING, "its return")
    assert stats(client, "hung").memory.actual_bytes == 64 << 20
    act(client, "PowerOff", "hung")


# ---- the stream's manners ----


def names_of(stream, number):
    return [next(stream).stats.name for _ in range(number)]


def test_a_stream_takes_in_what_starts_and_leaves_out_what_ends(client):
    for name in ("a1", "a2", "b1"):
        create(client, name, labels={"tier": name[0]})
    act(client, "Start", "a1")
    act(client, "Start", "b1")
    stream = watch(client, 100, labels={"tier": "a"})
    assert set(names_of(stream, 3)) == {"a1"}
    act(client, "Start", "a2")
    while next(stream).stats.name != "a2":
        pass
    act(client, "PowerOff", "a1")
    later = names_of(stream, 6)
    assert "a2" in later and later[-2:] == ["a2", "a2"]
    stream.cancel()
    assert stats(client, "a1").state == pb.DOMAIN_STATE_SHUTOFF


def test_counters_grow_at_the_interval(client):
    running(client, "a")
    items = [item.stats for _, item in zip(range(8), watch(client, 200))]
    assert all(first.cpu_time_ns < second.cpu_time_ns for first, second in zip(items, items[1:]))
    # The first at once, the others at multiples of the interval.
    times = [item.time.ToNanoseconds() / 1e9 for item in items[1:]]
    assert 0.15 < (times[-1] - times[0]) / (len(times) - 1) < 5


@pytest.mark.parametrize("ms", [1, 99, -1, 25 * 3600 * 1000])
def test_an_interval_out_of_bounds_is_refused(client, ms):
    with refused("INVALID_ARGUMENT") as refusal:
        next(watch(client, ms))
    assert "interval" in refusal.error.violations


def test_one_that_does_not_answer_holds_up_nobody(client):
    running(client, "hangs", labels={"test.fault.stats": "hang"})
    running(client, "fails", labels={"test.fault.stats": "fail:INTERNAL:no counters today"})
    running(client, "well")
    stream = watch(client, 100)
    began = time.monotonic()
    assert names_of(stream, 5) == ["well"] * 5
    assert time.monotonic() - began < 30
    stream.cancel()
    with refused("DEADLINE_EXCEEDED", "HYPERVISOR_TIMEOUT"):
        stats(client, "hangs")
    with refused("INTERNAL", "INJECTED"):
        stats(client, "fails")
    with refused("NOT_FOUND"):
        stats(client, "nobody")


def test_reads_wait_for_no_job(client):
    running(client, "a", labels={"test.fault.reset": "hang"})
    act(client, "Reset", "a", no_wait=True)
    wait_until(lambda: get(client, "a").status.job.type == "domain.reset", "the job")
    assert stats(client, "a").state == RUNNING and next(watch(client)).stats.name == "a"
    act(client, "PowerOff", "a")


def test_a_slow_reader_gets_fewer_samples_and_no_old_ones(daemon, client):
    """It stops reading for a while. The daemon gathers nothing for it: it rests. What comes afterwards is fresh, but for what was on its way."""
    for i in range(400):
        running(client, f"d{i}")
    out = daemon.path("out")

    def cpu_seconds():
        with open(f"/proc/{daemon.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rests():
        before = cpu_seconds()
        time.sleep(0.6)
        return cpu_seconds() - before < 0.015

    def times():
        with open(out, encoding="utf-8") as file:
            return [json.loads(line)["stats"]["time"] for line in file.read().split("\n")[:-1]]

    with open(out, "w", encoding="utf-8") as file:
        reader = subprocess.Popen([program("VPCTL", "clients/cli/vpctl"), "--connect", daemon.address, "domain", "stats", "--watch", "--interval", "100ms",
                                   "-o", "json"], stdout=file)
    try:
        wait_until(lambda: len(times()) > 1000, "the first samples")
        wait_until(lambda: not rests(), "its work")
        os.kill(reader.pid, signal.SIGSTOP)
        wait_until(rests, "the end of the sampling", timeout=60, interval=0)
        resumed = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 1))
        os.kill(reader.pid, signal.SIGCONT)
        wait_until(lambda: times()[-1] > resumed, "fresh samples")
    finally:
        reader.kill()
        reader.wait()
    told = sorted(set(time[:19] for time in times()))
    assert told[-1] >= resumed


def test_an_end_of_the_daemon_ends_the_stream(daemon, client):
    running(client, "a")
    stream = watch(client, 100)
    next(stream)
    with refused("UNAVAILABLE"):
        daemon.terminate()
        for _ in stream:
            pass
    daemon.wait_end()
    daemon.start()
