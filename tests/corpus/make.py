#!/usr/bin/env python3
"""Builds, byte by byte, the images that qemu-img does not write, and changes those that it does. Run by the functions in make.sh."""

import base64
import struct
import sys
import zlib

SECTOR = 512


def read(path):
    with open(path, "rb") as file:
        return bytearray(file.read())


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def put(path, offset, text):
    """Writes hex bytes at an offset; a negative one counts from the end."""
    data = read(path)
    at = int(offset, 0)
    at = at if at >= 0 else len(data) + at
    new = bytes.fromhex(text)
    data[at : at + len(new)] = new
    write(path, data)


def text(path, offset, string):
    """The same with text; \\n is a line end."""
    put(path, offset, string.replace("\\n", "\n").encode().hex())


# ---- VHD ----


def vhd_sum(data, at, size, field):
    data[at + field : at + field + 4] = bytes(4)
    struct.pack_into(">I", data, at + field, ~sum(data[at : at + size]) & 0xFFFFFFFF)


def vhd_fix(path):
    """Puts the right checksums into a VHD."""
    data = read(path)
    if data[:8] == b"conectix":
        vhd_sum(data, 0, 512, 64)
        (dynamic,) = struct.unpack_from(">Q", data, 16)
        if dynamic + 1024 <= len(data):
            vhd_sum(data, dynamic, 1024, 36)
    vhd_sum(data, len(data) - 512, 512, 64)
    write(path, data)


def vhd_child(path, parent, code="W2ku"):
    """Makes a dynamic VHD a differencing one; the parent's name lies in a locator before the footer at the end."""
    data = read(path)
    footer = data[-512:]
    name = parent.encode("utf-16-le")
    at = len(data) - 512
    data = data[:-512] + name.ljust(512, b"\0") + footer
    for start in (0, len(data) - 512):
        struct.pack_into(">I", data, start + 60, 4)
    (dynamic,) = struct.unpack_from(">Q", data, 16)
    data[dynamic + 40 : dynamic + 56] = bytes(range(16))
    short = parent.replace("/", "\\").split("\\")[-1].encode("utf-16-be")
    data[dynamic + 64 : dynamic + 64 + len(short)] = short
    if code != "none":
        data[dynamic + 576 : dynamic + 580] = code.encode()
        struct.pack_into(">IIIQ", data, dynamic + 580, 512, len(name), 0, at)
    write(path, data)
    vhd_fix(path)


# ---- VHDX ----

CRC_TABLE = []
for _value in range(256):
    for _ in range(8):
        _value = _value >> 1 ^ (0x82F63B78 if _value & 1 else 0)
    CRC_TABLE.append(_value)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def vhdx_fix(path):
    """Puts the right checksums into headers and region tables."""
    data = read(path)
    for start, size in ((64 << 10, 4096), (128 << 10, 4096), (192 << 10, 65536), (256 << 10, 65536)):
        data[start + 4 : start + 8] = bytes(4)
        struct.pack_into("<I", data, start + 4, crc32c(data[start : start + size]))
    write(path, data)


def vhdx_metadata(data):
    guid = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
    start = data.index(guid, 192 << 10)
    return struct.unpack_from("<Q", data, start + 16)[0]


def vhdx_item(path, item, offset, value):
    """Changes a metadata item, by its place in the table that QEMU writes."""
    data = read(path)
    table = vhdx_metadata(data)
    (start,) = struct.unpack_from("<I", data, table + 32 + 32 * int(item) + 16)
    new = bytes.fromhex(value)
    at = table + start + int(offset)
    data[at : at + len(new)] = new
    write(path, data)


def vhdx_entry(path, guid, offset, size, bits):
    """Adds an entry to the metadata table."""
    data = read(path)
    table = vhdx_metadata(data)
    (count,) = struct.unpack_from("<H", data, table + 10)
    struct.pack_into("<H", data, table + 10, count + 1)
    struct.pack_into(
        "<16sIIII", data, table + 32 + 32 * count, bytes.fromhex(guid), int(offset), int(size), int(bits), 0
    )
    write(path, data)


