#!/usr/bin/python3
"""Writes json_golden.h: messages on the wire, and the JSON that Google's own library makes of them.

Run it in this folder when rich.proto changes: ./make_json_golden.py > json_golden.h
"""
import importlib
import subprocess
import sys
import tempfile

from google.protobuf import json_format

with tempfile.TemporaryDirectory() as folder:
    subprocess.run(["protoc", "-I.", "-I/usr/include", "--python_out=" + folder, "rich.proto"], check=True)
    sys.path.insert(0, folder)
    rich = importlib.import_module("rich_pb2")

R = rich.Rich


def times(**fields):
    message = R()
    for name, text in fields.items():
        getattr(message, name).FromJsonString(text)
    return message


CASES = [
    R(),
    R(i32=-1, s32=-2147483648, sf32=7, u32=4294967295, f32=1),
    R(i64=-9223372036854775808, s64=-1, sf64=5, u64=18446744073709551615, f64=9007199254740993),
    R(real_float=0.1, real_double=0.1),
    R(real_float=3.4028235e38, real_double=1e300),
    R(real_float=float("inf"), real_double=float("-inf")),
    R(real_float=16777216, real_double=float("nan")),
    R(flag=True, color=2, text_value="gr\u00fc\u00dfe \U0001f600 \"\\\n"),
    R(raw_bytes=b"\x00\xff\xfe~", leaf=rich.Leaf()),
    R(raw_bytes=b"any carnal pleas", leaf=rich.Leaf(text="x")),
    R(numbers=[0, -1, 2147483647], wide_numbers=[0, -5], words=["", "a"], colors=[0, 1, 2]),
    R(leaves=[rich.Leaf(), rich.Leaf(text="y")], flags=[True, False], blobs=[b"", b"a", b"ab", b"abc"], doubles=[0, 1.5]),
    R(labels={"k": "v"}),
    R(labels={"empty": ""}),
    R(leaf_by_number={-3: rich.Leaf(text="z")}),
    R(leaf_by_number={0: rich.Leaf()}),
    R(color_by_flag={True: 1}),
    R(color_by_flag={False: 0}),
    R(wide_by_number={4000000000: -1}),
    R(choice_text=""),
    R(choice_number=0),
    R(choice_leaf=rich.Leaf()),
    R(maybe_number=0, maybe_text=""),
    R(maybe_number=3, maybe_text="t"),
    times(time="1970-01-01T00:00:00Z", span="0s"),
    times(time="2026-01-02T03:04:05.678Z", span="1.500s"),
    times(time="0001-01-01T00:00:00.000001Z", span="-0.000000001s"),
    times(time="9999-12-31T23:59:59.999999999Z", span="-315576000000.999s"),
    R(mask={"paths": ["spec.vcpus", "spec.memory_bytes", "labels"]}),
    R(name_2_of_it="n", color=17),
]

print("/* Made by make_json_golden.py: do not edit. Messages on the wire and the JSON that Google's library makes of them. */")
print("#pragma once\n")
print("static const struct {\n    const char *wire; /* in hexadecimal */\n    const char *json;\n} JSON_GOLDEN[] = {")
for case in CASES:
    text = json_format.MessageToJson(case, indent=None, ensure_ascii=True)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    print('    {"%s",\n     "%s"},' % (case.SerializeToString(deterministic=True).hex(), escaped))
print("};")
