"""A console or a screen over its stream."""
import queue
import threading

import grpc

from .client import pb
from .daemon import PATIENCE


class Stream:
    """One stream of OpenConsole or OpenScreen. What comes is kept in `seen`, by a thread that reads unless `reads` is False."""

    def __init__(self, client, name, method="OpenConsole", reads=True, **fields):
        console = method == "OpenConsole"
        self.request = pb.OpenConsoleRequest if console else pb.OpenScreenRequest
        opening = pb.ConsoleOpen if console else pb.ScreenOpen
        self.sending = queue.Queue()
        self.sending.put(self.request(open=opening(name=name, **fields)))
        self.call = getattr(client.domain, method)(iter(self.sending.get, None))
        self.changed = threading.Condition()
        self.seen = b""
        self.opened = None
        self.code = None
        self.error = None
        self.reader = threading.Thread(target=self._read, daemon=True)
        if reads:
            self.reader.start()

    def _read(self):
        code, error = grpc.StatusCode.OK, None
        try:
            for message in self.call:
                with self.changed:
                    if message.HasField("opened"):
                        self.opened = message.opened
                    else:
                        self.seen += message.data
                    self.changed.notify_all()
        except grpc.RpcError as failure:
            code, error = failure.code(), failure
        with self.changed:
            self.code, self.error = code, error
            self.changed.notify_all()

    def wait(self, done, what, timeout=PATIENCE):
        with self.changed:
            assert self.changed.wait_for(lambda: done() or self.code, timeout) and done(), \
                f"{what} did not come; status {self.code} {self.error}; the last of what came: {self.seen[-1000:]!r}"

    def wait_opened(self):
        self.wait(lambda: self.opened, "the opening")
        return self

    def until(self, what, timeout=PATIENCE):
        """Waits until `what` has come; takes all up to it out of `seen`."""
        self.wait(lambda: what in self.seen, repr(what), timeout)
        with self.changed:
            before, self.seen = self.seen.split(what, 1)
        return before

    def ended(self, timeout=PATIENCE):
        """Waits for the end; answers its status."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.code, timeout), "the stream goes on"
        return self.code.name

    def type(self, data):
        self.sending.put(self.request(data=data))

    def half_close(self):
        self.sending.put(None)

    def close(self):
        self.call.cancel()
        self.sending.put(None)
