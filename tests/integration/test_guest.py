"""A real Linux guest: boots from a kernel that the daemon hands over, and talks on its serial port."""
import os

import pytest

from harness import guest
from harness.client import pb
from harness.daemon import wait_until
from harness.domains import act, create, get, state
from harness.errors import refused


# Without KVM, and on a busy machine, a guest takes its time to boot.
pytestmark = pytest.mark.timeout(600)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def test_boot_and_shut_down(daemon, client):
    with guest.shell(client, "vm", words="word=here guest.net=off") as shell:
        assert "word=here" in shell.run("cat /proc/cmdline")
        assert shell.run("echo $((6 * 7))") == "42"
        endpoint = get(client, "vm").status.endpoints[0]
        assert endpoint.device == "serial0" and endpoint.socket_path.startswith(daemon.state_dir)
        wait_until(lambda: "guest ready" in read(endpoint.log_path), "the log of the console")
        # The power button.
        act(client, "Shutdown", "vm")
        wait_until(lambda: state(client, "vm") == "SHUTOFF", "the shutdown", timeout=60)
    assert get(client, "vm").status.reason == "REQUESTED"
    assert not get(client, "vm").status.endpoints
    assert not os.path.exists(endpoint.socket_path) and os.path.exists(endpoint.log_path)


def test_the_endpoints_outlive_the_daemon(daemon, client):
    domain = guest.start(client, "vm", words="guest.net=off")
    daemon.kill()
    daemon.start()
    client = daemon.client()
    wait_until(lambda: state(client, "vm") == "RUNNING", "the adoption")
    assert get(client, "vm").status.endpoints == domain.status.endpoints
    with guest.Shell(get(client, "vm")) as shell:
        shell.wait_boot()
        assert shell.run("uname") == "Linux"
    act(client, "PowerOff", "vm")


def test_kernels_that_cannot_be_used(make_daemon):
    daemon = make_daemon(config="[images]\nroots=/nonexistent\n")
    daemon.config = f"[images]\nroots={daemon.folder}\n"
    daemon.start()
    client = daemon.client()
    os.mkfifo(daemon.path("fifo"))
    for number, (path, why) in enumerate([(daemon.path("none"), "No such file"), (daemon.path("fifo"), "FIFO"), ("/bin/sh", "outside")]):
        create(client, f"vm{number}", driver="qemu", kernel=pb.KernelBoot(kernel_path=path))
        with refused("FAILED_PRECONDITION", "FILE_REFUSED") as refusal:
            act(client, "Start", f"vm{number}")
        assert path in refusal.error.message and why in refusal.error.message, refusal.error.message
        assert "domain.spec.kernel.kernel_path" in refusal.error.violations
    with refused("INVALID_ARGUMENT", "INVALID_SPEC") as refusal:
        create(client, "vm", driver="qemu", kernel=pb.KernelBoot(command_line="quiet"))
    assert list(refusal.error.violations) == ["domain.spec.kernel.command_line"]