def vhdx_child(path, parent):
    """Gives a VHDX a parent: the bit in its file parameters, and a parent locator."""
    key, value = "relative_path".encode("utf-16-le"), parent.encode("utf-16-le")
    locator = bytes.fromhex("b7ef4ab09ed1814ab78925b8e9445913") + struct.pack("<HH", 0, 1)
    locator += struct.pack("<IIHH", 32, 32 + len(key), len(key), len(value)) + key + value
    vhdx_entry(path, "2d5fd3a80bb34d45abf7d3d84834ab0c", 70000, len(locator), 4)
    data = read(path)
    table = vhdx_metadata(data)
    data[table + 70000 : table + 70000 + len(locator)] = locator
    write(path, data)
    vhdx_item(path, 0, 4, "02000000")


# ---- formats that qemu-img does not write ----


def dmg(path, segments="1"):
    """A disk of 64 sectors in one raw chunk, its list of blocks as XML, and the trailer."""
    body = bytes(64 * SECTOR)
    chunks = struct.pack(">IIQQQQ", 1, 0, 0, 64, 0, len(body)) + struct.pack(">IIQQQQ", 0xFFFFFFFF, 0, 64, 0, 0, 0)
    mish = struct.pack(">4sIQQQII", b"mish", 1, 0, 64, 0, 0, 2).ljust(200, b"\0") + struct.pack(">I", 2) + chunks
    data = base64.b64encode(mish).decode()
    xml = (
        '<?xml version="1.0"?><plist version="1.0"><dict><key>resource-fork</key><dict><key>blkx</key><array><dict>'
        f"<key>Data</key><data>{data}</data></dict></array></dict></dict></plist>\n"
    ).encode()
    trailer = bytearray(512)
    struct.pack_into(">4sIII", trailer, 0, b"koly", 4, 512, 1)
    struct.pack_into(">QQ", trailer, 24, 0, len(body))
    struct.pack_into(">II", trailer, 56, 1, int(segments))
    struct.pack_into(">QQ", trailer, 216, len(body), len(xml))
    struct.pack_into(">IQ", trailer, 488, 1, 64)
    write(path, body + xml + trailer)


def dmg_decoy(path):
    """Writes a second, other trailer over the bytes before the real one."""
    data = read(path)
    real = data[-512:]
    decoy = bytearray(real)
    struct.pack_into(">Q", decoy, 492, 8)
    write(path, data[:-512] + decoy[:300] + bytes(-(len(data) + 300) % 512) + real)


def bochs(path, version="2", subtype="Growing"):
    """An empty growing image of 4 MiB with extents of 64 KiB."""
    header = struct.pack("<32s16s16s", b"Bochs Virtual HD Image", b"Redolog", subtype.encode())
    header += struct.pack("<IIIII", int(version) << 16, 512, 64, 512, 65536)
    header += struct.pack("<IQ", 0, 4 << 20) if version == "2" else struct.pack("<Q", 4 << 20)
    write(path, header.ljust(512, b"\0") + b"\xff" * 64 * 4)


def cloop(path):
    """Four blocks of 64 KiB, compressed."""
    script = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    blocks = [zlib.compress(bytes(65536)) for _ in range(4)]
    offsets = [136 + 8 * 5]
    for block in blocks:
        offsets.append(offsets[-1] + len(block))
    header = script.ljust(128, b"\0") + struct.pack(">II", 65536, 4)
    write(path, header + b"".join(struct.pack(">Q", offset) for offset in offsets) + b"".join(blocks))


def luks1(path):
    """A header of LUKS 1 without any key, and 4 MiB behind it."""
    header = struct.pack(">6sH32s32s32sII20s32sI40s", b"LUKS\xba\xbe", 1, b"aes", b"xts-plain64", b"sha256", 4096, 64,
                         b"", b"", 1000, b"12345678-1234-1234-1234-123456789abc")
    for slot in range(8):
        header += struct.pack(">II32sII", 0xDEAD, 0, b"", 8 + 504 * slot, 4000)
    write(path, header + bytes((2 << 20) - len(header) + (4 << 20)))


def luks2(path, offset=""):
    """The binary header of LUKS 2 with its JSON, twice; with an offset of the data as well, and 16 KiB of that."""
    segment = '"0":{"type":"crypt","offset":"%s","size":"dynamic","encryption":"aes-xts-plain64"}' % offset if offset else ""
    text = ('{"keyslots":{},"tokens":{},"segments":{%s},"digests":{},"config":{"json_size":"12288"}}' % segment).encode()
    both = b""
    for mark in (b"LUKS\xba\xbe", b"SKUL\xba\xbe"):
        place = len(both)
        header = struct.pack(">6sHQQ48s32s64s40s48sQ", mark, 2, 16384, 1, b"", b"sha256", b"", b"", b"", place)
        both += (header.ljust(4096, b"\0") + text).ljust(16384, b"\0")
    write(path, both.ljust(int(offset) + 16384, b"\0") if offset else both)


