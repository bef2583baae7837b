"""Domains that are saved to a file and restored from it: nothing of their memory is lost, and nothing of it is used twice."""
import os
import shutil
import subprocess

import pytest

from harness import guest, images
from harness.client import pb
from harness.daemon import alive, wait_until
from harness.domains import act, create, get, state
from harness.errors import refused
from harness.events import Events

pytestmark = pytest.mark.timeout(600)


def discard(client, name):
    return client.domain.DiscardSavedState(pb.DiscardSavedStateRequest(name=name)).domain


def start_vm(daemon, client, name="vm", **fields):
    """A domain with a disk and no system on it."""
    disk = images.qcow2(daemon.path(name + ".qcow2"))
    create(client, name, driver="qemu", disks=[disk], **fields)
    return act(client, "Start", name).domain


def files(daemon, domain):
    """What of saves there is in a domain's folder."""
    folder = os.path.join(daemon.state_dir, "qemu", domain.uid)
    return sorted(name for name in os.listdir(folder) if "sav" in name or name.startswith("memory")) if os.path.isdir(folder) else []


def test_saved_and_started(daemon, client):
    events = Events(client)
    domain = start_vm(daemon, client)
    saved = act(client, "Save", "vm").domain
    assert saved.status.state == pb.DOMAIN_STATE_SAVED and saved.status.pid == 0
    assert saved.status.saved.managed and os.path.getsize(saved.status.saved.path) == saved.status.saved.size_bytes
    assert not saved.status.saved.paused and not alive(domain.status.pid)
    events.until("DOMAIN_SAVED", "vm")
    again = act(client, "Start", "vm").domain
    assert again.status.state == pb.DOMAIN_STATE_RUNNING and not again.status.HasField("saved")
    events.until("DOMAIN_RESTORED", "vm")
    wait_until(lambda: "memory.used" not in files(daemon, domain), "the end of the file")
    assert not os.path.exists(saved.status.saved.path)
    act(client, "PowerOff", "vm")
    print(events)


def test_a_guest_goes_on(daemon, client):
    """What a guest does and has in its memory is there again; what it has written is on its disk once."""
    disk = images.qcow2(daemon.path("disk.qcow2"))
    with guest.shell(client, "vm", words="guest.net=off", disks=[disk]) as shell:
        shell.run("mkdir -p /ram && mount -t tmpfs none /ram && dd if=/dev/urandom of=/ram/data bs=1M count=8 2>/dev/null")
        before = shell.run("md5sum /ram/data")
        shell.run("(i=0; while :; do i=$((i + 1)); echo $i >/ram/count; sleep 0.05; done) & echo $! >/ram/pid")
        shell.wait_for("test -s /ram/count")
        shell.run("dd if=/ram/data of=/dev/vda bs=1M count=1 conv=fsync 2>/dev/null")
        boot_id = shell.run("cat /proc/sys/kernel/random/boot_id")
        count = int(shell.run("cat /ram/count"))
    first = act(client, "Save", "vm").domain
    assert first.status.state == pb.DOMAIN_STATE_SAVED
    # A daemon that comes anew knows it.
    daemon.kill()
    daemon.start()
    client = daemon.client()
    assert state(client, "vm") == "SAVED" and get(client, "vm").status.saved == first.status.saved
    with guest.Shell(act(client, "Start", "vm").domain) as shell:
        shell.run("stty cols 4000 -echo")
        assert shell.run("cat /proc/sys/kernel/random/boot_id") == boot_id
        assert shell.run("md5sum /ram/data") == before
        assert int(shell.run("cat /ram/count")) >= count
        now = int(shell.run("cat /ram/count"))
        shell.wait_for(f"test $(cat /ram/count) -gt {now}")
        assert shell.run("dd if=/dev/vda bs=1M count=1 2>/dev/null | cmp -n 1048576 - /ram/data && echo same") == "same"
    # To a file, and back, halted.
    act(client, "Pause", "vm")
    path = daemon.path("vm.save")
    assert act(client, "Save", "vm", path=path).domain.status.saved.path == path
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert act(client, "Restore", "vm").domain.status.state == pb.DOMAIN_STATE_PAUSED
    act(client, "Resume", "vm")
    with guest.Shell(get(client, "vm")) as shell:
        assert shell.run("cat /proc/sys/kernel/random/boot_id") == boot_id
        shell.run("echo more | dd of=/dev/vda conv=fsync 2>/dev/null")
    act(client, "PowerOff", "vm")
    # The guest has written to its disk since.
    with refused("FAILED_PRECONDITION", "DISK_CHANGED") as refusal:
        act(client, "Restore", "vm", path=path)
    assert refusal.error.metadata["path"] == disk and state(client, "vm") == "SHUTOFF" and os.path.exists(path)


