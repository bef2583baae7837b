"""Images through the daemon: folders, the administrator's policy, and that what was proven is what QEMU opens."""
import contextlib
import json
import os
import shutil
import stat
import subprocess
import threading
import time

import grpc
import pytest

from harness import images
from harness.client import TOP, pb
from harness.daemon import wait_until
from harness.domains import act, create, get
from harness.errors import refused

QCOW2 = pb.IMAGE_FORMAT_QCOW2


def inspect_path(client, path, timeout=120, **fields):
    """(images by path, shared bases by path, summary, number of messages)."""
    found, shared, summary, count = {}, {}, None, 0
    for message in client.image.InspectPath(pb.InspectPathRequest(path=path, **fields), timeout=timeout):
        assert summary is None, "a message after the summary"
        count += 1
        for image in message.images:
            assert image.path not in found
            found[image.path] = image
        shared.update({os.path.normpath(base.path): base.overlays for base in message.shared_bases})
        summary = message.summary if message.HasField("summary") else None
    assert summary is not None
    return found, shared, summary, count


def codes(findings):
    return [pb.FindingCode.Name(finding.code)[len("FINDING_CODE_"):] for finding in findings]


def inspect(client, path, **fields):
    messages = list(client.image.InspectChain(pb.InspectChainRequest(path=path, **fields), timeout=120))
    return ([m.layer for m in messages if m.WhichOneof("payload") == "layer"], [m.finding for m in messages if m.WhichOneof("payload") == "finding"],
            messages[-1].summary)


# ---- folders ----

def test_a_folder(daemon, client):
    folder = daemon.path("images")
    os.makedirs(os.path.join(folder, "sub"))
    images.raw(os.path.join(folder, "base.raw"))
    images.qcow2(os.path.join(folder, "base.qcow2"), backing="base.raw", backing_format="raw")
    for number in range(30):
        images.qcow2(os.path.join(folder, "sub", f"{number}.qcow2"), backing="../base.qcow2")
    with open(os.path.join(folder, "cut.qcow2"), "wb") as file:
        file.write(b"QFI\xfb\0\0\0\3")
    os.mkfifo(os.path.join(folder, "fifo"))
    create(client, "web", disks=[os.path.join(folder, "sub", "7.qcow2")])

    found, shared, summary, _ = inspect_path(client, folder, format=QCOW2)
    assert summary.images == len(found) == 34 and summary.safe == 32 and summary.unsafe == 2
    assert shared == {os.path.join(folder, "base.qcow2"): 30} and summary.shared_bases == 1
    told = [os.path.normpath(layer.path) for image in found.values() for layer in image.layers]
    assert told.count(os.path.join(folder, "base.qcow2")) == 1
    assert all(found[os.path.join(folder, "sub", f"{number}.qcow2")].summary.depth == 3 for number in range(30))
    assert list(found[os.path.join(folder, "sub", "7.qcow2")].domains) == ["web"]
    assert "TRUNCATED" in codes(found[os.path.join(folder, "cut.qcow2")].findings)
    assert "NOT_REGULAR_FILE" in codes(found[os.path.join(folder, "fifo")].findings)

    # Without a word from the caller only the domain's disk is declared: overlays are refused, each by itself.
    found, _, summary, _ = inspect_path(client, folder)
    assert summary.safe == 2, "the raw base, and the domain's chain"
    assert found[os.path.join(folder, "sub", "7.qcow2")].summary.safe
    assert codes(found[os.path.join(folder, "sub", "8.qcow2")].findings)[-1] == "PROBE_REFUSED_BACKING_FILE"

    with refused("NOT_FOUND"):
        inspect_path(client, folder + "/gone")
    with refused("FAILED_PRECONDITION", "NOT_A_FOLDER"):
        inspect_path(client, os.path.join(folder, "base.raw"))


