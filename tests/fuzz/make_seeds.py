#!/usr/bin/env python3
"""Writes seeds for format_fuzz.c from the images of tests/corpus/formats.table that QEMU opens: make_seeds.py tests/fuzz/corpus.
The seeds in the tree were made so; make them again when the table has grown."""

import pathlib
import struct
import subprocess
import sys
import tempfile

CORPUS = pathlib.Path(__file__).resolve().parent.parent / "corpus"
CHUNK = 64
MOST = 6000


def pack(data):
    """The size of the file, then its parts that are not zero; those near the end counted from there."""
    out = bytearray(struct.pack("<Q", len(data)))
    at = 0
    while at < len(data) and len(out) < MOST:
        end = at
        while end < len(data) and end - at < 4096 and any(data[end : end + CHUNK]):
            end += CHUNK
        if end > at:
            piece = data[at:end]
            place = at if at < len(data) // 2 or len(data) - at > 4096 else (len(data) - at) | 0x80000000
            out += struct.pack("<IH", place, len(piece)) + piece
        at = max(end, at + CHUNK)
    tail = bytes(data[-512:])
    if any(tail) and len(data) > 1024:
        out += struct.pack("<IH", 512 | 0x80000000, 512) + tail
    return bytes(out)


# The table has qcow2 in polyglots only.
QCOW2 = {
    "qcow2": "mk qcow2 4M",
    "qcow2-overlay": "over qcow2",
    "qcow2-data-file": "mk qcow2 4M -o data_file=data,data_file_raw=on",
    "qcow2-extended": "mk qcow2 4M -o extended_l2=on,compression_type=zstd",
    "qcow2-version2": "mk qcow2 4M -o compat=0.10",
}


def rows():
    for name, make in QCOW2.items():
        yield [name, make, "qcow2"]
    for line in (CORPUS / "formats.table").read_text().splitlines():
        row = [column.strip() for column in line.split("|")]
        if not line.startswith("#") and len(row) == 9 and row[8] != "refuses" and row[2] != "several":
            yield row


def main():
    target = pathlib.Path(sys.argv[1])
    for row in rows():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                ["sh", "-ec", f'CORPUS="{CORPUS}"; . "$CORPUS/make.sh"; {row[1]}'], cwd=folder, check=True
            )
            path = pathlib.Path(folder) / "img"
            if path.stat().st_size > 64 << 20:
                continue
            seed = pack(path.read_bytes())
        place = target / f"probe_{row[2]}_fuzz"
        place.mkdir(parents=True, exist_ok=True)
        (place / row[0]).write_bytes(seed)


if __name__ == "__main__":
    main()
