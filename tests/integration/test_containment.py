"""QEMU is kept apart: from outside, as the kernel tells; from inside, by a program in its place that tries to get out."""
import os
import re
import shutil
import socket
import subprocess

import pytest

from harness import images
from harness.client import TOP, pb
from harness.daemon import alive, program, wait_until
from harness.domains import act, create, get
from harness.errors import refused
from test_images import nbd_server
from test_live_changes import STORED, attach

PROBE = os.path.join(TOP, "tests/integration/probe/probe.c")
RANGE = range(2000000000, 2001048576)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="users are changed by root alone")


def status(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def own_namespaces(pid):
    return {name for name in ("mnt", "net", "ipc", "uts", "pid", "user")
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")}


def descriptors(pid):
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError:
            continue
    return found


def processes_of(uid):
    """{pid: name} of all that run as this user."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            told = status(pid)
        except OSError:
            continue
        if told["Uid"].split()[0] == str(uid) and told["State"][0] != "Z":
            found[int(pid)] = told["Name"]
    return found


def check_contained(pid, uid):
    told = status(pid)
    assert told["Uid"].split() == [str(uid)] * 4 and told["Gid"].split() == [str(uid)] * 4 and not told["Groups"].split(), told
    assert all(int(told[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")), told
    assert told["NoNewPrivs"] == "1" and told["Seccomp"] == "2", told
    assert {"mnt", "ipc", "uts"} <= own_namespaces(pid)
    with open(f"/proc/{pid}/environ", encoding="utf-8") as file:
        assert re.fullmatch(r"PATH=[^\0]*\0", file.read())


def domain_folder(daemon, domain):
    return os.path.join(daemon.state_dir, "qemu", domain.uid)


# ---- from outside ----

@needs_root
def test_two_domains(make_daemon):
    """Each has a user, a root folder and a network of its own, and what it needs of the host as descriptors."""
    daemon = make_daemon().start()
    client = daemon.client()
    domains = []
    for name in ("one", "two"):
        create(client, name, driver="qemu", disks=[images.qcow2(daemon.path(name + ".qcow2"))])
        domains.append(act(client, "Start", name, timeout_seconds=60).domain)
    users = [domain.status.containment.uid for domain in domains]
    assert len(set(users)) == 2 and all(user in RANGE for user in users)
    for domain, other in zip(domains, reversed(domains)):
        pid, told = domain.status.pid, domain.status.containment
        check_contained(pid, told.uid)
        assert own_namespaces(pid) == {"mnt", "net", "ipc", "uts"} == set(told.namespaces)
        assert told.own_root and told.seccomp and told.no_new_privileges and told.capabilities == 0 and told.gid == told.uid
        assert sorted(os.listdir(f"/proc/{pid}/root")) == sorted(
            {"usr", "dev", "etc"} | {name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32") if os.path.lexists("/" + name)})
        assert not set(os.listdir(f"/proc/{pid}/root/etc")) - {"ld.so.cache", "localtime"}
        for path in descriptors(pid):
            assert not os.path.isdir(path) and other.uid not in path and "store" not in path and "/qmp" not in path, path
            if path.startswith(daemon.folder):
                assert path.startswith(domain_folder(daemon, domain)) or path == daemon.path(domain.name + ".qcow2"), path
        # The user of one has no power over the other.
        as_user = ["setpriv", "--reuid", str(told.uid), "--regid", str(told.uid), "--clear-groups"]
        for command in (["kill", "-0", str(other.status.pid)], ["ls", domain_folder(daemon, other)], ["ls", daemon.state_dir],
                        ["cat", f"/proc/{other.status.pid}/environ"], ["ls", f"/proc/{other.status.pid}/fd"]):
            assert subprocess.run([*as_user, *command], check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE).returncode != 0, command
    # What runs is taken up, its containment with it, and ends as ever. A domain keeps its user.
    daemon.restart()
    client = daemon.client()
    for domain in domains:
        assert get(client, domain.name).status.containment.uid == domain.status.containment.uid
        act(client, "PowerOff", domain.name)
        assert not get(client, domain.name).status.HasField("containment")
        wait_until(lambda user=domain.status.containment.uid: not processes_of(user), "the end of all that ran as the user")
    assert act(client, "Start", "two", timeout_seconds=60).domain.status.containment.uid == users[1]
    act(client, "PowerOff", "two")


@needs_root
def test_what_serves_a_domain(make_daemon):
    """Firmware, TPM, screens, a shared folder, passt: all of it runs as the domain's user, but for virtiofsd, which serves files of all users."""
    daemon = make_daemon().start()
    client = daemon.client()
    for name in ("swtpm", "passt"):
        if not shutil.which(name):
            pytest.skip(f"no {name} here")
    shared = daemon.path("shared")
    os.mkdir(shared)
    create(client, "vm", driver="qemu", memory_mib=128, disks=[images.qcow2(daemon.path("vm.qcow2"))],
           firmware=pb.Firmware(type=pb.FIRMWARE_TYPE_UEFI), tpm=pb.TPM_MODEL_TIS, graphics=[pb.GRAPHICS_TYPE_VNC, pb.GRAPHICS_TYPE_SPICE],
           interfaces=[pb.Interface(type=pb.INTERFACE_TYPE_PASST)], shared_folders=[pb.SharedFolder(path=shared, tag="shared")])
    domain = act(client, "Start", "vm", timeout_seconds=60, paused=True).domain
    pid, told = domain.status.pid, domain.status.containment
    check_contained(pid, told.uid)
    assert "net" in own_namespaces(pid)
    helpers = processes_of(told.uid)
    assert {"swtpm", "passt"} <= {re.sub(r"\.avx2$", "", name) for name in helpers.values()}, helpers
    [tpm] = [helper for helper, name in helpers.items() if name == "swtpm"]
    check_contained(tpm, told.uid)
    assert "net" in own_namespaces(tpm) and os.path.exists(f"/proc/{tpm}/root/tpm") and not os.path.exists(f"/proc/{tpm}/root/screen")
    for path in descriptors(pid):
        assert not os.path.isdir(path) and path != shared, path
    # The sockets of screens are where the domain says, made by QEMU in the one folder that it may write to.
    for endpoint in domain.status.endpoints:
        with socket.socket(socket.AF_UNIX) as peer:
            folder = os.open(os.path.dirname(endpoint.socket_path), os.O_PATH)
            try:
                peer.connect(f"/proc/self/fd/{folder}/{os.path.basename(endpoint.socket_path)}")
            finally:
                os.close(folder)
    owned = {name for name in os.listdir(domain_folder(daemon, domain)) if os.stat(os.path.join(domain_folder(daemon, domain), name)).st_uid != 0}
    assert owned == {"tpm", "screen"}
    act(client, "PowerOff", "vm")
    wait_until(lambda: not processes_of(told.uid), "the end of all that ran as the user")
    assert not os.listdir(os.path.join(domain_folder(daemon, domain), "screen"))
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))
    wait_until(lambda: not os.path.exists(domain_folder(daemon, domain)), "the end of the folder")