def test_a_large_folder_streams(daemon, client):
    """The first answer comes before the last file was looked at; who reads slowly or leaves holds nothing up."""
    folder = daemon.path("many")
    os.makedirs(folder)
    for number in range(5000):
        with open(os.path.join(folder, str(number)), "wb"):
            pass
    _, _, summary, count = inspect_path(client, folder)
    assert summary.images == summary.safe == 5000 and count > 10
    slow = client.image.InspectPath(pb.InspectPathRequest(path=folder), timeout=120)
    next(slow)
    time.sleep(0.3)
    assert sum(len(message.images) for message in slow) > 4000
    for _ in range(5):
        left = client.image.InspectPath(pb.InspectPathRequest(path=folder), timeout=120)
        try:
            next(left)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error  # those that were left are still being ended
        left.cancel()
    wait_until(lambda: inspect_or_busy(client, folder), "a place for an inspection")


def inspect_or_busy(client, folder):
    try:
        return inspect_path(client, folder)[2].images == 5000
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
        return False


# ---- the policy ----

def test_roots_hold_for_every_way_in(make_daemon):
    daemon = make_daemon()
    allowed, outside = daemon.path("allowed"), daemon.path("outside")
    os.makedirs(allowed)
    os.makedirs(outside)
    daemon.config = f"[images]\nroots={allowed}\nmax_depth=2\n"
    client = daemon.start().client()
    base = images.qcow2(os.path.join(outside, "base.qcow2"))
    top = images.qcow2(os.path.join(allowed, "top.qcow2"), backing=base)
    good = images.qcow2(os.path.join(allowed, "good.qcow2"))
    link = os.path.join(allowed, "link.qcow2")
    os.symlink(base, link)

    _, findings, summary = inspect(client, top, format=QCOW2)
    assert not summary.safe and codes(findings) == ["OUTSIDE_ALLOWED_ROOTS"]
    with refused("PERMISSION_DENIED", "OUTSIDE_ALLOWED_ROOTS"):
        client.image.ProbeImage(pb.ProbeImageRequest(path=base))
    with refused("PERMISSION_DENIED", "OUTSIDE_ALLOWED_ROOTS"):
        client.image.ProbeImage(pb.ProbeImageRequest(path=link))
    with refused("PERMISSION_DENIED", "OUTSIDE_ALLOWED_ROOTS"):
        client.image.RecordBackingFormat(pb.RecordBackingFormatRequest(path=base))
    with refused("PERMISSION_DENIED"):
        inspect_path(client, outside)
    found, _, _, _ = inspect_path(client, allowed)
    assert codes(found[link].findings) == ["OUTSIDE_ALLOWED_ROOTS"]

    # The driver has the same policy: what is not to be looked at is not to be started.
    create(client, "bad", driver="qemu", disks=[top])
    with refused("FAILED_PRECONDITION", "OUTSIDE_ALLOWED_ROOTS"):
        act(client, "Start", "bad")
    create(client, "good", driver="qemu", disks=[good])
    act(client, "Start", "good")
    act(client, "PowerOff", "good")

    below = good
    for number in range(3):
        below = images.qcow2(os.path.join(allowed, f"d{number}.qcow2"), backing=below)
    _, findings, _ = inspect(client, below, format=QCOW2)
    assert codes(findings) == ["DEPTH_EXCEEDED"]
    create(client, "deep", driver="qemu", disks=[below])
    with refused("FAILED_PRECONDITION", "DEPTH_EXCEEDED"):
        act(client, "Start", "deep")


@pytest.mark.parametrize("config", ["[images]\nroots=relative\n", "[images]\nprotocols=gopher\n", "[images]\nownership=maybe\n", "[images]\ndepth=7\n",
                                    "[daemon]\nimage_roots=/srv\n"])
def test_a_policy_that_is_none(make_daemon, config):
    code, said = make_daemon(config=config).try_start()
    assert code == 1 and ("[images]" in said or "[daemon]" in said), said


