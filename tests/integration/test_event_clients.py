"""The examples in clients/: a consumer with a saved place and a reconcile loop, through kills of either side. Go's are left out where go is missing."""
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from harness.client import FOLDER, TOP, pb
from harness.daemon import Lines, program, wait_until
from harness.domains import act, create, state

CLIENTS = os.path.join(TOP, "clients")
CACHE = os.path.join(TOP, ".cache", "go")


@pytest.fixture(scope="session")
def go_programs():
    """The folder with Go's examples, built in a copy so that the tree stays as it is."""
    if not shutil.which("go"):
        pytest.skip("go is not installed: clients/go is not tested")
    # Those of several test processes would be in each other's way.
    folder = os.path.join(CACHE, os.environ.get("PYTEST_XDIST_WORKER", "main"))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(os.path.join(CLIENTS, "go"), os.path.join(folder, "clients", "go"), ignore=shutil.ignore_patterns("gen", "bin"))
    os.symlink(os.path.join(TOP, "proto"), os.path.join(folder, "proto"))
    env = dict(os.environ, VIRTPLANE_GO_BIN=os.path.join(CACHE, "bin"))
    for command in (["./generate"], ["go", "build", "-o", "bin/", "./consumer", "./reconcile"]):
        done = subprocess.run(command, cwd=os.path.join(folder, "clients", "go"), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=600)
        if done.returncode != 0 and "proxy.golang.org" in done.stdout:
            pytest.skip("Go's module proxy cannot be reached: clients/go is not tested\n" + done.stdout)
        assert done.returncode == 0, done.stdout
    return os.path.join(folder, "clients", "go", "bin")


@pytest.fixture(params=["python", "go"])
def example(request, daemon):
    """Starts an example: example("consumer", ...). Ended at the end of the test."""
    go = request.getfixturevalue("go_programs") if request.param == "go" else None
    started = []

    def start(name, *arguments):
        command = [os.path.join(go, name)] if go else [sys.executable, os.path.join(CLIENTS, "python", name + ".py")]
        env = dict(os.environ, PYTHONPATH=FOLDER, PYTHONUNBUFFERED="1")
        process = subprocess.Popen([*command, daemon.address, *arguments], stdout=subprocess.PIPE, env=env)
        started.append(process)
        return process, Lines(process.stdout)

    yield start
    for process in started:
        process.kill()
        process.wait(60)
        process.stdout.close()


@pytest.mark.timeout(700)
def test_a_consumer_misses_nothing(daemon, example):
    """Killed with -9 in turn, consumer and daemon; what was seen, each revision's events once, is what the journal has."""
    cursor, seen = daemon.path("cursor"), []

    def until(lines, name):
        while not seen or seen[-1][2] != name:
            seen.append(tuple(lines.next().split(" ")))

    def saved():
        return int(open(cursor, encoding="utf-8").read()) if os.path.exists(cursor) else 0

    process, lines = example("consumer", cursor)
    for turn in range(3):
        create(daemon.client(), f"a-{turn}")
        until(lines, f"a-{turn}")
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        create(daemon.client(), f"b-{turn}")
        process, lines = example("consumer", cursor)
        until(lines, f"b-{turn}")
        daemon.kill()
        daemon.start()
        last = create(daemon.client(), f"c-{turn}").revision
        until(lines, f"c-{turn}")
        wait_until(lambda: saved() >= last, "the saving of the place")
    everything = daemon.client().event.ListEvents(pb.ListEventsRequest(oldest_first=True, page_size=1000)).events
    wanted = [(str(event.revision), pb.EventType.Name(event.type), event.name, event.reason) for event in everything]
    assert list(dict.fromkeys(seen)) == wanted, "lost, or out of order"


def test_vpctl_through_kills_of_either_side(daemon):
    """The same of `vpctl events --follow --cursor`, killed with -9, with a filter by label."""
    cursor, seen = daemon.path("cursor"), []
    command = [program("VPCTL", "clients/cli/vpctl"), "--connect", daemon.address, "--output", "json", "events", "--follow", "--from", "1",
               "--cursor", cursor, "--filter", "label=seen=yes"]
    process = None

    def follow():
        nonlocal process
        # The place counts, once there is one.
        process = subprocess.Popen(command if not os.path.exists(cursor) else [word for word in command if word not in ("--from", "1")],
                                   stdout=subprocess.PIPE)
        return Lines(process.stdout)

    def until(lines, name):
        while not seen or seen[-1][1] != name:
            event = json.loads(lines.next()).get("event")
            if event:
                seen.append((int(event["revision"]), event["name"]))

    def end():
        process.kill()
        process.wait(60)
        process.stdout.close()

    lines = follow()
    try:
        for turn in range(3):
            create(daemon.client(), f"not-{turn}")
            create(daemon.client(), f"a-{turn}", labels={"seen": "yes"})
            until(lines, f"a-{turn}")
            daemon.kill()
            daemon.start()
            create(daemon.client(), f"b-{turn}", labels={"seen": "yes"})
            until(lines, f"b-{turn}")
            end()
            create(daemon.client(), f"c-{turn}", labels={"seen": "yes"})
            lines = follow()
            until(lines, f"c-{turn}")
    finally:
        end()
    once = list(dict.fromkeys(seen))
    assert [name for _, name in once] == [f"{letter}-{turn}" for turn in range(3) for letter in "abc"]
    assert once == sorted(once)


@pytest.mark.timeout(700)
def test_a_reconcile_loop(daemon, example):
    client = daemon.client()
    create(client, "there", labels={"wanted": "running"})
    create(client, "other")
    example("reconcile")
    wait_until(lambda: state(client, "there") == "RUNNING", "the start of what was there")
    create(client, "new", labels={"wanted": "running"})
    wait_until(lambda: state(client, "new") == "RUNNING", "the start of what came")
    act(client, "PowerOff", "new")
    wait_until(lambda: state(client, "new") == "RUNNING", "another start")
    daemon.kill()
    daemon.start()  # the test driver's domains end with the daemon
    client = daemon.client()
    create(client, "while-away", labels={"wanted": "running"})
    for name in ("there", "new", "while-away"):
        wait_until(lambda: state(client, name) == "RUNNING", f"the start of {name} after the daemon's", timeout=120)  # noqa: B023
    assert state(client, "other") == "SHUTOFF"