@needs_root
def test_files_that_others_may_not_read(make_daemon):
    """A kernel that is root's alone is loaded all the same: QEMU opens it by its descriptor, or has a copy."""
    daemon = make_daemon().start()
    client = daemon.client()
    for name, mode in (("open", 0o644), ("closed", 0o600)):
        kernel = daemon.path(name)
        with open(kernel, "wb") as file:
            file.write(b"no kernel " * 1000)
        os.chmod(kernel, mode)
        create(client, name, driver="qemu", kernel=pb.KernelBoot(kernel_path=kernel))
        with refused("FAILED_PRECONDITION", "QEMU_EXITED") as refusal:
            act(client, "Start", name, timeout_seconds=60)
        # It was read, and is none.
        assert "could not open" not in refusal.error.message and "ermission" not in refusal.error.message, refusal.error.message


def test_user_networking_keeps_the_network(daemon, client):
    """QEMU's own NAT is in QEMU: it has the host's network, and all else of its own."""
    create(client, "vm", driver="qemu", interfaces=[pb.Interface(type=pb.INTERFACE_TYPE_USER)])
    domain = act(client, "Start", "vm", timeout_seconds=60).domain
    assert "net" not in own_namespaces(domain.status.pid) and "mnt" in own_namespaces(domain.status.pid)
    assert os.path.exists(f"/proc/{domain.status.pid}/root/etc/resolv.conf") == os.path.exists("/etc/resolv.conf")
    act(client, "PowerOff", "vm")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def answers_on(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_what_a_contained_qemu_cannot_be_given_live(make_daemon):
    """What it had no use for at its start is refused before anything is done, with what to do; a cause that is not there is none."""
    daemon = make_daemon(config="[images]\nprotocols=nbd\n")
    client = daemon.start().client()
    base = images.raw(daemon.path("base.raw"))
    paths = {name: daemon.path(name + ".qcow2") for name in ("tcp", "unix")}
    where = {"tcp": ["-b", "127.0.0.1", "-p", str(free_port())], "unix": ["-k", daemon.path("nbd.sock")]}
    images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", f"nbd://127.0.0.1:{where['tcp'][3]}/the%20disk", paths["tcp"], "1M")
    images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", f"nbd+unix:///the%20disk?socket={where['unix'][1]}", paths["unix"], "1M")
    disks = {name: pb.Disk(target="vdb", path=path, format=pb.IMAGE_FORMAT_QCOW2) for name, path in paths.items()}
    user = pb.Interface(type=pb.INTERFACE_TYPE_USER, mac="52:54:00:00:00:09")
    with nbd_server(daemon, base, *where["tcp"]), nbd_server(daemon, base, *where["unix"]):
        wait_until(lambda: os.path.exists(where["unix"][1]) and answers_on(int(where["tcp"][3])), "the NBD servers")
        create(client, "vm", driver="qemu")
        domain = act(client, "Start", "vm", timeout_seconds=60).domain
        assert "net" in domain.status.containment.namespaces and domain.status.containment.own_root
        for field, device in (("interfaces[0].type", dict(interface=user)), ("disks[0].path", dict(disk=disks["tcp"])),
                              ("disks[0].path", dict(disk=disks["unix"]))):
            with refused("FAILED_PRECONDITION", "DOMAIN_RUNNING") as refusal:
                attach(client, "vm", **device)
            assert list(refusal.error.violations) == ["domain.spec." + field]
            assert "CHANGE_SCOPE_STORED" in refusal.error.message and "the QEMU that runs" in refusal.error.message, refusal.error
        # It is said beforehand as well.
        with refused("FAILED_PRECONDITION", "DOMAIN_RUNNING"):
            attach(client, "vm", interface=user, validate_only=True)
        after = get(client, "vm")
        assert after.spec == domain.spec and not after.status.HasField("live_spec")
        # The remedy.
        attach(client, "vm", interface=user, scope=STORED)
        attach(client, "vm", disk=disks["tcp"], scope=STORED)
        act(client, "PowerOff", "vm")
        act(client, "Start", "vm", timeout_seconds=60)
        # With the network there from the start both come.
        assert "net" not in own_namespaces(get(client, "vm").status.pid)
        attach(client, "vm", interface=pb.Interface(type=pb.INTERFACE_TYPE_USER))
        more = pb.Disk.FromString(disks["tcp"].SerializeToString())
        more.target, more.path = "vdc", daemon.path("more.qcow2")
        images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", f"nbd://127.0.0.1:{where['tcp'][3]}/the%20disk", more.path, "1M")
        attach(client, "vm", disk=more)
        act(client, "PowerOff", "vm")


# ---- from inside ----

def listen_for_nobody(family, address):
    server = socket.socket(family)
    server.bind(address)
    server.listen()
    return server


@needs_root
def test_a_program_that_tries_to_get_out(make_daemon):
    daemon = make_daemon()
    daemon.start()
    client = daemon.client()
    create(client, "other", driver="qemu", disks=[images.qcow2(daemon.path("other.qcow2"))])
    other = act(client, "Start", "other", timeout_seconds=60).domain
    daemon.stop()
    abstract = f"virtplane-test-{os.getpid()}"
    binary = daemon.path("probe")
    with listen_for_nobody(socket.AF_INET, ("127.0.0.1", 0)) as tcp, listen_for_nobody(socket.AF_UNIX, "\0" + abstract):
        names = {"STATE": f'"{daemon.state_dir}"', "SOCKET": f'"{daemon.socket}"', "OTHER": f'"{domain_folder(daemon, other)}/qemu.log"',
                 "PORT": tcp.getsockname()[1], "ABSTRACT": f'"{abstract}"', "DAEMON": other.status.pid}
        subprocess.run(["cc", "-D_GNU_SOURCE", "-static", "-O1", "-o", binary, PROBE, *(f"-D{name}={value}" for name, value in names.items())], check=True)
        daemon.config = f"[qemu]\nbinary={binary}\naccelerator=tcg\n"
        daemon.start()
        client = daemon.client()
        domain = create(client, "vm", driver="qemu", disks=[images.qcow2(daemon.path("vm.qcow2"))])
        with refused("FAILED_PRECONDITION", "QEMU_EXITED"):
            act(client, "Start", "vm", timeout_seconds=60)
    with open(os.path.join(domain_folder(daemon, domain), "qemu.log"), encoding="utf-8") as file:
        lines = file.read().splitlines()
    assert lines[-1] == "end", lines
    tries = [line.rsplit(" ", 1) for line in lines if not line.startswith("descriptor ") and line != "end"]
    assert len(tries) >= 40
    allowed = [what for what, result in tries if result == "ok"]
    assert not allowed, allowed
    results = dict(tries)
    assert results["read /etc/shadow"] == "ENOENT" and results["connect abstract"] == "ECONNREFUSED" and results["make /made"] == "EROFS", results
    # What it has open: its disk, sockets of its own, its log.
    own = domain_folder(daemon, domain)
    for line in lines:
        if line.startswith("descriptor "):
            target = line.split(" ", 2)[2]
            assert target in ("/dev/null", daemon.path("vm.qcow2")) or target.startswith(("socket:", own)), line
    act(client, "PowerOff", "other")


# ---- the daemon itself ----

KEPT = ("chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap net_admin net_bind_service sys_admin sys_nice mknod setfcap sys_ptrace "
        "sys_resource")


@needs_root
def test_the_daemon_gives_up_what_it_does_not_need(make_daemon):
    daemon = make_daemon().start()
    kept = subprocess.run(["capsh", f"--decode={status(daemon.process.pid)['CapBnd']}"], check=True, stdout=subprocess.PIPE, text=True).stdout
    names = {name.removeprefix("cap_") for name in kept.strip().split("=", 1)[1].split(",")}
    assert "sys_admin" in names and names <= set(KEPT.split()), names
    threads = [status(f"{daemon.process.pid}/task/{thread}") for thread in os.listdir(f"/proc/{daemon.process.pid}/task")]
    assert len(threads) > 3
    for told in threads:
        assert told["CapBnd"] == told["CapEff"] == told["CapPrm"] == threads[0]["CapBnd"] and int(told["CapInh"], 16) == 0
        assert told["NoNewPrivs"] == "1" and told["Seccomp"] == "2"
    # It is the daemon's own doing, and can be left out to look for a fault.
    plain = make_daemon(config="[daemon]\nsandbox=false\n").start()
    assert status(plain.process.pid)["Seccomp"] == "0" and status(plain.process.pid)["CapBnd"] == status("self")["CapBnd"]
    code, said = make_daemon(config="[daemon]\nsandbox=perhaps\n").try_start()
    assert code == 1 and "sandbox" in said


def test_the_lists_agree():
    """What the daemon keeps, what the unit leaves it, and what the page says."""
    with open(os.path.join(TOP, "server/sandbox.c"), encoding="utf-8") as file:
        code = set(re.findall(r"CAP_\w+", re.search(r"kept\[\] = \{(.*?)\};", file.read(), flags=re.S).group(1)))
    with open(os.path.join(TOP, "packaging/systemd/virtplaned.service"), encoding="utf-8") as file:
        unit = set(re.search(r"^CapabilityBoundingSet=(.*)$", file.read(), flags=re.M).group(1).split())
    with open(os.path.join(TOP, "docs/containment.md"), encoding="utf-8") as file:
        page = set(re.findall(r"`(CAP_\w+)`", file.read()))
    assert code == unit == page == {"CAP_" + name.upper() for name in KEPT.split()}


def test_how_exposed_the_unit_is(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    unit = tmp_path / "virtplaned.service"
    shutil.copy(os.path.join(TOP, "packaging/systemd/virtplaned.service"), unit)
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=60", "--no-pager", str(unit)], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


# ---- AppArmor ----

def test_the_profile_is_well_formed():
    """By AppArmor's own compiler, without the kernel's part: the name is that which the daemon asks for, and nothing in it gives a capability or an exec."""
    if not shutil.which("apparmor_parser"):
        pytest.skip("no apparmor_parser here")
    profile = os.path.join(TOP, "packaging/apparmor/virtplane-qemu")
    for arguments in ([], ["--names"]):
        done = subprocess.run(["apparmor_parser", "--skip-kernel-load", "--skip-cache", *arguments, profile], check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    with open(os.path.join(TOP, "drivers/qemu/contain.c"), encoding="utf-8") as file:
        assert f'#define PROFILE "{done.stdout.strip()}"' in file.read()
    with open(profile, encoding="utf-8") as file:
        rules = [line.split("#")[0].strip() for line in file if line.strip() and not line.lstrip().startswith("#")]
    assert not [rule for rule in rules if re.match(r"(capability|mount|pivot_root|change_profile)\b", rule) or re.search(r" \w*x\w*,$", rule)]


@needs_root
def test_a_host_without_apparmor_is_told(daemon, client):
    enabled = "/sys/module/apparmor/parameters/enabled"
    if os.path.exists(enabled):
        pytest.skip("this host has AppArmor")
    create(client, "vm", driver="qemu")
    missing = list(act(client, "Start", "vm", timeout_seconds=60).domain.status.containment.missing)
    assert missing == ["an AppArmor profile: this host has no AppArmor"]
    [driver] = [driver for driver in client.host.GetCapabilities(pb.GetCapabilitiesRequest()).drivers if driver.name == "qemu"]
    assert list(driver.containment_missing) == missing
    act(client, "PowerOff", "vm")


# ---- what the settings say ----

def test_settings_of_containment(make_daemon):
    for line, words in (("containment=maybe", "best-effort, require or off"), ("uid_range=5-10", "from 1000"), ("uid_range=9000-8000", "FIRST-LAST"),
                        ("user=no-such-user-here", "no such user"), ("paths=relative", "no absolute path")):
        code, said = make_daemon(config=f"[qemu]\n{line}\n").try_start()
        assert code == 1 and words in said, said


@needs_root
def test_required_containment(make_daemon):
    """What a host lacks is told, and refused where the settings say so: here a host that makes no namespaces."""
    forbid = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    client = make_daemon(config="[qemu]\ncontainment=require\n", prefix=forbid).start().client()
    create(client, "vm", driver="qemu")
    [driver] = [driver for driver in client.host.GetCapabilities(pb.GetCapabilitiesRequest()).drivers if driver.name == "qemu"]
    assert any("root folder" in missing for missing in driver.containment_missing)
    with refused("FAILED_PRECONDITION", "CONTAINMENT") as refusal:
        act(client, "Start", "vm")
    assert "root folder" in refusal.error.message
    # Without, it starts, with what there is.
    client = make_daemon(config="[qemu]\naccelerator=tcg\n", prefix=forbid).start().client()
    create(client, "vm", driver="qemu", graphics=[pb.GRAPHICS_TYPE_VNC], tpm=pb.TPM_MODEL_TIS if shutil.which("swtpm") else 0)
    told = act(client, "Start", "vm", timeout_seconds=60).domain.status
    assert told.containment.uid in RANGE and told.containment.seccomp and not told.containment.own_root and not told.containment.capabilities
    assert any("root folder" in missing for missing in told.containment.missing)
    assert status(told.pid)["Uid"].split() == [str(told.containment.uid)] * 4
    act(client, "PowerOff", "vm")


@needs_root
def test_one_user_and_none(make_daemon):
    for line, uid in (("user=12345", 12345), ("user=root", 0), ("containment=off", 0), ("uid_range=3000-3000", 3000)):
        client = make_daemon(config=f"[qemu]\n{line}\n").start().client()
        create(client, "vm", driver="qemu")
        told = act(client, "Start", "vm", timeout_seconds=60).domain.status
        assert told.containment.uid == uid and int(status(told.pid)["Uid"].split()[0]) == uid
        assert told.containment.own_root == (line != "containment=off") == (told.containment.capabilities == 0)
        assert told.containment.no_new_privileges
        if line.startswith("uid_range"):
            create(client, "second", driver="qemu")
            with refused("RESOURCE_EXHAUSTED", "NO_USER_LEFT"):
                act(client, "Start", "second")
            act(client, "PowerOff", "vm")
            client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))
            act(client, "Start", "second", timeout_seconds=60)
            act(client, "PowerOff", "second")
        else:
            act(client, "PowerOff", "vm")


@needs_root
def test_an_unprivileged_daemon(make_daemon, monkeypatch):
    """QEMU runs as the daemon's user, in a user namespace where the host allows them: two domains do not see each other."""
    user = 54321
    daemon = make_daemon(prefix=["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"], config="[qemu]\naccelerator=tcg\n")
    binary = daemon.path("virtplaned")
    shutil.copy(program("VIRTPLANED", "server/virtplaned"), binary)
    os.chmod(binary, 0o755)
    monkeypatch.setenv("VIRTPLANED", binary)
    disk = images.qcow2(daemon.path("vm.qcow2"))
    for path in (daemon.folder, daemon.state_dir, disk):
        os.chown(path, user, user)
    client = daemon.start().client()
    create(client, "vm", driver="qemu", disks=[disk], graphics=[pb.GRAPHICS_TYPE_VNC])
    domain = act(client, "Start", "vm", timeout_seconds=60).domain
    pid, told = domain.status.pid, domain.status.containment
    assert told.uid == user and status(pid)["Uid"].split() == [str(user)] * 4
    assert told.no_new_privileges and told.seccomp
    if told.own_root:
        check_contained(pid, user)
        assert {"user", "mnt", "net"} <= set(told.namespaces)
        assert "tmp" not in os.listdir(f"/proc/{pid}/root")
    daemon.restart()
    assert get(daemon.client(), "vm").status.containment.uid == user
    act(daemon.client(), "PowerOff", "vm")
    wait_until(lambda: not alive(pid), "the end of QEMU")