def test_owners_and_remote_layers(make_daemon):
    daemon = make_daemon(config="[images]\nownership=refuse\nprotocols=nbd;rbd\n")
    client = daemon.start().client()
    loose = images.raw(daemon.path("loose.raw"))
    os.chmod(loose, 0o666)
    _, findings, summary = inspect(client, loose, format=pb.IMAGE_FORMAT_RAW)
    assert not summary.safe and codes(findings) == ["WRITABLE_BY_OTHERS"]

    remote = daemon.path("remote.qcow2")
    images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://127.0.0.1:1/export", remote, "1M")
    layers, findings, summary = inspect(client, remote, format=QCOW2)
    assert summary.safe and layers[1].is_remote and layers[1].protocol == "nbd" and codes(findings) == ["REMOTE_BACKING"]
    # What names no place that QEMU can be told of in parts is not passed on.
    far = daemon.path("far.qcow2")
    images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "rbd:pool/image", far, "1M")
    create(client, "far", driver="qemu", disks=[far])
    with refused("FAILED_PRECONDITION", "REMOTE_BACKING") as refusal:
        act(client, "Start", "far")
    assert "does not pass to QEMU" in refusal.error.message


@contextlib.contextmanager
def nbd_server(daemon, image, *where):
    """qemu-nbd with a raw image; ends with the block."""
    server = subprocess.Popen(["qemu-nbd", "--persistent", "--read-only", "--shared=4", "-f", "raw", "-x", "the disk", *where, image],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield server
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_a_domain_on_a_remote_base(make_daemon):
    daemon = make_daemon()
    exports, elsewhere = daemon.path("exports"), daemon.path("elsewhere")
    os.makedirs(exports)
    os.makedirs(elsewhere)
    daemon.config = f"[images]\nprotocols=nbd\nroots={exports}\n"
    client = daemon.start().client()
    base = images.raw(daemon.path("base.raw"))
    socket = os.path.join(exports, "nbd.sock")
    top, lost = os.path.join(exports, "top.qcow2"), os.path.join(exports, "lost.qcow2")
    images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", f"nbd+unix:///the%20disk?socket={socket}", top, "1M")
    images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", f"nbd+unix:///x?socket={elsewhere}/s", lost, "1M")
    create(client, "near", driver="qemu", disks=[top])
    with refused("FAILED_PRECONDITION", "REMOTE_BACKING") as refusal:
        act(client, "Start", "near")
    assert "is not there" in refusal.error.message
    with nbd_server(daemon, base, "-k", socket):
        wait_until(lambda: os.path.exists(socket), "the socket of the NBD server")
        layers, findings, summary = inspect(client, top, format=QCOW2)
        assert summary.safe and codes(findings) == ["REMOTE_BACKING"] and layers[1].path.startswith("nbd+unix:")
        act(client, "Start", "near", timeout_seconds=60)
        with open(f"/proc/{get(client, 'near').status.pid}/cmdline", encoding="utf-8") as file:
            nodes = [json.loads(argument) for argument in file.read().split("\0") if argument.startswith("{") and '"nbd"' in argument]
        # A connection: QEMU itself sees no path of the host's.
        assert [(node["export"], node["server"]["type"], node["read-only"]) for node in nodes] == [("the disk", "fd", True)]
        act(client, "PowerOff", "near")
    create(client, "out", driver="qemu", disks=[lost])
    with nbd_server(daemon, base, "-k", os.path.join(elsewhere, "s")):
        wait_until(lambda: os.path.exists(os.path.join(elsewhere, "s")), "the socket of the NBD server")
        with refused("FAILED_PRECONDITION", "REMOTE_BACKING") as refusal:
            act(client, "Start", "out")
    assert "outside the folders" in refusal.error.message
    # A server that is gone.
    with refused("FAILED_PRECONDITION") as refusal:
        act(client, "Start", "near", timeout_seconds=60)
    assert "onnect" in refusal.error.message or "is not there" in refusal.error.message


# ---- what is proven is what is opened ----

def opened_files(pid):
    """The inodes that a process has open."""
    found = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            status = os.stat(entry.path)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            found.add((status.st_dev, status.st_ino))
    return found


def inode(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino


def test_a_path_that_is_swapped_between_check_and_start(make_daemon):
    """A program in QEMU's place exchanges every path once the chain was proven, and then becomes QEMU."""
    daemon = make_daemon()
    qemu = shutil.which("qemu-system-x86_64")
    base, evil = images.qcow2(daemon.path("base.qcow2")), images.raw(daemon.path("evil.raw"))
    top = images.qcow2(daemon.path("top.qcow2"), backing="base.qcow2")
    proven = {inode(base), inode(top)}
    stolen = inode(evil)
    wrapper = daemon.path("qemu-system-x86_64")
    with open(wrapper, "w", encoding="utf-8") as file:
        file.write(f"""#!/bin/sh
case "$*" in *fdset*)
    mv {base} {base}.away; mv {evil} {base}; mv {top} {top}.away; ln -s {base} {top} ;;
esac
exec {qemu} "$@"
""")
    os.chmod(wrapper, 0o755)
    # To change what is on the host it has to see the host.
    daemon.config = f"[qemu]\nbinary={wrapper}\ncontainment=off\n"
    client = daemon.start().client()
    create(client, "swapped", driver="qemu", disks=[top])
    act(client, "Start", "swapped", timeout_seconds=60)
    assert inode(base) == stolen, "the paths were not exchanged"
    opened = opened_files(get(client, "swapped").status.pid)
    assert proven <= opened and stolen not in opened
    act(client, "PowerOff", "swapped")


@pytest.mark.parametrize("kind", ["data-file", "extent"])
def test_content_that_changes_between_check_and_start(make_daemon, kind):
    """The file stays, and its content becomes that of an image which names another file: QEMU would open that by itself."""
    daemon = make_daemon()
    qemu = shutil.which("qemu-system-x86_64")
    secret = daemon.path("secret.raw")
    evil = daemon.path("evil")
    if kind == "data-file":
        base = images.qcow2(daemon.path("base.qcow2"))
        images.qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={secret},data_file_raw=on", evil, "1M")
    else:
        base = daemon.path("base.vmdk")
        images.qemu_img("create", "-q", "-f", "vmdk", base, "1M")
        images.raw(secret)
        with open(evil, "w", encoding="utf-8") as file:
            file.write(f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2048 FLAT "{secret}" 0\n')
    top = daemon.path("top.qcow2")
    images.qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2" if kind == "data-file" else "vmdk", "-b", base, top)
    wrapper = daemon.path("qemu-system-x86_64")
    with open(wrapper, "w", encoding="utf-8") as file:
        file.write(f"""#!/bin/sh
case "$*" in *fdset*)
    truncate -s 0 {base}; cat {evil} >{base} ;;
esac
exec {qemu} "$@"
""")
    os.chmod(wrapper, 0o755)
    # To change what is on the host it has to see the host.
    daemon.config = f"[qemu]\nbinary={wrapper}\ncontainment=off\n"
    client = daemon.start().client()
    create(client, "changed", driver="qemu", disks=[top])
    with refused("FAILED_PRECONDITION", "IMAGE_CHANGED") as refusal:
        act(client, "Start", "changed", timeout_seconds=60)
    assert secret in refusal.error.message
    assert get(client, "changed").status.state == pb.DOMAIN_STATE_SHUTOFF


def test_paths_that_are_swapped_all_the_time(daemon, client):
    """While starts go on, a base and a decoy change places without end: QEMU has the one or the start is refused, never the decoy's content as qcow2."""
    base, decoy = images.qcow2(daemon.path("base.qcow2")), images.raw(daemon.path("decoy.raw"))
    top = images.qcow2(daemon.path("top.qcow2"), backing="base.qcow2")
    good, bad = inode(base), inode(decoy)
    spare = daemon.path("spare")
    ended = threading.Event()

    def swap():
        while not ended.is_set():
            os.rename(base, spare)
            os.rename(decoy, base)
            os.rename(spare, decoy)

    create(client, "racer", driver="qemu", disks=[top])
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(8):
            try:
                act(client, "Start", "racer", timeout_seconds=60)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
                continue
            opened = opened_files(get(client, "racer").status.pid)
            assert good in opened and bad not in opened
            act(client, "PowerOff", "racer")
    finally:
        ended.set()
        thread.join()


def test_a_window_of_a_file_is_started(daemon, client):
    """Two layers in one file each: a raw disk behind a pad, and a qcow2 in the middle of another file."""
    raw, inner = daemon.path("big.raw"), images.qcow2(daemon.path("inner.qcow2"), size="4M")
    with open(raw, "wb") as file:
        file.truncate(8 << 20)
    boxed = daemon.path("boxed")
    with open(boxed, "wb") as file, open(inner, "rb") as source:
        file.seek(1 << 20)
        file.write(source.read())
        file.truncate(4 << 20)
    nodes = [{"driver": "raw", "offset": 1 << 20, "size": 4 << 20, "file": {"driver": "file", "filename": raw}},
             {"driver": "qcow2", "file": {"driver": "raw", "offset": 1 << 20, "file": {"driver": "file", "filename": boxed}}}]
    tops = []
    for number, node in enumerate(nodes):
        top = daemon.path(f"top{number}.qcow2")
        images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", node["driver"], "-b", "json:" + json.dumps(node), top, "4M")
        tops.append(top)
    create(client, "window", driver="qemu", disks=tops)
    act(client, "Start", "window", timeout_seconds=60)
    status = get(client, "window").status
    assert {inode(raw), inode(boxed)} <= opened_files(status.pid)
    with open(f"/proc/{status.pid}/cmdline", encoding="utf-8") as file:
        command = file.read().split("\0")
    windows = [json.loads(argument) for argument in command if argument.startswith("{") and '"offset"' in argument]
    assert [(node["driver"], node["offset"]) for node in windows] == [("raw", 1 << 20), ("raw", 1 << 20)]
    act(client, "PowerOff", "window")


# ---- vpctl ----

def test_vpctl_lists_and_draws(daemon, client):
    folder = daemon.path("images")
    os.makedirs(folder)
    images.qcow2(os.path.join(folder, "base.qcow2"))
    for name in ("a", "b"):
        images.qcow2(os.path.join(folder, f"{name}.qcow2"), backing="base.qcow2")
    images.qemu_img("create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "gone", os.path.join(folder, "bad.qcow2"), "1M")
    create(client, "shop", disks=[os.path.join(folder, "a.qcow2")])
    vpctl = os.environ.get("VPCTL") or os.path.join(TOP, "bazel-bin", "clients/cli/vpctl")

    def run(*arguments):
        return subprocess.run([vpctl, "--connect", daemon.address, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120,
                              check=True).stdout

    table = run("image", "list", folder, "--format", "qcow2")
    assert "base.qcow2 is shared by 2 overlays" in table and "4 images, 3 safe to open, 1 not" in table and "shop" in table
    assert run("image", "list", folder, "--format", "qcow2", "--unsafe", "-o", "name") == os.path.join(folder, "bad.qcow2") + "\n"
    messages = [json.loads(line) for line in run("image", "list", folder, "--format", "qcow2", "-o", "json").splitlines()]
    assert messages[-1]["summary"]["images"] == 4
    watched = run("image", "inspect", "--watch", "--format", "qcow2", os.path.join(folder, "a.qcow2")).splitlines()
    assert watched[0].startswith("0  ") and watched[1].startswith("1  ") and watched[-1].startswith("SAFE")

    dot = run("image", "graph", folder, "--format", "qcow2", "--dot")
    assert "shared by 2" in dot and "FILE_MISSING" in dot and "shop" in dot
    picture = daemon.path("images.svg")
    run("image", "graph", folder, "--format", "qcow2", "--file", picture)
    with open(picture, encoding="utf-8") as file:
        svg = file.read()
    assert "<svg" in svg and svg.count('class="node"') == 6, "five files and a domain"
    single = run("image", "graph", os.path.join(folder, "a.qcow2"), "--format", "qcow2", "--dot")
    assert single.count(" -> ") == 2, "to its base, and from its domain"
