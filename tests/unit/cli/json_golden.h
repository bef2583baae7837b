/* Made by make_json_golden.py: do not edit. Messages on the wire and the JSON that Google's library makes of them. */
#pragma once

static const struct {
    const char *wire; /* in hexadecimal */
    const char *json;
} JSON_GOLDEN[] = {
    {"", "{}"},
    {"08ffffffffffffffffff0110ffffffff0f1d0700000020ffffffff0f2d01000000",
     "{\"i32\": -1, \"s32\": -2147483648, \"sf32\": 7, \"u32\": 4294967295, \"f32\": 1}"},
    {"3080808080808080808001380141050000000000000048ffffffffffffffffff01510100000000002000",
     "{\"i64\": \"-9223372036854775808\", \"s64\": \"-1\", \"sf64\": \"5\", \"u64\": \"18446744073709551615\", "
     "\"f64\": \"9007199254740993\"}"},
    {"5dcdcccc3d619a9999999999b93f", "{\"realFloat\": 0.1, \"realDouble\": 0.1}"},
    {"5dffff7f7f619c7500883ce4377e", "{\"realFloat\": 3.4028235e+38, \"realDouble\": 1e+300}"},
    {"5d0000807f61000000000000f0ff", "{\"realFloat\": \"Infinity\", \"realDouble\": \"-Infinity\"}"},
    {"5d0000804b61000000000000f87f", "{\"realFloat\": 16777216.0, \"realDouble\": \"NaN\"}"},
    {"680170027a106772c3bcc39f6520f09f988020225c0a", "{\"flag\": true, \"color\": \"COLOR_DARK_BLUE\", \"textValue\": "
                                                     "\"gr\\u00fc\\u00dfe \\ud83d\\ude00 \\\"\\\\\\n\"}"},
    {"82010400fffe7e8a0100", "{\"rawBytes\": \"AP/+fg==\", \"leaf\": {}}"},
    {"820110616e79206361726e616c20706c6561738a01030a0178",
     "{\"rawBytes\": \"YW55IGNhcm5hbCBwbGVhcw==\", \"leaf\": {\"text\": \"x\"}}"},
    {"92011000ffffffffffffffffff01ffffffff079a010b00fbffffffffffffffff01a20100a2010161aa0103000102",
     "{\"numbers\": [0, -1, 2147483647], \"wideNumbers\": [\"0\", \"-5\"], \"words\": [\"\", \"a\"], \"colors\": "
     "[\"COLOR_UNSPECIFIED\", \"COLOR_RED\", \"COLOR_DARK_BLUE\"]}"},
    {"b20100b201030a0179ba01020100c20100c2010161c201026162c20103616263ca01100000000000000000000000000000f83f",
     "{\"leaves\": [{}, {\"text\": \"y\"}], \"flags\": [true, false], \"blobs\": [\"\", \"YQ==\", \"YWI=\", \"YWJj\"], "
     "\"doubles\": [0.0, 1.5]}"},
    {"d201060a016b120176", "{\"labels\": {\"k\": \"v\"}}"},
    {"d201090a05656d7074791200", "{\"labels\": {\"empty\": \"\"}}"},
    {"da011008fdffffffffffffffff0112030a017a", "{\"leafByNumber\": {\"-3\": {\"text\": \"z\"}}}"},
    {"da010408001200", "{\"leafByNumber\": {\"0\": {}}}"},
    {"e2010408011001", "{\"colorByFlag\": {\"true\": \"COLOR_RED\"}}"},
    {"e2010408001000", "{\"colorByFlag\": {\"false\": \"COLOR_UNSPECIFIED\"}}"},
    {"ea01110880d0acf30e10ffffffffffffffffff01", "{\"wideByNumber\": {\"4000000000\": \"-1\"}}"},
    {"f20100", "{\"choiceText\": \"\"}"},
    {"f80100", "{\"choiceNumber\": 0}"},
    {"820200", "{\"choiceLeaf\": {}}"},
    {"880200920200", "{\"maybeNumber\": 0, \"maybeText\": \"\"}"},
    {"88020392020174", "{\"maybeNumber\": 3, \"maybeText\": \"t\"}"},
    {"9a0200a20200", "{\"time\": \"1970-01-01T00:00:00Z\", \"span\": \"0s\"}"},
    {"9a020c08a5ebdcca061080eba5c302a2020808011080cab5ee01",
     "{\"time\": \"2026-01-02T03:04:05.678Z\", \"span\": \"1.500s\"}"},
    {"9a020e088092b8c398feffffff0110e807a2020b10ffffffffffffffffff01",
     "{\"time\": \"0001-01-01T00:00:00.000001Z\", \"span\": \"-0.000000001s\"}"},
    {"9a020d08ff82d1ffaf0710ff93ebdc03a202160880c4d1b1e8f6ffffff0110c0f0d1a3fcffffffff01",
     "{\"time\": \"9999-12-31T23:59:59.999999999Z\", \"span\": \"-315576000000.999s\"}"},
    {"aa02270a0a737065632e76637075730a11737065632e6d656d6f72795f62797465730a066c6162656c73",
     "{\"mask\": \"spec.vcpus,spec.memoryBytes,labels\"}"},
    {"7011ba02016e", "{\"color\": 17, \"name2OfIt\": \"n\"}"},
};
