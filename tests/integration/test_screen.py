"""vpctl domain screen: viewers of this host are connected with the screen, over the API."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

from harness import rfb
from harness.client import pb
from harness.daemon import Lines, program
from harness.domains import act, create

VIEWER = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
open(sys.argv[2], "wb").write(connection.recv(12))
"""


@contextlib.contextmanager
def screen_of(daemon, *arguments):
    """The command, while it runs; with its address once that is told."""
    process = subprocess.Popen([program("VPCTL", "clients/cli/vpctl"), "--connect", daemon.address, "domain", "screen", *arguments], env=daemon.env,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def connect(address):
    host, _, port = address.rpartition(":")
    connection = socket.socket(socket.AF_INET if host else socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect((host, int(port)) if host else address)
    return connection


def test_viewers(daemon, client):
    create(client, "vm", driver="qemu", accelerator=pb.ACCELERATOR_TCG, graphics=[pb.GRAPHICS_TYPE_VNC])
    with screen_of(daemon, "vm") as early:
        _, said = early.communicate(timeout=30)
        assert early.returncode == 1 and b"no screen" in said, said
    act(client, "Start", "vm")

    with screen_of(daemon, "vm") as command:
        address = Lines(command.stdout).next()
        assert os.stat(os.path.dirname(address)).st_mode & 0o077 == 0, "others can open it"
        # Two at once, each a connection of its own.
        with connect(address) as one, connect(address) as other:
            for viewer in (one, other):
                width, height, name = rfb.open_screen(viewer)
                assert width >= 640 and height >= 400 and "vm" in name
        with connect(address) as third:
            rfb.open_screen(third)
            command.send_signal(signal.SIGINT)
            assert command.wait(30) == 0 and not os.path.exists(os.path.dirname(address))
            while third.recv(65536):
                pass

    with screen_of(daemon, "vm", "--port", "0", "--output", "json") as command:
        text = ""
        lines = Lines(command.stdout)
        while not text.rstrip().endswith("}"):
            text += lines.next() + "\n"
        address = json.loads(text)["address"]
        assert address.startswith("127.0.0.1:")
        with connect(address) as viewer:
            rfb.open_screen(viewer)
            act(client, "PowerOff", "vm")
            with contextlib.suppress(ConnectionError):
                while viewer.recv(65536):
                    pass
        command.terminate()
        assert command.wait(30) == 0

    act(client, "Start", "vm")
    viewer = daemon.path("viewer.py")
    with open(viewer, "w", encoding="utf-8") as file:
        file.write(VIEWER)
    with screen_of(daemon, "vm", "--exec", f"{sys.executable} {viewer} {{}} {daemon.path('greeting')}") as command:
        assert command.wait(60) == 0, command.stderr.read()
    with open(daemon.path("greeting"), "rb") as file:
        assert file.read() == b"RFB 003.008\n"
    with screen_of(daemon, "vm", "--exec", "/nonexistent/viewer") as command:
        assert command.wait(30) == 1
    with screen_of(daemon, "vm", "--device", "spice") as command:
        assert command.wait(30) == 1 and b"no spice" in command.stderr.read()