def test_what_is_refused(make_daemon):
    """Files that are there, folders that are none, disks that have changed, files of every kind that are none of ours."""
    daemon = make_daemon()
    for folder in ("images", "outside"):
        os.mkdir(daemon.path(folder))
    daemon.config = f"[images]\nroots={daemon.path('images')}\n"
    client = daemon.start().client()
    disk = images.qcow2(daemon.path("images/vm.qcow2"))
    create(client, "vm", driver="qemu", disks=[disk])
    with refused("FAILED_PRECONDITION", "WRONG_STATE"):
        act(client, "Save", "vm")
    with refused("FAILED_PRECONDITION", "NOT_SAVED"):
        act(client, "Restore", "vm")
    act(client, "Start", "vm")
    path = daemon.path("images/vm.save")
    # Where it may not go; the domain runs on.
    for wrong, reason in ((daemon.path("outside/vm.save"), "SAVE_FILE_REFUSED"), (daemon.path("images/none/vm.save"), "SAVE_FILE_REFUSED"),
                          ("/proc/vm.save", "SAVE_FILE_REFUSED")):
        with refused("FAILED_PRECONDITION", reason) as refusal:
            act(client, "Save", "vm", path=wrong)
        assert wrong in refusal.error.message
    with refused("ALREADY_EXISTS", "SAVE_FILE_EXISTS"):
        act(client, "Save", "vm", path=disk)
    # Another file is in the place of the disk.
    os.rename(disk, disk + ".moved")
    images.qcow2(disk)
    with refused("FAILED_PRECONDITION", "DISK_REPLACED"):
        act(client, "Save", "vm")
    os.rename(disk + ".moved", disk)
    assert state(client, "vm") == "RUNNING"
    assert os.listdir(daemon.path("images")) == ["vm.qcow2"] and os.listdir(daemon.path("outside")) == []

    saved = act(client, "Save", "vm", path=path).domain
    assert saved.status.state == pb.DOMAIN_STATE_SAVED and not saved.status.saved.managed
    # The file, damaged in every way.
    with open(path, "rb") as file:
        good = file.read()
    assert len(good) == saved.status.saved.size_bytes
    offset = int.from_bytes(good[16:24], "little")
    bad = {
        "SAVE_FILE_UNKNOWN": [b"", b"x" * 100, good[1:], b"QEVM" + good[4:]],
        "SAVE_FILE_TRUNCATED": [good[:40], good[:200], good[:-1], good[:offset]],
        "SAVE_FILE_VERSION": [good[:8] + b"\x02\0\0\0" + good[12:]],
        "SAVE_FILE_DAMAGED": [good[:12] + b"\xff\xff\xff\x7f" + good[16:], good[:16] + bytes(8) + good[24:], good[:24] + b"\xff" * 8 + good[32:]],
        "SAVE_FILE_FOREIGN": [good[:32] + bytes(32) + good[64:], good[:70] + bytes([good[70] ^ 1]) + good[71:]],
    }
    other = daemon.path("images/bad.save")
    for reason, contents in bad.items():
        for content in contents:
            with open(other, "wb") as file:
                file.write(content)
            os.chmod(other, 0o600)
            with refused("FAILED_PRECONDITION", reason) as refusal:
                act(client, "Restore", "vm", path=other)
            assert other in refusal.error.message and state(client, "vm") == "SAVED"
    os.chmod(other, 0o666)
    with refused("FAILED_PRECONDITION", "SAVE_FILE_REFUSED"):
        act(client, "Restore", "vm", path=other)
    os.unlink(other)
    with refused("NOT_FOUND", "SAVE_FILE_MISSING"):
        act(client, "Restore", "vm", path=other)
    # Of another domain.
    create(client, "other", driver="qemu", disks=[images.qcow2(daemon.path("images/other.qcow2"))])
    with refused("FAILED_PRECONDITION", "SAVE_FILE_OF_ANOTHER"):
        act(client, "Restore", "other", path=path)
    assert state(client, "other") == "SHUTOFF"
    # The disk was written to, by whatever; and the time put back is what it was.
    times = os.stat(disk)
    os.utime(disk)
    with refused("FAILED_PRECONDITION", "DISK_CHANGED") as refusal:
        act(client, "Start", "vm")
    assert refusal.error.metadata["path"] == disk and refusal.error.metadata["disk"] == "vda"
    os.utime(disk, ns=(times.st_atime_ns, times.st_mtime_ns))
    # It may have another name by now.
    os.rename(path, other)
    with refused("NOT_FOUND", "SAVE_FILE_MISSING"):
        act(client, "Start", "vm")
    assert act(client, "Restore", "vm", path=other).domain.status.state == pb.DOMAIN_STATE_RUNNING
    assert os.path.exists(other)
    act(client, "PowerOff", "vm")


