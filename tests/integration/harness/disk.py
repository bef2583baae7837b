"""A disk that loses what was not fsynced, and one that fails (shim/disk.c), under the daemon's store."""
import contextlib
import errno
import functools
import os
import random
import struct
import subprocess
import tempfile

import pytest

from .client import TOP

SECTOR = 512
FILES = ("store.db", "store.db-wal")


@functools.lru_cache(maxsize=None)
def shim():
    """The library, built once for each process of the tests."""
    if os.environ.get("VIRTPLANE_CONFIG", "plain") != "plain":
        pytest.skip("the sanitizers do not like to be preloaded")
    built = os.path.join(tempfile.mkdtemp(prefix="vp-shim-"), "disk.so")
    source = os.path.join(TOP, "tests", "integration", "shim", "disk.c")
    subprocess.run(["cc", "-D_GNU_SOURCE", "-O1", "-g", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", built, source, "-ldl", "-lpthread"],
                   check=True)
    return built


class Disk:
    """Give its environment to a daemon; then cut the power, or break it."""

    def __init__(self, folder):
        self.control = os.path.join(folder, "control")
        self.heal()
        self.env = {"LD_PRELOAD": shim(), "VP_DISK_CONTROL": self.control}

    def fail(self, number=errno.EIO, after=0, times=1 << 30):
        """After `after` more calls that write, `times` of them fail."""
        # In place: the daemon has the file mapped.
        with open(self.control, "r+b" if os.path.exists(self.control) else "w+b") as file:
            file.write(struct.pack("=iii", after, times, number))

    def heal(self):
        self.fail(0, 0, 0)

    def faults_left(self):
        with open(self.control, "rb") as file:
            return struct.unpack("=iii", file.read(12))[1]

    def power_cut(self, state_dir, chance=None):
        """Puts the files back to what is on the disk. With `chance` some sectors of what was not fsynced got there all the same, and some did not.

        The daemon must be dead.
        """
        chance = chance or random.Random(0)
        mixed = chance.random() < 0.5
        lost = 0
        for name in FILES:
            path = os.path.join(state_dir, name)
            if not os.path.exists(path + ".durable"):
                continue
            with open(path + ".durable", "rb") as file:
                durable = file.read()
            written = b""
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                written = file.read()
            lost += durable != written
            result = bytearray(durable)
            if mixed:
                size = chance.choice((len(durable), len(written)))
                result = bytearray((durable + bytes(size))[:size])
                for at in range(0, size, SECTOR):
                    if chance.random() < 0.5 and written[at:at + SECTOR]:
                        piece = written[at:min(at + SECTOR, size)]
                        result[at:at + len(piece)] = piece
            with open(path, "wb") as file:
                file.write(result)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(state_dir, "store.db-shm"))
        return lost
