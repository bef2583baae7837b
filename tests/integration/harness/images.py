"""Disk images for tests, made with qemu-img."""
import struct
import subprocess


def qemu_img(*arguments):
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def raw(path, size=1 << 20):
    with open(path, "wb") as file:
        file.truncate(size)
    return str(path)


def qcow2(path, size="16M", backing=None, backing_format="qcow2", declare=True):
    """A qcow2 image. With `declare` false its header does not say its backing file's format, as lazy clients leave it."""
    if backing is None:
        qemu_img("create", "-q", "-f", "qcow2", path, size)
        return str(path)
    qemu_img("create", "-q", "-f", "qcow2", "-F", backing_format, "-b", backing, path)
    if not declare:
        forget_backing_format(path)
    return str(path)


def forget_backing_format(path):
    """Takes the backing format extension out of a qcow2 header; new qemu-img refuses to make such images, old ones made many."""
    with open(path, "r+b") as file:
        header = file.read(4096)
        (at,) = struct.unpack(">I", header[100:104])
        while True:
            kind, length = struct.unpack(">II", header[at:at + 8])
            assert kind != 0, "no backing format in this header"
            if kind == 0xE2792ACA:
                break
            at += 8 + (length + 7) // 8 * 8
        after = at + 8 + (length + 7) // 8 * 8
        (name_at,) = struct.unpack(">Q", header[8:16])
        rest = header[after:name_at]
        file.seek(at)
        file.write(rest + b"\0" * (after - at))


def recorded_backing_format(path):
    """What the header says of the backing file's format, or None."""
    with open(path, "rb") as file:
        header = file.read(65536)
    (at,) = struct.unpack(">I", header[100:104])
    while True:
        kind, length = struct.unpack(">II", header[at:at + 8])
        if kind == 0:
            return None
        if kind == 0xE2792ACA:
            return header[at + 8:at + 8 + length].decode()
        at += 8 + (length + 7) // 8 * 8
