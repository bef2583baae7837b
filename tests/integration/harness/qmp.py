"""Between the daemon and a QEMU that runs: QMP goes through here, and is refused, swallowed or cut off as a test wishes."""
import contextlib
import json
import os
import socket
import threading

from .daemon import wait_until
from .domains import get, state


class Proxy:
    """Takes the place of a domain's QMP socket, for daemons that connect from now on."""

    def __init__(self, folder):
        self.path, self.behind = os.path.join(folder, "qmp.sock"), os.path.join(folder, "behind.sock")
        os.rename(self.path, self.behind)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.refuses = set()  # commands that are answered with an error
        self.swallows = set()  # commands that are never answered
        self.swallowed = []
        self.connected = True  # FALSE: whoever connects is cut off at once
        self.open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                if not self.connected:
                    client.close()
                    continue
                qemu = socket.socket(socket.AF_UNIX)
                qemu.connect(self.behind)
                self.open.append((client, qemu))
                threading.Thread(target=self._answers, args=(client, qemu), daemon=True).start()
                threading.Thread(target=self._commands, args=(client, qemu), daemon=True).start()

    @staticmethod
    def _end(*ends):
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _answers(self, client, qemu):
        with contextlib.suppress(OSError):
            while data := qemu.recv(65536):
                client.sendall(data)
        self._end(client, qemu)

    def _commands(self, client, qemu):
        rest, fds = b"", []
        with contextlib.suppress(OSError):
            while True:
                data, more, _, _ = socket.recv_fds(client, 65536, 8)
                if not data:
                    break
                fds += more
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._command(client, qemu, line, fds)
        self._end(client, qemu)

    def _command(self, client, qemu, line, fds):
        message = json.loads(line)
        command = message["execute"]
        if command in self.refuses:
            error = {"error": {"class": "GenericError", "desc": "no luck today"}, "id": message["id"]}
            client.sendall(json.dumps(error).encode() + b"\r\n")
        elif command in self.swallows:
            self.swallowed.append(command)
        elif command == "add-fd":
            socket.send_fds(qemu, [line + b"\n"], [fds[0]])
            os.close(fds.pop(0))
        else:
            qemu.sendall(line + b"\n")

    def cut(self):
        """Ends the connections that there are."""
        while self.open:
            self._end(*self.open.pop())

    def close(self):
        self.listener.close()
        self.cut()


@contextlib.contextmanager
def between(daemon, name="vm"):
    """A daemon that runs is killed, and the next one comes to the domain by a proxy: `with between(daemon) as (client, proxy):`."""
    client = daemon.client()
    uid, before = get(client, name).uid, state(client, name)
    daemon.kill()
    proxy = Proxy(os.path.join(daemon.state_dir, "qemu", uid))
    try:
        daemon.start()
        client = daemon.client()
        wait_until(lambda: state(client, name) == before, "the adoption")
        yield client, proxy
    finally:
        proxy.close()
