"""Pictures of screens: what TakeScreenshot streams, and what is in the file."""
import struct
import zlib

from .client import pb

PNG, PPM = pb.SCREENSHOT_FORMAT_PNG, pb.SCREENSHOT_FORMAT_PPM


def take(client, name, timeout=30, **fields):
    """(header, the file)."""
    header, *rest = list(client.domain.TakeScreenshot(pb.TakeScreenshotRequest(name=name, **fields), timeout=timeout))
    assert header.HasField("header") and rest and all(message.HasField("data") for message in rest)
    data = b"".join(message.data for message in rest)
    assert len(data) == header.header.size_bytes
    return header.header, data


def _of_ppm(data):
    magic, width, height, most, pixels = data.split(None, 3)[:3] + data.split(None, 3)[3].split(b"\n", 1)
    assert (magic, most) == (b"P6", b"255")
    return int(width), int(height), pixels


def _of_png(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, size = 8, b"", None
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0]
        if kind == b"IHDR":
            *size, depth, color = struct.unpack(">IIBB", body[:10])
            assert (depth, color) == (8, 2)
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    width, height = size
    lines, row, pixels = zlib.decompress(packed), 1 + 3 * width, b""
    for y in range(height):
        line = lines[y * row:(y + 1) * row]
        assert line[0] == 0, "a filter that is not looked into here"
        pixels += line[1:]
    return width, height, pixels


def pixels_of(data):
    """(width, height, three bytes a pixel) of a PNG or a PPM."""
    width, height, pixels = _of_png(data) if data.startswith(b"\x89PNG") else _of_ppm(data)
    assert len(pixels) == 3 * width * height
    return width, height, pixels
