"""TakeScreenshot: a picture of the screen as it is, whatever QEMU does meanwhile, and nothing of it is left in QEMU."""
import os
import signal
import subprocess

import pytest

from harness.client import pb
from harness.daemon import process_state, program, wait_until
from harness.domains import act, create, state
from harness.errors import refused
from harness.faults import fault
from harness.picture import PNG, PPM, pixels_of, take


def running(client, name="vm", **fields):
    create(client, name, **fields)
    return act(client, "Start", name).domain.status.pid


def with_screen(client, name="vm", **fields):
    return running(client, name, driver="qemu", accelerator=pb.ACCELERATOR_TCG, graphics=[pb.GRAPHICS_TYPE_VNC], **fields)


def pictures_held(pid):
    """How many files for pictures a process has open. QEMU keeps one, which is empty between pictures, and the daemon both its ends."""
    folder = f"/proc/{pid}/fd"
    return sum("memfd:picture" in os.readlink(os.path.join(folder, fd)) for fd in os.listdir(folder) if os.path.lexists(os.path.join(folder, fd)))


def test_the_screen_of_a_domain_in_memory(daemon, client):
    running(client, video=pb.VIDEO_MODEL_VGA)
    header, data = take(client, "vm")
    assert (header.format, header.width, header.height) == (PNG, 320, 200)
    ppm_header, ppm = take(client, "vm", format=PPM)
    assert (ppm_header.format, ppm_header.width, ppm_header.height) == (PPM, 320, 200)
    before = pixels_of(data)
    assert before == pixels_of(ppm) and len(set(before[2])) > 3
    act(client, "Pause", "vm")
    assert pixels_of(take(client, "vm")[1]) != before, "it is darker while it is paused"
    with refused("OUT_OF_RANGE", "NO_SUCH_SCREEN"):
        take(client, "vm", screen=1)
    act(client, "PowerOff", "vm")
    with refused("FAILED_PRECONDITION"):
        take(client, "vm")
    running(client, "blind")
    with refused("FAILED_PRECONDITION", "NO_SCREEN"):
        take(client, "blind")


def test_faults_of_the_driver_are_told(client):
    running(client, video=pb.VIDEO_MODEL_VGA, labels={"test.fault.screenshot": "hang"})
    with refused("DEADLINE_EXCEEDED"):
        take(client, "vm", timeout=0.5)


def test_the_command(daemon, client):
    running(client, video=pb.VIDEO_MODEL_VGA)

    def vpctl(*arguments):
        return subprocess.run([program("VPCTL", "clients/cli/vpctl"), "--connect", daemon.address, "domain", "screenshot", "vm", *arguments],
                              env=daemon.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60, check=False)

    done = vpctl(daemon.path("vm.png"))
    assert done.returncode == 0 and done.stdout.decode() == f"{daemon.path('vm.png')}: 320 by 200 pixels\n", done
    assert vpctl(daemon.path("vm.ppm")).returncode == 0
    to_pipe = vpctl("-")
    found = []
    for name in ("vm.png", "vm.ppm"):
        with open(daemon.path(name), "rb") as file:
            found.append(pixels_of(file.read()))
    assert found[0] == found[1] == pixels_of(to_pipe.stdout)
    assert vpctl("--format", "gif", "-").returncode == 2
    done = vpctl("--screen", "7", "-")
    assert done.returncode == 1 and b"no screen 7" in done.stderr and done.stdout == b""


def test_a_real_screen(daemon, client):
    """The firmware writes on it. QEMU keeps nothing of the pictures; several are taken at once, and beside a job."""
    pid = with_screen(client)
    wait_until(lambda: len(set(pixels_of(take(client, "vm", format=PPM)[1])[2])) > 1, "the firmware's first words", timeout=60)
    act(client, "Pause", "vm")
    header, data = take(client, "vm")
    width, height, pixels = pixels_of(data)
    assert (header.width, header.height) == (width, height) and width >= 640 and height >= 400
    assert pixels_of(take(client, "vm", format=PPM)[1]) == (width, height, pixels), "a paused screen stands still"
    calls = [client.domain.TakeScreenshot(pb.TakeScreenshotRequest(name="vm"), timeout=60) for _ in range(6)]
    files = [b"".join(message.data for message in call) for call in calls]
    assert all(file == files[0] for file in files) and pixels_of(files[0])[2] == pixels
    wait_until(lambda: (pictures_held(pid), pictures_held(daemon.process.pid)) == (1, 2), "all to let go of the pictures")
    running(client, "blind", driver="qemu", accelerator=pb.ACCELERATOR_TCG)
    with refused("FAILED_PRECONDITION", "NO_SCREEN"):
        take(client, "blind")


def test_a_reader_that_goes(daemon, client):
    running(client, video=pb.VIDEO_MODEL_VGA)
    for _ in range(20):
        call = client.domain.TakeScreenshot(pb.TakeScreenshotRequest(name="vm", format=PPM), timeout=60)
        assert next(call).HasField("header")
        call.cancel()
    wait_until(lambda: pictures_held(daemon.process.pid) == 0, "the pictures' end")
    assert take(client, "vm")[0].width == 320


@fault("screenshot", "QEMU is stopped (SIGSTOP)", told="DEADLINE_EXCEEDED in the time asked for; once it goes on nothing of the picture is left in it")
def test_a_qemu_that_is_stopped(daemon, client):
    pid = with_screen(client)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", "the stop")
    with refused("DEADLINE_EXCEEDED"):
        take(client, "vm", timeout=0.5)
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: state(client, "vm") == "RUNNING", "its return")
    assert take(client, "vm")[0].width >= 640
    wait_until(lambda: (pictures_held(pid), pictures_held(daemon.process.pid)) == (1, 2), "all to let go of the pictures")


@pytest.mark.parametrize("how", [
    pytest.param("QEMU", marks=fault("screenshot", "QEMU is killed", told="FAILED_PRECONDITION, `DOMAIN_ENDED`; the daemon keeps nothing")),
    pytest.param("daemon", marks=fault("screenshot", "the daemon is killed", told="UNAVAILABLE; the next daemon takes pictures of it, and nothing is left")),
])
def test_killed_meanwhile(daemon, client, how):
    """QEMU stands still while it is asked, so that the question is under way."""
    pid = with_screen(client)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: process_state(pid) == "T", "the stop")
    call = client.domain.TakeScreenshot(pb.TakeScreenshotRequest(name="vm"), timeout=60)
    wait_until(lambda: pictures_held(daemon.process.pid) > 0, "the question")
    if how == "QEMU":
        os.kill(pid, signal.SIGKILL)
        with refused("FAILED_PRECONDITION", "DOMAIN_ENDED"):
            list(call)
        wait_until(lambda: pictures_held(daemon.process.pid) == 0, "the picture's end")
        return
    daemon.process.kill()
    with refused("UNAVAILABLE"):
        list(call)
    daemon.process.wait()
    daemon.close_clients()
    os.kill(pid, signal.SIGCONT)
    daemon.start()
    client = daemon.client()
    wait_until(lambda: state(client, "vm") == "RUNNING", "the adoption")
    assert take(client, "vm")[0].width >= 640
    wait_until(lambda: (pictures_held(pid), pictures_held(daemon.process.pid)) == (1, 2), "all to let go of the pictures")
