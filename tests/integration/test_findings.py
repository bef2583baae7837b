"""docs/findings.md: the example of each finding gives that finding, and its remedy, pasted, takes it away where a command can."""
import json
import os
import re
import subprocess

import pytest

from harness.client import TOP, pb
from harness.daemon import program

CODES = [name[len("FINDING_CODE_"):] for name in pb.FindingCode.keys() if not name.endswith("UNSPECIFIED")]

# What only a person can mend: a file that is gone, a copy that is damaged, a format that nobody knows, a rule of the administrator's.
NO_COMMAND = {"AMBIGUOUS_FORMAT", "BACKING_SMALLER", "ENCRYPTED", "FILE_MISSING", "HEADER_CORRUPT", "IO_ERROR", "LOOP", "NOT_REGULAR_FILE",
              "OUTSIDE_ALLOWED_ROOTS", "OWNER_MAY_NOT_READ", "PERMISSION_DENIED", "PROBE_FAILED", "PROBE_REFUSED_OTHER_FILE", "PROBE_USED",
              "REMOTE_BACKING", "TRUNCATED", "UNKNOWN_INCOMPATIBLE_FEATURE", "UNSUPPORTED_FORMAT", "UNSUPPORTED_REFERENCE", "DEPTH_EXCEEDED"}


def sections():
    with open(os.path.join(TOP, "docs/findings.md"), encoding="utf-8") as file:
        page = file.read()
    parts = re.split(r"^## ([A-Z_]+)\n", page, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def code_of(text):
    """The commands of a section: what is indented."""
    return "\n".join(line[4:] for line in text.split("\n") if line.startswith("    "))


def run(daemon, folder, commands):
    places = {os.path.dirname(program("VPCTL", "clients/cli/vpctl"))}
    env = dict(daemon.env, VIRTPLANE_ENDPOINT=daemon.address, PATH=os.pathsep.join([*places, os.environ["PATH"]]))
    done = subprocess.run(["bash", "-c", commands], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def inspect(daemon, folder, command):
    """The findings of the example's last line, by their codes."""
    code, out, err = run(daemon, folder, f"{command} --output json")
    assert code in (0, 1) and out, err
    messages = [json.loads(line) for line in out.splitlines()]
    return {m["finding"]["code"][len("FINDING_CODE_"):]: m["finding"] for m in messages if "finding" in m}


def daemon_for(make_daemon, code):
    """What an example asks of the administrator."""
    if code == "OUTSIDE_ALLOWED_ROOTS":
        return make_daemon(config="[images]\nroots=/srv/images\n").start()
    if code == "PERMISSION_DENIED" and os.geteuid() == 0:
        return make_daemon(prefix=["setpriv", "--bounding-set=-dac_override,-dac_read_search"]).start()
    return make_daemon().start()


@pytest.mark.parametrize("code", CODES)
def test_example_and_remedy(make_daemon, code):
    pages = sections()
    assert code in pages, "no section"
    if code == "OWNER_MAY_NOT_READ" and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    lines = code_of(pages[code]).split("\n")
    assert lines[-1].startswith("vpctl image inspect"), "the example's last line inspects what it made"
    daemon = daemon_for(make_daemon, code)
    folder = daemon.path("example")
    os.makedirs(folder)
    status, _, err = run(daemon, folder, "set -e\n" + "\n".join(lines[:-1]))
    assert status == 0, err
    found = inspect(daemon, folder, lines[-1])
    assert code in found, f"found {sorted(found)}"
    severity = found[code]["severity"][len("SEVERITY_"):]
    assert pages[code].startswith(severity), f"it is {severity}"

    remedy = found[code].get("remedy", "")
    if code in NO_COMMAND:
        assert not re.match(r"(qemu-img|vpctl|chmod) ", remedy), f"a command: {remedy}"
        return
    status, out, err = run(daemon, folder, remedy)
    assert status == 0, f"{remedy}: {out}{err}"
    # The remedy of a top that nobody declared is the declaration, which is no change of the image.
    again = remedy.split("  #")[0] if remedy.startswith("vpctl image inspect") else lines[-1]
    mended = inspect(daemon, folder, again)
    assert code not in mended, f"{remedy}: {mended[code]['message']}"
    assert not any(finding["severity"] == "SEVERITY_ERROR" for finding in mended.values()), mended


def test_all_sections_are_codes():
    assert sorted(sections()) == sorted(CODES)


def test_vpctl_explains():
    vpctl = program("VPCTL", "clients/cli/vpctl")
    for code, section in sections().items():
        said = subprocess.run([vpctl, "image", "explain", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=True).stdout
        assert said.strip() == section.strip()
