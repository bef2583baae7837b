"""docs/qemu-faults.md says what the tests with the mark `fault` show, and nothing else."""
import json
import os
import subprocess
import sys

import pytest

from harness.client import TOP
from harness.faults import fault

PAGE = "<!-- made by tools/faults-page from the tests' outcome -->\n<!-- end of what is made -->\n"
ROW = "| pause, reset | QEMU is killed | it is told | `test_a`, `test_b` |"


def faults_page(*arguments):
    return subprocess.run([os.path.join(TOP, "tools/faults-page"), *map(str, arguments)], cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=100, check=False)


def results(path, *cases):
    """A file of pytest's results with a case for each (test, what became of it, operations, told)."""
    def case(number, test, became, during, told):
        mark = json.dumps({"during": during, "what": "QEMU is killed", "told": told, "test": test, "file": "test_x.py", "line": number})
        mark = mark.replace("&", "&amp;").replace('"', "&quot;")
        return f'<testcase name="{test}"><properties><property name="fault" value="{mark}"/></properties>{became}</testcase>'

    path.write_text(f"<testsuites><testsuite>{''.join(case(number, *each) for number, each in enumerate(cases))}</testsuite></testsuites>")
    return path


def test_the_page_agrees_with_the_marks(tmp_path):
    marks = tmp_path / "marks"
    done = subprocess.run([sys.executable, "-m", "pytest", "tests/integration", "--collect-only", "-m", "fault", f"--faults-to={marks}"], cwd=TOP, timeout=100,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    done = faults_page("--check", f"--marks={marks}")
    assert done.returncode == 0, done.stdout


def test_rows_come_from_what_passed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Before.\n" + PAGE + "After.\n")
    found = results(tmp_path / "results.xml", ("test_a", "", ["pause"], "it is told"), ("test_b", "", ["reset"], "it is told"), ("test_b", "", ["pause"], None))
    assert faults_page("--check", "--page", page, found).returncode == 1
    assert faults_page("--page", page, found).returncode == 0
    text = page.read_text()
    assert text.startswith("Before.\n") and text.endswith("After.\n") and text.count("\n| ") == 2 and ROW in text, text
    assert faults_page("--check", "--page", page, found).returncode == 0
    # The order is no disagreement, a row too many is.
    more = results(tmp_path / "more.xml", ("test_a", "", ["pause", "reset"], "it is told"), ("test_b", "", ["pause"], None), ("test_c", "", ["save"], "other"))
    assert faults_page("--page", page, more).returncode == 0
    *head, one, other, rest = page.read_text().rsplit("\n", 4)[0].split("\n") + [""]
    del head, one, other, rest
    assert faults_page("--check", "--page", page, found).returncode == 1


@pytest.mark.parametrize("became, checks", [("<failure/>", False), ("<error/>", False), ("<skipped/>", True)], ids=["failed", "broken", "left out"])
def test_what_did_not_pass_gets_no_row(tmp_path, became, checks):
    """One that was left out here, for want of something, was shown elsewhere when the page was written: that is no disagreement."""
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    well = [("test_a", "", ["pause", "reset"], "it is told"), ("test_b", "", ["pause"], None)]
    assert faults_page("--page", page, results(tmp_path / "before.xml", *well)).returncode == 0
    written = page.read_text()
    found = results(tmp_path / "results.xml", well[0], ("test_b", became, ["pause"], None))
    done = faults_page("--page", page, found)
    assert done.returncode == 1 and "test_b" in done.stdout and page.read_text() == written
    assert (faults_page("--check", "--page", page, found).returncode == 0) == checks


@pytest.mark.parametrize("told", [(None, None), ("it is told", "in another way")], ids=["by none", "by two"])
def test_each_row_is_told_once(tmp_path, told):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    done = faults_page("--page", page, results(tmp_path / "results.xml", *[(f"test_{number}", "", ["save"], text) for number, text in enumerate(told)]))
    assert done.returncode == 1 and "save: QEMU is killed" in done.stdout and page.read_text() == PAGE


def test_an_operation_that_there_is_not():
    with pytest.raises(AssertionError, match="nonesuch"):
        fault("nonesuch", "QEMU is killed")
