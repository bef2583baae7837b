"""The tools that others rely on: the counts in the last line of tools/test, what tools/lint finds, and that setup has nothing to do twice."""
import json
import os
import re
import subprocess
import sys
import time

import pytest

from harness.client import TOP
from harness.daemon import wait_until

CMOCKA = """[==========] Running 3 test(s).
[ RUN      ] one
[       OK ] one
[ RUN      ] two
{}
"""


def tool(*arguments, **options):
    return subprocess.run(arguments, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, **options)


@pytest.mark.parametrize("rest, status, counts", [
    pytest.param("[       OK ] two\n[ RUN      ] three\n[       OK ] three", "PASSED", "3 0", id="all well"),
    pytest.param("[  FAILED  ] two\n[ RUN      ] three\n[       OK ] three\n[  FAILED  ] 1 test(s), listed below:\n[  FAILED  ] two", "FAILED",
                 "2 1", id="one failed"),
    pytest.param("Segmentation fault", "FAILED", "1 1", id="a crash"),
    pytest.param("[       OK ] two\nERROR: LeakSanitizer: detected memory leaks", "FAILED", "2 1", id="a leak at exit"),
    pytest.param("[  SKIPPED ] two\n[ RUN      ] three\n[       OK ] three", "PASSED", "2 0", id="one skipped"),
])
def test_counting_of_c_tests(tmp_path, rest, status, counts):
    log = tmp_path / "test.log"
    log.write_text(CMOCKA.format(rest))
    event = {"testResult": {"status": status, "testActionOutput": [{"name": "test.log", "uri": f"file://{log}"}]}}
    (tmp_path / "events.json").write_text(json.dumps({"started": {}}) + "\n" + json.dumps(event) + "\n")
    assert tool("tools/count-tests", "bazel", str(tmp_path / "events.json")).stdout.strip() == counts


def test_counting_of_python_tests(tmp_path):
    (tmp_path / "results.xml").write_text('<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure/></testcase>'
                                          '<testcase name="c"><error/></testcase><testcase name="d"><skipped/></testcase>'
                                          "</testsuite></testsuites>")
    assert tool("tools/count-tests", "junit", str(tmp_path / "results.xml")).stdout.strip() == "1 2"


@pytest.mark.parametrize("text, complaint", [
    ("int main(void)\n{\n    return 0;\n}\n", "open with a comment"),
    ("/* A file. */\n#include <string.h>\nvoid f(char *a, const char *b)\n{\n    strcpy(a, b);\n}\n", "unbounded"),
    ("/* A file. */\nint  f(void);\n", "clang-format"),
    ("/* A file. */\nint f(void) \n", "white space"),
])
def test_lint_finds(tmp_path, text, complaint):
    path = tmp_path / "case.c"
    path.write_text(text)
    done = tool("tools/lint", "--no-tidy", str(path))
    assert done.returncode == 1 and complaint in done.stdout, done.stdout


def test_lint_leaves_good_files_alone(tmp_path):
    path = tmp_path / "case.c"
    path.write_text('/* A file that is good. strcpy() in a comment is, too. */\nstatic const char *const text = "goto";\n')
    done = tool("tools/lint", "--no-tidy", str(path))
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(os.environ.get("VIRTPLANE_CONFIG") != "plain", reason="builds; tools/test has done so before")
@pytest.mark.parametrize("options", [[], ["--keep"]], ids=["", "keep"])
def test_the_demo(options):
    done = tool("tools/demo", *options)
    assert done.returncode == 0, done.stdout
    for words in ("domain-started", "domain-powered-off", "PROBE_REFUSED_BACKING_FILE", "remedy", "NOT SAFE"):
        assert words in done.stdout, done.stdout
    folder = re.search(r"/tmp/virtplane-demo\.\w+", done.stdout).group()
    assert os.path.exists(folder) == bool(options)
    if options:
        last = re.search(r"^  (vpctl domain poweroff web; kill \d+; .*; rm -r \S+)$", done.stdout, flags=re.M).group(1)
        setting = re.search(r"^  (export PATH=.*)$", done.stdout, flags=re.M).group(1)
        ended = tool("bash", "-c", f"{setting}; vpctl domain start web && vpctl domain list && {last}")
        assert ended.returncode == 0 and "running" in ended.stdout, ended.stdout
    wait_until(lambda: folder not in tool("ps", "-eo", "args").stdout, "the end of all that the demo started")


def test_setup_has_nothing_to_do_twice():
    started = time.monotonic()
    done = tool("tools/setup", "--test")
    assert done.returncode == 0 and "installing" not in done.stdout, done.stdout
    assert time.monotonic() - started < 100


@pytest.mark.parametrize("name", ["setup", "test", "demo", "lint"])
def test_wrong_options_are_refused(name):
    done = tool(f"{TOP}/tools/{name}", "--nonesuch", env=dict(os.environ, PYTHON=sys.executable))
    assert done.returncode == 2, done.stdout
