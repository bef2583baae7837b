#!/usr/bin/env python3
"""Makes the small guest that the tests boot: Debian's kernel, and an initramfs of busybox, modules and the guest agent.

    tests/guest/build.py [--kernel cloud|full]

prints the folder with `vmlinuz` and `initrd`, .cache/guest/KERNEL-HASH, which is made once for each state of tests/guest/. `cloud` is the
small kernel for virtual machines; `full` is Debian's general one, which also drives SATA, e1000, USB and the like. The packages are
downloaded with apt-get and unpacked; nothing is installed. root/ here is copied into the initramfs as it is.
"""
import argparse
import glob
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
PACKAGE = {"cloud": "linux-image-cloud-", "full": "linux-image-"}

# What a guest may find in QEMU, and what it needs to use that. A name that a kernel has built in or does not have is left out.
MODULES = """
    virtio_pci virtio_blk virtio_net virtio_console virtio_scsi virtio_balloon virtio_rng virtio_mem virtio_input virtio_gpu
    nvme ahci ata_piix sd_mod sr_mod e1000 e1000e i6300esb iTCO_wdt pvpanic_pci button evdev mousedev psmouse
    xhci_pci uhci_hcd ehci_pci usb_storage usbhid hid_generic tpm_tis tpm_crb
    vmw_vsock_virtio_transport 9pnet_virtio 9p virtiofs isofs ext4 acpiphp_ibm shpchp memory_hotplug efivarfs crc32c_intel crc32c_generic
""".split()
# The agent freezes file systems, which the kernel must have; the rest is what its ELF file asks for.
AGENT = "qemu-guest-agent"


