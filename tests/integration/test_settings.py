"""docs/settings.md, the sample configuration and the systemd unit say what the code says."""
import glob
import os
import re
import shutil
import subprocess

import pytest

from harness.client import TOP
from harness.daemon import program

SECURITY = os.path.join(TOP, "docs/security.md")
UNIT = os.path.join(TOP, "packaging/systemd/virtplaned.service")


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as file:
        return file.read()


def sources():
    for folder in ("server", "drivers", "storage"):
        for path in glob.glob(os.path.join(TOP, folder, "**/*.c"), recursive=True):
            yield path, read(path)


def settings():
    """(group, key) of every setting that the code reads or knows."""
    found = set()
    for path, text in sources():
        group = re.search(r'#define GROUP "(\w+)"', text)
        for name, keys in re.findall(r"(\w+)_keys\[\] =\s*\{([^}]*)\}", text):
            found |= {(name, key) for key in re.findall(r'"(\w+)"', keys)}
        # A table of groups: {"tls", {"certificate", "key", NULL}}.
        for name, keys in re.findall(r'\{"(\w+)",\s*\{([^}]*)\}', text) if path.startswith(os.path.join(TOP, "server/config")) else []:
            found |= {(name, key) for key in re.findall(r'"(\w+)"', keys)}
        if path.endswith("storage/chain/policy.c"):
            found |= {(group.group(1), key) for key in re.findall(r'"(\w+)"', re.search(r"known\[\] = \{([^}]*)\}", text).group(1))}
        found |= set(re.findall(r'g_key_file_(?:get|has)_\w+\([^;"]*"(\w+)",\s*"(\w+)"', text))
        if "drivers/qemu" in path:
            found |= {("qemu", key) for key in re.findall(r'setting_\w+\(\w+, "(\w+)"', text)}
    return sorted(found)


def test_the_code_is_read_well():
    assert {("daemon", "drain_ms"), ("events", "max_count"), ("images", "roots"), ("qemu", "binary"), ("qemu", "ping_interval_ms")} <= set(settings())


@pytest.mark.parametrize("group, key", settings())
def test_every_setting_is_documented(group, key):
    """In docs/settings.md below its group, and in the sample; what guards the daemon may be in docs/security.md."""
    section = re.search(rf"^## \[{group}\]$(.*?)(?=^## )", read("docs/settings.md"), flags=re.M | re.S)
    here = section and re.search(rf"^\| `{key}` \| .* \| .*\w.* \|$", section.group(1), flags=re.M)
    elsewhere = os.path.exists(SECURITY) and f"`{key}`" in read(SECURITY)
    assert here or elsewhere, f"docs/settings.md lacks [{group}] {key}"
    sample = re.search(rf"^\[{group}\]$(.*?)(?=^\[|\Z)", read("packaging/virtplaned.conf"), flags=re.M | re.S)
    assert sample and re.search(rf"^#?{key}=", sample.group(1), flags=re.M), f"packaging/virtplaned.conf lacks [{group}] {key}"


def test_documented_settings_are_there():
    page = read("docs/settings.md").split("## As a service")[0]
    groups = re.split(r"^## \[(\w+)\]$", page, flags=re.M)[1:]
    documented = {(group, key) for group, text in zip(groups[::2], groups[1::2]) for key in re.findall(r"^\| `(\w+)` ", text, flags=re.M)}
    assert documented <= set(settings())


@pytest.mark.parametrize("which", ["as it is", "with all that it comments out"])
def test_the_sample_is_taken(make_daemon, which):
    text = read("packaging/virtplaned.conf")
    if which != "as it is":
        text = re.sub(r"^#(\w+=)", r"\1", text, flags=re.M)
    make_daemon(config=text).start().stop()


def test_the_unit_is_valid(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd")
    text = read(UNIT).replace("/usr/local/bin/virtplaned", program("VIRTPLANED", "server/virtplaned"))
    unit = tmp_path / "virtplaned.service"
    unit.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert done.returncode == 0 and "virtplaned" not in done.stdout, done.stdout


def test_every_directive_is_explained():
    table = read("docs/settings.md").split("## As a service")[1]
    for line in read(UNIT).split("[Service]")[1].split("[Install]")[0].splitlines():
        name, _, value = line.partition("=")
        if name:
            assert f"`{name}=`" in table or f"`{name}={value}`" in table, line
