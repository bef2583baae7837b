"""QEMU in trouble, and a daemon that dies beside it: a clear error or a clean recovery, each time."""
import os
import signal
import time

import pytest

from harness import images
from harness.client import pb
from harness.daemon import alive, wait_until
from harness.domains import act, create, get, state
from harness.errors import refused
from harness.events import Events
from harness.faults import fault


def fake_qemu(daemon, script):
    """A program in QEMU's place."""
    path = daemon.path("fake-qemu")
    with open(path, "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\n" + script)
    os.chmod(path, 0o755)
    return path


def with_binary(make_daemon, path):
    return make_daemon(config=f"[qemu]\nbinary={path}\n")


def start_vm(daemon, client, name="vm", **fields):
    disk = images.qcow2(daemon.path(name + ".qcow2"))
    create(client, name, driver="qemu", disks=[disk], **fields)
    return act(client, "Start", name).domain


@fault("start", "there is no QEMU", told="`QEMU_NOT_FOUND`, with what to install; GetCapabilities says so beforehand")
def test_no_qemu_binary(make_daemon):
    daemon = with_binary(make_daemon, "/nonexistent/qemu-system-x86_64").start()
    client = daemon.client()
    [driver] = [driver for driver in client.host.GetCapabilities(pb.GetCapabilitiesRequest()).drivers if driver.name == "qemu"]
    assert not driver.available and "/nonexistent/qemu-system-x86_64" in driver.detail
    create(client, "vm", driver="qemu")
    with refused("FAILED_PRECONDITION", "QEMU_NOT_FOUND") as refusal:
        act(client, "Start", "vm")
    assert "/nonexistent/qemu-system-x86_64" in refusal.error.message
    assert state(client, "vm") == "SHUTOFF"


@fault("start", "QEMU exits at once, or refuses its arguments", told="`QEMU_EXITED` with its last words; DOMAIN_START_FAILED")
def test_a_qemu_that_exits_at_once(make_daemon):
    daemon = make_daemon()
    path = fake_qemu(daemon, 'case "$*" in *-version*) echo "QEMU emulator version 7.2.0"; exit 0;; esac\n'
                             'echo "first words" >&2; echo "the very last words" >&2; exit 3\n')
    daemon.config = f"[qemu]\nbinary={path}\n"
    daemon.start()
    client = daemon.client()
    events = Events(client)
    create(client, "vm", driver="qemu")
    with refused("FAILED_PRECONDITION", "QEMU_EXITED") as refusal:
        act(client, "Start", "vm")
    assert "the very last words" in refusal.error.message and "status 3" in refusal.error.message, refusal.error
    domain = get(client, "vm")
    assert domain.status.state == pb.DOMAIN_STATE_SHUTOFF and "the very last words" in domain.status.detail
    events.until("DOMAIN_START_FAILED", "vm")


@fault("start", "QEMU never answers", told="DEADLINE_EXCEEDED; the process is ended")
def test_a_qemu_that_never_answers(make_daemon):
    daemon = make_daemon()
    path = fake_qemu(daemon, 'case "$*" in *-version*) echo "QEMU emulator version 7.2.0"; exit 0;; esac\nexec sleep 1000\n')
    daemon.config = f"[qemu]\nbinary={path}\n"
    daemon.start()
    client = daemon.client()
    create(client, "vm", driver="qemu")
    with refused("DEADLINE_EXCEEDED"):
        act(client, "Start", "vm", timeout_seconds=1)
    wait_until(lambda: state(client, "vm") == "SHUTOFF", "the end of the start")
    assert get(client, "vm").status.pid == 0
    act(client, "PowerOff", "vm")


@fault("start", "QEMU exits at once, or refuses its arguments")
def test_qemu_refuses_its_arguments(make_daemon):
    client = make_daemon(config="[qemu]\nallow_arguments=true\n").start().client()
    create(client, "vm", driver="qemu", arguments=["-nonesuch"])
    with refused("FAILED_PRECONDITION", "QEMU_EXITED") as refusal:
        act(client, "Start", "vm")
    assert "invalid option" in refusal.error.message, refusal.error
    assert state(client, "vm") == "SHUTOFF"


