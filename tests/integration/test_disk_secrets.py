"""Encrypted images: QEMU gets the passphrase from a secret, the guest reads what is in them, and the passphrase is nowhere else."""
import json
import os
import re
import subprocess

import pytest

from harness import guest
from harness.client import Client, pb
from harness.domains import act, create, get
from harness.errors import refused

PASSPHRASE = b"tr0ub4dor & three"
MIB = 1 << 20


def luks(path, text, fmt="luks", size_mib=4, passphrase=PASSPHRASE, backing=None):
    """An encrypted image with a text at its beginning."""
    secret = ["--object", f"secret,id=s,data={passphrase.decode()}"]
    options = ["-o", ("key-secret=s,iter-time=10" if fmt == "luks" else "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10")]
    backed = ["-F", "qcow2", "-u", "-b", backing] if backing else []
    create_image = ["qemu-img", "create", "-q", *secret, "-f", fmt, *options, *backed, path, f"{size_mib}M"]
    # It measures how fast it is, which some clocks are too coarse for now and then.
    while b"accurate CPU usage" in subprocess.run(create_image, check=False, stderr=subprocess.PIPE).stderr:
        pass
    if text:
        source = path + ".text"
        with open(source, "wb") as file:
            file.write(text.encode().ljust(512, b"\0"))
        key = "key-secret" if fmt == "luks" else "encrypt.key-secret"
        subprocess.run(["qemu-io", *secret, "--image-opts", f"driver={fmt},{key}=s,file.filename={path}", "-c", f"write -s {source} 0 512"],
                       check=True, stdout=subprocess.DEVNULL)
        os.unlink(source)
    return path


def secret(client, name, value=PASSPHRASE):
    client.secret.CreateSecret(pb.CreateSecretRequest(secret=pb.Secret(name=name, usage=pb.SECRET_USAGE_IMAGE)))
    if value is not None:
        client.secret.SetSecretValue(pb.SetSecretValueRequest(name=name, value=value))


def encrypted(path, fmt, target="vda", **fields):
    return pb.Disk(target=target, path=path, format=fmt, bus=pb.DISK_BUS_VIRTIO, **fields)


def found_in(folder, value):
    done = subprocess.run(["grep", "-rlaF", value.decode(), folder], stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.split()


@pytest.mark.timeout(900)
def test_the_guest_reads_them(daemon, client):
    secret(client, "disk")
    secret(client, "other", b"another one")
    base = luks(daemon.path("base"), "from the base", "qcow2", 6)
    disks = [
        encrypted(luks(daemon.path("a"), "from LUKS"), pb.IMAGE_FORMAT_LUKS, "vda", secret="disk"),
        encrypted(luks(daemon.path("b"), "from qcow2", "qcow2", 5, b"another one"), pb.IMAGE_FORMAT_QCOW2, "vdb", secret="other"),
        encrypted(luks(daemon.path("c"), None, "qcow2", 6, backing=base), pb.IMAGE_FORMAT_QCOW2, "vdc", secret="disk"),
    ]
    with guest.shell(client, "vm", words="guest.net=off", disks=disks) as shell:
        for size, text in ((4, "from LUKS"), (5, "from qcow2"), (6, "from the base")):
            output = shell.wait_for(f"grep -lx {size * 2048} /sys/block/*/size")
            assert shell.run(f"head -c {len(text)} /dev/{output.splitlines()[0].split('/')[3]}") == text
        domain = get(client, "vm")
        for value in (PASSPHRASE, b"another one"):
            with open(f"/proc/{domain.status.pid}/cmdline", "rb") as file:
                assert value not in file.read()
            assert value not in domain.SerializeToString() and not found_in(daemon.folder, value)
        # What QEMU was given has been read, and is not there to be read again.
        with open(f"/proc/{domain.status.pid}/cmdline", "rb") as file:
            objects = [json.loads(word) for word in file.read().split(b"\0") if b'"secret"' in word and word.startswith(b'{"qom-type"')]
        assert len(objects) == 3
        for made in objects:
            fd = os.open(made["file"].replace("self", str(domain.status.pid)), os.O_RDONLY | os.O_NONBLOCK)
            assert os.read(fd, 100) == b""
            os.close(fd)
    act(client, "PowerOff", "vm")


def test_one_that_is_used_is_kept(daemon, client):
    secret(client, "disk")
    create(client, "vm", driver="qemu", disks=[encrypted(luks(daemon.path("a"), None), pb.IMAGE_FORMAT_LUKS, secret="disk")])
    with refused("FAILED_PRECONDITION", "SECRET_IN_USE") as refusal:
        client.secret.DeleteSecret(pb.DeleteSecretRequest(name="disk"))
    assert "the domain vm" in refusal.error.message
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))
    client.secret.DeleteSecret(pb.DeleteSecretRequest(name="disk"))