def test_what_is_saved_is_given_up_by_its_own_words_alone(daemon, client):
    domain = start_vm(daemon, client)
    act(client, "Save", "vm", paused=True)
    assert get(client, "vm").status.saved.paused
    assert act(client, "PowerOff", "vm").domain.status.state == pb.DOMAIN_STATE_SAVED
    for verb in ("Pause", "Resume", "Reset", "Shutdown", "Save"):
        with refused("FAILED_PRECONDITION", "WRONG_STATE"):
            act(client, verb, "vm")
    with refused("FAILED_PRECONDITION", "DOMAIN_SAVED"):
        client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))
    with refused("FAILED_PRECONDITION", "SAVED_ELSEWHERE"):
        act(client, "Restore", "vm", path=daemon.path("other.save"))
    # The stored spec may change; what was saved comes back as it was.
    client.domain.UpdateDomain(pb.UpdateDomainRequest(domain=pb.Domain(name="vm", spec=pb.DomainSpec(vcpus=2)), update_mask={"paths": ["spec.vcpus"]}))
    back = act(client, "Start", "vm").domain
    assert back.status.state == pb.DOMAIN_STATE_PAUSED and back.spec.vcpus == 2 and back.status.live_spec.vcpus == 1
    act(client, "Save", "vm")
    assert discard(client, "vm").status.state == pb.DOMAIN_STATE_SHUTOFF
    assert discard(client, "vm").status.state == pb.DOMAIN_STATE_SHUTOFF
    assert files(daemon, domain) == []
    act(client, "Start", "vm")
    act(client, "Save", "vm")
    booted = act(client, "Start", "vm", discard_saved=True).domain
    assert booted.status.state == pb.DOMAIN_STATE_RUNNING and not booted.status.HasField("live_spec") and files(daemon, domain) == []
    act(client, "Save", "vm")
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm", discard_saved=True))
    assert files(daemon, domain) == []


def test_what_cannot_be_saved(daemon, client):
    os.mkdir(daemon.path("shared"))
    folders = [pb.SharedFolder(tag="shared", path=daemon.path("shared"))]
    cpu = pb.Cpu(model="max", features=[pb.CpuFeature(name="invtsc")])
    create(client, "vm", driver="qemu", accelerator=pb.ACCELERATOR_TCG, shared_folders=folders, cpu=cpu)
    act(client, "Start", "vm")
    with refused("FAILED_PRECONDITION", "CANNOT_BE_SAVED") as refusal:
        act(client, "Save", "vm")
    assert set(refusal.error.violations) == {"domain.spec.shared_folders[0]", "domain.spec.cpu.features[0]"}, refusal.error
    assert state(client, "vm") == "RUNNING"