def cowd(path, parent=""):
    """ESX's sparse extent of 4 MiB, with a directory of grain tables and no grains; with a name it is an overlay."""
    header = bytearray(2048)
    struct.pack_into("<4sIIIIIII", header, 0, b"COWD", 1, 2 if parent else 3, 8192, 1, 4, 2, 8)
    if parent:
        header[32 : 32 + len(parent)] = parent.encode()
    write(path, bytes(header) + bytes(2048))


def vmdk_text(path, create_type, *lines):
    """A descriptor alone, with the lines given."""
    body = f'# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="{create_type}"\n\n'
    write(path, (body + "\n".join(lines) + "\n").encode())


def vmdk_stub(path, *lines):
    """A sparse header without a capacity, which says only that a descriptor follows."""
    header = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", 1, 3, 0, 128, 1, 20, 512, 21, 26, 128, 0, b"\n \r\n", 0)
    body = '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
    write(path, header.ljust(512, b"\0") + (body + "\n".join(lines) + "\n").encode().ljust(20 * 512, b"\0"))


def vmdk_replace(path, old, new):
    """Replaces text within the embedded descriptor; what follows in it moves."""
    data = read(path)
    area = bytes(data[512 : 512 + 20 * 512])
    used = area[: area.index(b"\0")]
    changed = used.replace(old.replace("\\n", "\n").encode(), new.replace("\\n", "\n").encode())
    assert changed != used
    data[512 : 512 + 20 * 512] = changed.ljust(20 * 512, b"\0")
    write(path, data)


def vmdk_footer(path):
    """Moves what a stream says of its tables to a footer, as a program does that writes it in one go."""
    data = read(path)
    header = bytes(data[:512])
    marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
    data[56:64] = b"\xff" * 8
    write(path, data + marker + header + bytes(512))


# ---- what lies in raw disks ----


def iso(path, size="1048576", says=None, udf=""):
    """An ISO 9660 volume descriptor, and UDF's marks beside it or alone."""
    data = bytearray(int(size))
    if udf != "only":
        data[32768:32775] = b"\x01CD001\x01"
        blocks = int(says or size) // 2048
        struct.pack_into("<I", data, 32768 + 80, blocks)
        struct.pack_into("<H", data, 32768 + 128, 2048)
        data[34816:34823] = b"\xffCD001\x01"
    if udf:
        at = 32768 if udf == "only" else 36864
        data[at : at + 7] = b"\0BEA01\x01"
        data[at + 2048 : at + 2055] = b"\0NSR02\x01"
    write(path, data)


def mbr(path, kind="83", sectors="2000", size="1048576"):
    """One partition of that kind and length from sector 1 on."""
    data = bytearray(int(size))
    data[446:462] = struct.pack("<B3sB3sII", 0, b"", int(kind, 16), b"", 1, int(sectors))
    data[510:512] = b"\x55\xaa"
    write(path, data)


def gpt(path, sector="512", size="1048576"):
    """A protective MBR and the head of a GPT; the disk had 1 MiB."""
    mbr(path, "ee", "2047", size)
    data = read(path)
    unit = int(sector)
    backup = (1 << 20) // unit - 1
    struct.pack_into("<8sIIIIQQQQ", data, unit, b"EFI PART", 0x10000, 92, 0, 0, 1, backup, 34, backup - 33)
    write(path, data)


def fat(path, kind="FAT16", size="1048576", sectors="2048"):
    """A boot sector."""
    data = bytearray(int(size))
    data[0:11] = b"\xeb\x3c\x90mkdosfs\0"
    struct.pack_into("<HBHBHHB", data, 11, 512, 4, 1, 2, 512, int(sectors), 0xF8)
    at = 82 if kind == "FAT32" else 54
    data[at : at + 8] = kind.encode().ljust(8)
    data[510:512] = b"\x55\xaa"
    write(path, data)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