def test_refusals(daemon, client):
    secret(client, "wrong", b"wrong")
    secret(client, "empty", None)
    qcow2, plain = luks(daemon.path("b"), None, "qcow2"), daemon.path("c")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", plain, "1M"], check=True)
    cases = {
        "none": (encrypted(qcow2, pb.IMAGE_FORMAT_QCOW2), "FAILED_PRECONDITION", "SECRET_REQUIRED"),
        "wrong": (encrypted(qcow2, pb.IMAGE_FORMAT_QCOW2, secret="wrong"), "FAILED_PRECONDITION", "SECRET_WRONG"),
        "absent": (encrypted(qcow2, pb.IMAGE_FORMAT_QCOW2, secret="absent"), "NOT_FOUND", "SECRET_NOT_FOUND"),
        "empty": (encrypted(qcow2, pb.IMAGE_FORMAT_QCOW2, secret="empty"), "FAILED_PRECONDITION", "SECRET_WITHOUT_VALUE"),
        "plain": (encrypted(plain, pb.IMAGE_FORMAT_QCOW2, secret="wrong"), "FAILED_PRECONDITION", "NOT_ENCRYPTED"),
    }
    for name, (disk, code, reason) in cases.items():
        create(client, name, driver="qemu", disks=[disk])
        with refused(code, reason) as refusal:
            act(client, "Start", name)
        if name in ("absent", "empty"):
            assert list(refusal.error.violations) == ["domain.spec.disks[0].secret"], refusal.error
    with refused("INVALID_ARGUMENT", "INVALID_SPEC") as refusal:
        create(client, "raw", driver="qemu", disks=[encrypted(plain, pb.IMAGE_FORMAT_RAW, secret="wrong")])
    assert list(refusal.error.violations) == ["domain.spec.disks[0].secret"]


def test_who_may_use_one(make_daemon):
    """Who may make domains may not use every secret with them."""
    daemon = make_daemon()
    policy = daemon.path("policy.yaml")
    with open(policy, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write("bindings:\n"
                   "- {role: admin, subjects: [anonymous], where: {resources: [domain]}}\n"
                   "- {role: viewer, subjects: [anonymous]}\n"
                   "- {role: admin, subjects: [anonymous], where: {resources: [secret], names: [mine]}}\n")
    daemon.config = f"[daemon]\ninsecure_tcp=true\n[auth]\npolicy={policy}\n"
    daemon.listen += ["127.0.0.1:0"]
    daemon.start()
    root, other = daemon.client(), Client(re.search(r"127\.0\.0\.1:\d+", daemon.ready_line).group())
    for name in ("mine", "theirs"):
        secret(root, name)
    image = luks(daemon.path("a"), None)
    with refused("PERMISSION_DENIED", "SECRET_NOT_ALLOWED"):
        create(other, "vm", driver="qemu", disks=[encrypted(image, pb.IMAGE_FORMAT_LUKS, secret="theirs")])
    domain = create(other, "vm", driver="qemu", disks=[encrypted(image, pb.IMAGE_FORMAT_LUKS, secret="mine")])
    domain.spec.disks[0].secret = "theirs"
    change = pb.UpdateDomainRequest(domain=domain)
    change.update_mask.paths.append("spec.disks")
    with refused("PERMISSION_DENIED", "SECRET_NOT_ALLOWED"):
        other.domain.UpdateDomain(change)
    change.domain.revision = 0
    root.domain.UpdateDomain(change)
    # What the domain has already stays in it.
    change.domain.spec.disks[0].serial = "other"
    other.domain.UpdateDomain(change)
    other.close()
