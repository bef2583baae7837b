"""The registry of faults: what a test with the mark `fault` shows becomes a row of docs/qemu-faults.md, written by tools/faults-page from a run's outcome.

    @fault("pause", "QEMU is killed", told="`QEMU_GONE`; DOMAIN_CRASHED")
    def test_...

A test can have several marks, a parameter of pytest's can have its own (`marks=`), and several tests can show one row: then one of them tells, the others
give no `told`.
"""
import json

import pytest

# What was under way, in the page's order. "-": nothing that was asked for.
OPERATIONS = ("start", "-", "pause", "resume", "reset", "reboot", "shutdown", "power off", "delete", "update", "attach", "detach", "save", "restore", "stats",
              "screenshot", "console", "screen", "guest agent", "guest command", "guest file", "the daemon's start")
PROPERTY = "fault"


def fault(during, what, told=None):
    """The mark: `during` is one of OPERATIONS or a tuple of them, `what` happens, and `told` is what the user is told and what is left. Markdown, no "|"."""
    during = (during,) if isinstance(during, str) else tuple(during)
    unknown = [operation for operation in during if operation not in OPERATIONS]
    assert during and not unknown, f"{unknown} is none of OPERATIONS in tests/integration/harness/faults.py"
    assert what and not any("|" in text or "\n" in text for text in (what, told or "")), "a cell of a table"
    return pytest.mark.fault(during=during, what=what, told=told)


def marks_of(item):
    """The item's marks, for JSON."""
    path, line, _ = item.location
    for mark in item.iter_markers("fault"):
        yield dict(mark.kwargs, test=item.originalname, file=path, line=line)


def pytest_addoption(parser):
    parser.addoption("--faults-to", metavar="FILE", help="write the marks of all collected tests to FILE, one object of JSON a line")


def pytest_collection_modifyitems(items):
    """Puts the marks into the results (--junitxml), where they stand beside the outcome."""
    for item in items:
        item.user_properties.extend((PROPERTY, json.dumps(mark)) for mark in marks_of(item))


def pytest_collection_finish(session):
    path = session.config.getoption("--faults-to")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            for item in session.items:
                file.writelines(json.dumps(mark) + "\n" for mark in marks_of(item))
