"""A daemon that is held or killed at a chosen moment (shim/steps.c)."""
import atexit
import functools
import os
import shutil
import struct
import subprocess
import tempfile

import pytest

from .client import TOP
from .daemon import wait_until

CALLS, DIE_AT, HOLD_FSYNC, HOLD_IMAGES, HELD = range(5)


@functools.lru_cache(maxsize=None)
def shim():
    """The library, built once for each process of the tests."""
    if os.environ.get("VIRTPLANE_CONFIG", "plain") != "plain":
        pytest.skip("the sanitizers do not like to be preloaded")
    folder = tempfile.mkdtemp(prefix="vp-shim-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = os.path.join(folder, "steps.so")
    source = os.path.join(TOP, "tests", "integration", "shim", "steps.c")
    subprocess.run(["cc", "-D_GNU_SOURCE", "-O1", "-g", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", built, source, "-ldl"], check=True)
    return built


class Steps:
    """Made for a daemon before it starts."""

    def __init__(self, daemon):
        self.control = daemon.path("control")
        self.images = daemon.path("slow") + "/"
        os.makedirs(self.images, exist_ok=True)
        with open(self.control, "wb") as file:
            file.write(struct.pack("=iiiii", 0, 0, 0, 0, 0))
        daemon.env.update(LD_PRELOAD=shim(), VP_STEPS_CONTROL=self.control, VP_STEPS_IMAGES=self.images)

    def set(self, field, value):
        # In place: the daemon has the file mapped.
        with open(self.control, "r+b") as file:
            file.seek(4 * field)
            file.write(struct.pack("=i", value))

    def get(self, field):
        with open(self.control, "rb") as file:
            file.seek(4 * field)
            return struct.unpack("=i", file.read(4))[0]

    def arm(self, number):
        """The daemon dies at this call from now on; 0: it only counts."""
        self.set(CALLS, 0)
        self.set(DIE_AT, number)

    def wait_held(self, number=1):
        wait_until(lambda: self.get(HELD) >= number, f"{number} to be held")

    def open_gates(self):
        self.set(HOLD_FSYNC, 0)
        self.set(HOLD_IMAGES, 0)
