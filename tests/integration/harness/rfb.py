"""As much of VNC's protocol (RFB 3.8) as shows that a screen answers, on a connected socket."""
import struct

NONE, PASSWORD, VENCRYPT = 1, 2, 19


def take(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, f"the connection ended after {data!r}"
        data += more
    return data


def begin(connection):
    """The versions; answers the kinds of authentication that are offered."""
    assert take(connection, 12) == b"RFB 003.008\n"
    connection.sendall(b"RFB 003.008\n")
    [count] = take(connection, 1)
    assert count, take(connection, 4 + 64)
    return set(take(connection, count))


def finish(connection):
    """After the authentication: its result, and the screen's size and name."""
    assert take(connection, 4) == b"\0\0\0\0", "not let in"
    connection.sendall(b"\1")  # shared with other viewers
    width, height, _, length = struct.unpack(">HH16sI", take(connection, 24))
    return width, height, take(connection, length).decode()


def open_screen(connection):
    """All of it, without a password."""
    assert NONE in begin(connection)
    connection.sendall(bytes([NONE]))
    return finish(connection)
