"""The small guest of tests/guest: its kernel, domains that boot it, and its shell on the serial console."""
import functools
import os
import re
import select
import socket
import subprocess
import time

from .client import TOP, pb
from .daemon import PATIENCE
from .domains import act, create, get

PROMPT = b"guest# "
# Without KVM a busy machine takes its time.
BOOT_TIMEOUT = 400
SILENCE = 180
ANSI = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")


@functools.lru_cache(maxsize=None)
def folder(kernel="cloud"):
    """The folder with vmlinuz and initrd, made if need be."""
    return subprocess.run([os.path.join(TOP, "tests", "guest", "build.py"), "--kernel", kernel], check=True, stdout=subprocess.PIPE,
                          text=True, timeout=300).stdout.strip()


@functools.lru_cache(maxsize=None)
def accelerator():
    """What runs a Linux guest here. There are hosts with a /dev/kvm in which no guest kernel comes up: those whose CPU does not say that it can."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = re.search(r"^flags\s*:(.*)$", file.read(), re.M)
    can = flags and {"vmx", "svm"} & set(flags.group(1).split()) and os.access("/dev/kvm", os.R_OK | os.W_OK)
    return pb.ACCELERATOR_KVM if can else pb.ACCELERATOR_TCG


def boot(words="", kernel="cloud"):
    """The spec's kernel. `words` are added to its command line: guest.net=off, guest.agent=off, guest.acpi=off."""
    return pb.KernelBoot(kernel_path=folder(kernel) + "/vmlinuz", initrd_path=folder(kernel) + "/initrd",
                         command_line=f"console=ttyS0 quiet mitigations=off no_timer_check tsc=reliable {words}".strip())


class Shell:
    """The guest's shell, over the socket of a serial port. One at a time."""

    def __init__(self, domain, device="serial0"):
        [path] = [endpoint.socket_path for endpoint in domain.status.endpoints if endpoint.device == device]
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.seen = b""
        self.count = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.socket.close()

    def until(self, what, timeout=PATIENCE):
        """Reads until `what` has come; answers what came before."""
        deadline = time.monotonic() + timeout
        while what not in self.seen:
            ready, _, _ = select.select([self.socket], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{what!r} did not come within {timeout} s; what came: {self.seen[-2000:]!r}"
            data = self.socket.recv(65536)
            assert data, f"the console was closed; what came: {self.seen[-2000:]!r}"
            self.seen = ANSI.sub(b"", self.seen + data)
        before, self.seen = self.seen.split(what, 1)
        return before.decode(errors="replace")

    def hears(self, timeout):
        """Whether anything is printed."""
        return bool(select.select([self.socket], [], [], timeout)[0])

    def type(self, text):
        self.socket.sendall(text.encode())

    def wait_boot(self, timeout=BOOT_TIMEOUT):
        """Waits for the prompt of a guest that was just started."""
        self.until(b"guest ready", timeout)
        self.until(PROMPT, timeout)
        # Long lines stay in one piece, and what is typed does not come back.
        self.run("stty cols 4000 -echo")
        return self

    def run(self, command, timeout=PATIENCE, check=True):
        """Runs a command in the guest; answers what it printed, without the last newline."""
        self.count += 1
        # The marks are not in what is typed, should it be echoed.
        self.type(f"echo beg''in{self.count}; {command}\necho en''d{self.count}=$?=\n")
        self.until(f"begin{self.count}\r\n".encode(), timeout)
        output = self.until(f"end{self.count}=".encode(), timeout)
        status = self.until(b"=", timeout)
        self.until(PROMPT, timeout)
        output = output.replace("\r\n", "\n").replace(PROMPT.decode(), "")
        assert not check or status == "0", f"{command}: status {status}: {output}"
        return output.rstrip("\n")

    def wait_for(self, command, timeout=PATIENCE):
        """Runs a command until it succeeds."""
        deadline = time.monotonic() + timeout
        while True:
            output = self.run(f"{command} && echo yes || echo no")
            if output.splitlines()[-1] == "yes":
                return "\n".join(output.splitlines()[:-1])
            assert time.monotonic() < deadline, f"{command}: not within {timeout} s: {output}"
            time.sleep(0.1)


def start(client, name, words="", kernel="cloud", memory_mib=160, **fields):
    """Creates and starts a domain that boots the guest; answers the domain as it runs."""
    fields.setdefault("accelerator", accelerator())
    create(client, name, driver="qemu", memory_mib=memory_mib, kernel=boot(words, kernel), **fields)
    act(client, "Start", name)
    return get(client, name)


def shell(client, name, **options):
    """The same, with a shell on its console once it is up."""
    made = Shell(start(client, name, **options))
    if not made.hears(SILENCE):
        # QEMU 7.2 without KVM stops in the firmware now and then, on a busy host. What it was doing is told with the test.
        print(f"{name} has printed nothing for {SILENCE} s, and is reset; it was: {get(client, name).status}")
        act(client, "Reset", name)
    return made.wait_boot()