def test_no_room_on_the_disk(make_daemon):
    """The file does not fit: the guest goes on, and nothing of it is left."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a file system of its own")
    daemon = make_daemon().start()
    client = daemon.client()
    start_vm(daemon, client)
    small = daemon.path("small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", small], check=True)
    try:
        with refused("RESOURCE_EXHAUSTED", "SAVE_NO_SPACE") as refusal:
            act(client, "Save", "vm", path=small + "/vm.save")
        assert small + "/vm.save" in refusal.error.message
        wait_until(lambda: state(client, "vm") == "RUNNING", "the domain to go on")
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", "-l", small], check=True)
    assert act(client, "Save", "vm").domain.status.state == pb.DOMAIN_STATE_SAVED


def test_the_test_driver(daemon, client):
    """The same in memory, with its faults."""
    events = Events(client)
    create(client, "vm", labels={"test.fault.restore": "fail:UNAVAILABLE:not now"})
    act(client, "Start", "vm")
    saved = act(client, "Save", "vm", path="/somewhere/vm.save").domain.status
    assert saved.state == pb.DOMAIN_STATE_SAVED and saved.saved.path == "/somewhere/vm.save"
    with refused("UNAVAILABLE", "INJECTED"):
        act(client, "Restore", "vm")
    assert state(client, "vm") == "SAVED"
    assert act(client, "Start", "vm", paused=True).domain.status.state == pb.DOMAIN_STATE_PAUSED
    events.until("DOMAIN_RESTORED", "vm")
    act(client, "Save", "vm")
    assert discard(client, "vm").status.state == pb.DOMAIN_STATE_SHUTOFF
    events.until("DOMAIN_SAVED_STATE_DISCARDED", "vm")
    with refused("FAILED_PRECONDITION", "NOT_SAVED"):
        create(client, "other")
        act(client, "Restore", "other")


def test_all_kinds_of_devices(daemon, client):
    """UEFI's variables, a TPM, cd-rom drives, limits, ports, screens, a vhost-vsock: QEMU takes back what it has put into the file."""
    for program in ("swtpm", "qemu-system-x86_64"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    disks = [pb.Disk(target="vda", path=images.qcow2(daemon.path("a.qcow2")), format=pb.IMAGE_FORMAT_QCOW2,
                     throttle=pb.Throttle(total_bytes_per_second=1 << 20)),
             pb.Disk(target="sda", path=images.qcow2(daemon.path("b.qcow2")), format=pb.IMAGE_FORMAT_QCOW2, bus=pb.DISK_BUS_SCSI),
             pb.Disk(target="sdb", device=pb.DISK_DEVICE_CDROM, bus=pb.DISK_BUS_SATA)]
    create(client, "vm", driver="qemu", accelerator=pb.ACCELERATOR_TCG, memory_mib=128, vcpus=2, disks=disks,
           firmware=pb.Firmware(type=pb.FIRMWARE_TYPE_UEFI), tpm=pb.TPM_MODEL_TIS,
           interfaces=[pb.Interface(type=pb.INTERFACE_TYPE_USER), pb.Interface(type=pb.INTERFACE_TYPE_NONE, model=pb.INTERFACE_MODEL_E1000)],
           graphics=[pb.GRAPHICS_TYPE_VNC], rng=pb.Rng(), watchdog=pb.Watchdog(), guest_agent=True, iothreads=1, hotplug_slots=2,
           usb_devices=[pb.USB_DEVICE_TABLET], cpu=pb.Cpu(max_vcpus=4))
    act(client, "Start", "vm")
    for _ in range(2):
        saved = act(client, "Save", "vm").domain
        assert saved.status.state == pb.DOMAIN_STATE_SAVED
        back = act(client, "Start", "vm").domain
        assert back.status.state == pb.DOMAIN_STATE_RUNNING and not back.status.HasField("live_spec"), back.status
        assert [disk.target for disk in back.status.disks] == ["vda", "sda"] and len(back.status.endpoints) >= 2
    # UEFI's variables are part of what must not change.
    saved = act(client, "Save", "vm").domain
    os.utime(os.path.join(os.path.dirname(saved.status.saved.path), "variables.fd"))
    with refused("FAILED_PRECONDITION", "DISK_CHANGED") as refusal:
        act(client, "Start", "vm")
    assert refusal.error.metadata["disk"] == "firmware"


def test_a_disk_that_another_has_open(daemon, client):
    """QEMU takes the memory, but not the disk: nothing has run, and it is saved as before."""
    domain = start_vm(daemon, client)
    path = act(client, "Save", "vm").domain.status.saved.path
    disk = daemon.path("vm.qcow2")
    create(client, "other", driver="qemu", disks=[disk])
    times = os.stat(disk)
    act(client, "Start", "other")
    os.utime(disk, ns=(times.st_atime_ns, times.st_mtime_ns))
    with refused("FAILED_PRECONDITION") as refusal:
        act(client, "Start", "vm")
    assert "lock" in refusal.error.message, refusal.error
    assert state(client, "vm") == "SAVED" and os.path.exists(path) and files(daemon, domain) == ["memory.save"]
    act(client, "PowerOff", "other")
    os.utime(disk, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert act(client, "Start", "vm").domain.status.state == pb.DOMAIN_STATE_RUNNING


@pytest.mark.parametrize("path", ["", "vm.save"], ids=["kept", "file"])
def test_a_restored_domain_is_taken_up(daemon, client, path):
    """Once it runs its file is nothing to a later daemon, whether it is still there or not."""
    start_vm(daemon, client)
    act(client, "Save", "vm", path=path and daemon.path(path))
    pid = act(client, "Start", "vm").domain.status.pid
    for _ in range(2):
        daemon.kill()
        client = daemon.start().client()
        wait_until(lambda: state(client, "vm") == "RUNNING", "the adoption")
        assert get(client, "vm").status.pid == pid and alive(pid) and not get(client, "vm").status.HasField("saved")
    assert os.path.exists(daemon.path("vm.save")) == bool(path)
