"""Fixtures: a daemon with its client, and more of them for tests that need several."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness.daemon import Daemon  # noqa: E402 # the path above
from harness.faults import (  # noqa: E402,F401 # the path above; hooks of pytest's
    pytest_addoption,
    pytest_collection_finish,
    pytest_collection_modifyitems,
)


@pytest.fixture
def make_daemon():
    """Makes daemons that are disposed of when the test ends: make_daemon(config=..., env=...)."""
    made = []

    def make(**options):
        daemon = Daemon(**options)
        made.append(daemon)
        return daemon

    yield make
    failures = []
    for daemon in reversed(made):
        try:
            daemon.dispose()
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.fixture
def daemon(make_daemon):
    """A daemon that runs."""
    return make_daemon().start()


@pytest.fixture
def client(daemon):
    """A client of that daemon."""
    return daemon.client()