def test_a_missing_disk(daemon, client):
    create(client, "vm", driver="qemu", disks=[daemon.path("missing.qcow2")])
    with refused("FAILED_PRECONDITION", "FILE_MISSING") as refusal:
        act(client, "Start", "vm")
    assert daemon.path("missing.qcow2") in refusal.error.message
    assert daemon.hypervisors() == []


@fault("start", "another domain that runs has the image", told="the second start is refused: QEMU's lock")
def test_two_writers_of_one_image(daemon, client):
    disk = images.qcow2(daemon.path("disk.qcow2"))
    for name in ("one", "two"):
        create(client, name, driver="qemu", disks=[disk])
    act(client, "Start", "one")
    with refused("FAILED_PRECONDITION") as refusal:
        act(client, "Start", "two")
    assert "lock" in refusal.error.message, refusal.error
    assert state(client, "one") == "RUNNING" and state(client, "two") == "SHUTOFF"


@fault("-", "QEMU is killed", told="DOMAIN_CRASHED, `PROCESS_EXITED`; it can be started again")
def test_qemu_is_killed_from_outside(daemon, client):
    events = Events(client)
    pid = start_vm(daemon, client).status.pid
    os.kill(pid, signal.SIGKILL)
    event = events.until("DOMAIN_CRASHED", "vm")
    assert event.reason and event.state == pb.DOMAIN_STATE_CRASHED
    domain = get(client, "vm")
    assert domain.status.state == pb.DOMAIN_STATE_CRASHED and domain.status.pid == 0
    assert act(client, "Start", "vm").domain.status.state == pb.DOMAIN_STATE_RUNNING


@fault("pause", "QEMU is stopped (SIGSTOP)")
def test_a_hung_qemu(daemon, client):
    """Its reads answer at once, power off works, and another domain feels nothing."""
    pid = start_vm(daemon, client, "hung").status.pid
    start_vm(daemon, client, "well")
    os.kill(pid, signal.SIGSTOP)
    with refused("DEADLINE_EXCEEDED"):
        act(client, "Pause", "hung", timeout_seconds=1)
    assert get(client, "hung").name == "hung"
    act(client, "Pause", "well")
    act(client, "Resume", "well")
    act(client, "PowerOff", "hung")
    wait_until(lambda: not alive(pid), "QEMU's end")
    assert state(client, "hung") == "SHUTOFF" and state(client, "well") == "RUNNING"


@fault("-", "QEMU goes on (SIGCONT)", told="DOMAIN_RESPONSIVE, with the state that it has")
def test_a_hung_qemu_comes_back(daemon, client):
    events = Events(client)
    pid = start_vm(daemon, client).status.pid
    os.kill(pid, signal.SIGSTOP)
    with refused("DEADLINE_EXCEEDED"):
        act(client, "Pause", "vm", timeout_seconds=1)
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: state(client, "vm") in ("RUNNING", "PAUSED"), "the domain's return")
    # QEMU may get to the pause that nobody waits for any more after it has resumed.
    wait_until(lambda: act(client, "Resume", "vm") and state(client, "vm") == "RUNNING", "a running domain")
    assert "DOMAIN_CRASHED" not in events.kinds()


@fault("-", "the daemon is killed or stopped while domains run", told="DOMAIN_ADOPTED with the present state; 100 of them in less than a second")
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_domains_outlive_the_daemon(make_daemon, how):
    daemon = make_daemon().start()
    client = daemon.client()
    before = start_vm(daemon, client)
    start_vm(daemon, client, "paused")
    act(client, "Pause", "paused")
    getattr(daemon, how)()
    assert alive(before.status.pid)
    daemon.start()
    client = daemon.client()
    wait_until(lambda: state(client, "vm") == "RUNNING" and state(client, "paused") == "PAUSED", "the adoption")
    after = get(client, "vm")
    assert after.status.pid == before.status.pid and after.status.pid_start_ticks == before.status.pid_start_ticks
    assert after.status.disks == before.status.disks
    Events(client, start_revision=1).until("DOMAIN_ADOPTED", "vm")
    act(client, "Pause", "vm")
    act(client, "Resume", "vm")
    act(client, "Resume", "paused")
    act(client, "PowerOff", "vm")
    wait_until(lambda: not alive(before.status.pid), "QEMU's end")