def run(*command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def source_hash():
    """Of what decides the guest's content: this folder."""
    made = hashlib.sha256()
    for path in sorted(glob.glob(os.path.join(HERE, "**"), recursive=True)):
        if os.path.isfile(path) and "__pycache__" not in path:
            with open(path, "rb") as file:
                made.update(os.path.relpath(path, HERE).encode() + b"\0" + file.read() + b"\0")
    return made.hexdigest()[:16]


# ---- packages ----

def kernel_package(flavour):
    """The package with the files, behind the one that always names the newest."""
    newest = PACKAGE[flavour] + run("dpkg", "--print-architecture").strip()
    found = re.findall(r"^ *Depends: (linux-image-\S+)$", run("apt-cache", "depends", newest), re.M)
    if not found:
        raise OSError(f"apt-cache does not know {newest}")
    return found[0]


def download(flavour, scratch):
    """Unpacks the packages into scratch/root. Lists of packages that are missing or too old are fetched once."""
    for attempt in range(2):
        try:
            subprocess.run(["apt-get", "-q", "-o", "Acquire::Retries=3", "download", kernel_package(flavour), "busybox-static", AGENT],
                           cwd=scratch, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            break
        except (OSError, subprocess.CalledProcessError):
            if attempt:
                raise
            subprocess.run([*([] if os.getuid() == 0 else ["sudo"]), "apt-get", "-q", "update"], check=False, stdout=subprocess.DEVNULL)
    for package in glob.glob(os.path.join(scratch, "*.deb")):
        run("dpkg-deb", "-x", package, os.path.join(scratch, "root"))
    return os.path.join(scratch, "root")


# ---- what goes in ----

def modules(root):
    """The paths of MODULES and of what they need, from the root on."""
    release = os.path.basename(glob.glob(f"{root}/lib/modules/*")[0])
    run("depmod", "-b", root, release)
    folder = f"lib/modules/{release}"
    paths, needs = {}, {}
    with open(f"{root}/{folder}/modules.dep", encoding="utf-8") as file:
        for line in file:
            path, rest = line.rstrip("\n").split(":")
            paths[os.path.basename(path).split(".ko")[0].replace("-", "_")] = path
            needs[path] = rest.split()
    found = set()
    for name in MODULES:
        if name.replace("-", "_") in paths:
            path = paths[name.replace("-", "_")]
            found.update([path, *needs[path]])
    return folder, sorted(f"{folder}/{path}" for path in found)


def libraries(program):
    """The shared libraries of a program, as this host has them: QEMU needs the agent's as well."""
    found = re.findall(r"(/\S+) \(0x", run("ldd", program))
    missing = re.findall(r"(\S+) => not found", run("ldd", program))
    if missing:
        raise OSError(f"the guest agent needs {', '.join(missing)}")
    return found


def fill(root, image):
    """Lays the initramfs out in the folder `image`."""
    def put(source, target):
        target = os.path.join(image, target.lstrip("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(source, target)

    for folder in ("bin", "dev", "proc", "sys", "run", "tmp", "mnt", "root", "var"):
        os.makedirs(os.path.join(image, folder))
    put(f"{root}/bin/busybox", "bin/busybox")
    for applet in run(f"{root}/bin/busybox", "--list").split():
        if applet != "busybox":
            os.symlink("busybox", os.path.join(image, "bin", applet))
    os.symlink("bin", os.path.join(image, "sbin"))
    put(f"{root}/usr/sbin/qemu-ga", "usr/sbin/qemu-ga")
    for library in libraries(f"{root}/usr/sbin/qemu-ga"):
        put(library, library)
    folder, paths = modules(root)
    for path in paths:
        put(os.path.join(root, path), path)
    for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        put(f"{root}/{folder}/{index}", f"{folder}/{index}")
    run("depmod", "-b", image, os.path.basename(folder), stderr=subprocess.DEVNULL)
    for path in glob.glob(f"{image}/{folder}/modules.*.bin"):  # busybox reads the texts
        os.remove(path)
    subprocess.run(["cp", "-a", f"{HERE}/root/.", image], check=True)


def cpio_entry(name, mode, data, number):
    header = "070701" + "".join(f"{value:08x}" for value in (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0))
    entry = header.encode() + name.encode() + b"\0"
    entry += b"\0" * (-len(entry) % 4) + data
    return entry + b"\0" * (-len(entry) % 4)


def cpio(image, target):
    """Writes the archive. Not compressed: QEMU copies it faster than a guest without KVM unpacks it."""
    with open(target, "wb") as file:
        paths = [os.path.join(folder, name) for folder, folders, names in os.walk(image) for name in sorted(folders + names)]
        for number, path in enumerate(sorted(paths), 1):
            status = os.lstat(path)
            data = b""
            if stat.S_ISLNK(status.st_mode):
                data = os.readlink(path).encode()
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as source:
                    data = source.read()
            file.write(cpio_entry(os.path.relpath(path, image), status.st_mode, data, number))
        file.write(cpio_entry("TRAILER!!!", 0, b"", 0))


def build(flavour):
    """The folder with vmlinuz and initrd."""
    folder = os.path.join(TOP, ".cache", "guest", f"{flavour}-{source_hash()}")
    if os.path.isdir(folder):
        return folder
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="new-", dir=os.path.dirname(folder))
    try:
        root = download(flavour, scratch)
        image, made = os.path.join(scratch, "image"), os.path.join(scratch, "made")
        os.makedirs(image)
        os.makedirs(made)
        fill(root, image)
        cpio(image, f"{made}/initrd")
        shutil.copy(glob.glob(f"{root}/boot/vmlinuz-*")[0], f"{made}/vmlinuz")
        for path in glob.glob(f"{made}/*"):
            os.chmod(path, 0o644)
        try:
            os.rename(made, folder)
        except OSError:  # another process was quicker
            if not os.path.isdir(folder):
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", choices=sorted(PACKAGE), default="cloud")
    try:
        print(build(parser.parse_args().kernel))
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "output", b"") or b""
        sys.exit(f"{sys.argv[0]}: {error}\n{output.decode(errors='replace') if isinstance(output, bytes) else output}")


if __name__ == "__main__":
    main()
