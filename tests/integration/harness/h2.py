"""gRPC by hand over HTTP/2, for what no gRPC library sends: a window of zero, streams that are reset at once, frames that are cut.

python3-h2 keeps the state of a well-behaved connection; send() puts any bytes beside it.
"""
import contextlib
import select
import socket
import struct
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

from .daemon import PATIENCE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def message(data, length=None):
    """A gRPC message; `length` is the one that it claims."""
    return b"\0" + struct.pack(">I", len(data) if length is None else length) + data


class Connection:
    """One connection to a unix socket; `window` is what the server may send on each stream before we say more."""

    def __init__(self, path, window=65535):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_inbound_headers=False))
        codes = h2.settings.SettingCodes
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values={codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: window})
        self.h2.initiate_connection()
        self.streams = {}
        self.ended = False
        self.out = b""
        self.flush()

    def headers(self, method, extra=()):
        return [(":method", "POST"), (":scheme", "http"), (":path", "/" + method), (":authority", "localhost"),
                ("content-type", "application/grpc"), ("te", "trailers"), *extra]

    def open(self, method, data=None, extra=(), end=True):
        """Starts a call; answers its stream. `data` is a message's bytes as they go on the wire (see message())."""
        stream = self.h2.get_next_available_stream_id()
        self.streams[stream] = {"data": b"", "headers": {}, "ended": False}
        self.h2.send_headers(stream, self.headers(method, extra), end_stream=data is None and end)
        if data is not None:
            self.h2.send_data(stream, data, end_stream=end)
        self.flush()
        return stream

    def flush(self):
        self.send(b"")

    def send(self, data, timeout=PATIENCE):
        """What h2 has to say, and `data` behind it, reading meanwhile what comes."""
        deadline = time.monotonic() + timeout
        self.out += self.h2.data_to_send() + data
        while self.out:
            readable, writable, _ = select.select([self.socket], [self.socket], [], max(0, deadline - time.monotonic()))
            assert readable or writable, f"the server takes nothing within {timeout} s"
            if readable and not self.receive():
                raise ConnectionError("the server has closed the connection")
            with contextlib.suppress(BlockingIOError):
                self.out = self.out[self.socket.send(self.out):]

    def receive(self):
        """Takes what has come; what is to be said to it goes out with the next send(). False: the server has closed."""
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return True
        except ConnectionError:
            data = b""
        if not data:
            self.ended = True
            return False
        for event in self.h2.receive_data(data):
            self.take(event)
        self.out += self.h2.data_to_send()
        return True

    def take(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ConnectionTerminated):
            self.ended = True
        if stream is None:
            return
        if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            stream["headers"].update(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            stream["data"] += event.data
        elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
            stream["ended"] = True

    def wait(self, stream, timeout=PATIENCE):
        """The status with which a call ended, as a number; None if the stream was reset without one."""
        deadline = time.monotonic() + timeout
        while not self.streams[stream]["ended"]:
            readable, _, _ = select.select([self.socket], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"stream {stream} has not ended within {timeout} s"
            if not self.receive():
                break
            self.flush()
        status = self.streams[stream]["headers"].get("grpc-status")
        return None if status is None else int(status)

    def grow(self, stream, by=1 << 20):
        self.h2.increment_flow_control_window(by, stream)
        self.h2.increment_flow_control_window(by)
        self.flush()

    def reset(self, stream):
        self.h2.reset_stream(stream)

    def close(self):
        self.socket.close()