@fault("-", "QEMU ends while no daemon runs", told="SHUTOFF, `WHILE_DAEMON_DOWN`, with its last words")
def test_qemu_dies_while_the_daemon_is_down(make_daemon):
    daemon = make_daemon().start()
    pid = start_vm(daemon, daemon.client()).status.pid
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "QEMU's end")
    daemon.start()
    client = daemon.client()
    wait_until(lambda: state(client, "vm") in ("CRASHED", "SHUTOFF"), "the domain's state")
    domain = get(client, "vm")
    assert domain.status.pid == 0 and domain.status.reason == "WHILE_DAEMON_DOWN"
    events = Events(client, start_revision=1)
    events.wait(lambda: any(event.reason == "WHILE_DAEMON_DOWN" for event in events.events), "the event")
    act(client, "Start", "vm")


@fault("start", "the daemon is killed, at any step, or stopped")
@pytest.mark.parametrize("delay_ms", [0, 5, 15, 30, 60, 120])
def test_the_daemon_is_killed_during_a_start(make_daemon, delay_ms):
    """At whatever moment: the domain runs or does not, the daemon knows which, and no QEMU is left that nobody knows."""
    daemon = make_daemon().start()
    client = daemon.client()
    create(client, "vm", driver="qemu", disks=[images.qcow2(daemon.path("disk.qcow2"))])
    act(client, "Start", "vm", no_wait=True)
    if delay_ms:
        time.sleep(delay_ms / 1000)  # the moment is what varies; nothing is waited for
    daemon.kill()
    daemon.start()
    client = daemon.client()
    wait_until(lambda: state(client, "vm") in ("RUNNING", "SHUTOFF", "CRASHED", "PAUSED"), "a settled state")
    domain = get(client, "vm")
    wait_until(lambda: daemon.hypervisors() == ([domain.status.pid] if domain.status.pid else []), "only the QEMU that is known")
    if domain.status.state == pb.DOMAIN_STATE_PAUSED:
        act(client, "Resume", "vm")
    elif domain.status.state != pb.DOMAIN_STATE_RUNNING:
        act(client, "Start", "vm")
    assert state(client, "vm") == "RUNNING"
    act(client, "PowerOff", "vm")


def test_reset_and_shutdown(daemon, client):
    """An empty disk's guest hears no ACPI: the domain stays SHUTTING_DOWN until it is powered off."""
    events = Events(client)
    start_vm(daemon, client)
    act(client, "Reset", "vm")
    events.until("DOMAIN_RESET", "vm")
    act(client, "Shutdown", "vm")
    assert state(client, "vm") == "SHUTTING_DOWN"
    events.until("DOMAIN_SHUTTING_DOWN", "vm")
    act(client, "PowerOff", "vm")
    assert state(client, "vm") == "SHUTOFF"


def test_started_paused(daemon, client):
    create(client, "vm", driver="qemu")
    assert act(client, "Start", "vm", paused=True).domain.status.state == pb.DOMAIN_STATE_PAUSED
    assert act(client, "Resume", "vm").domain.status.state == pb.DOMAIN_STATE_RUNNING


def test_emulation_where_it_is_wished(daemon, client):
    create(client, "vm", driver="qemu", accelerator=pb.ACCELERATOR_TCG)
    assert act(client, "Start", "vm").domain.status.accelerator == pb.ACCELERATOR_TCG


def test_several_at_once(daemon, client):
    for i in range(4):
        create(client, f"vm-{i}", driver="qemu", disks=[images.qcow2(daemon.path(f"{i}.qcow2"))])
    for i in range(4):
        act(client, "Start", f"vm-{i}", no_wait=True)
    wait_until(lambda: all(state(client, f"vm-{i}") == "RUNNING" for i in range(4)), "all to run")
    assert len(daemon.hypervisors()) == 4
    for i in range(4):
        act(client, "PowerOff", f"vm-{i}")
    wait_until(lambda: daemon.hypervisors() == [], "the QEMUs' end")


def test_a_deleted_domain_leaves_nothing(daemon, client):
    domain = start_vm(daemon, client)
    act(client, "PowerOff", "vm")
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm"))
    left = [os.path.join(folder, name) for folder, folders, files in os.walk(daemon.state_dir) for name in folders + files
            if domain.uid in name]
    assert left == []
    assert os.path.exists(daemon.path("vm.qcow2")), "images stay"
