"""How domains end and start again: shutdowns and reboots that are asked for, and what is done if the guest does not react."""
import os
import signal
import threading
import time

import pytest

from harness import guest
from harness.client import pb
from harness.daemon import alive, wait_until
from harness.domains import act, create, get, state
from harness.errors import refused
from harness.events import Events
from harness.faults import fault

AGENT, ACPI = pb.SHUTDOWN_MODE_AGENT, pb.SHUTDOWN_MODE_ACPI


def ask(client, verb, name, fallback_ms=None, timeout_seconds=None, **fields):
    """Shutdown or Reboot, with a fallback."""
    request = getattr(pb, f"{verb}DomainRequest")(name=name, **fields)
    if fallback_ms is not None:
        request.fallback_after.FromMilliseconds(fallback_ms)
    if timeout_seconds is not None:
        request.timeout.FromMilliseconds(int(timeout_seconds * 1000))
    return getattr(client.domain, f"{verb}Domain")(request).domain


def resets(events, name):
    """The reasons of its resets since the last start. A guest that restarts itself may do so twice."""
    return [event.reason for event in events.events if event.type == pb.EVENT_TYPE_DOMAIN_RESET and event.name == name]


def reason(client, name):
    return get(client, name).status.reason


def test_shutdowns_of_the_test_driver(client):
    events = Events(client)
    create(client, "vm", labels={"test.guest.shutdown": "ignore", "test.guest.agent": "yes"})
    create(client, "late", labels={"test.guest.shutdown": "delay:100"})
    for name in ("vm", "late"):
        act(client, "Start", name)
    with refused("FAILED_PRECONDITION", "AGENT_NOT_CONNECTED"):
        ask(client, "Shutdown", "late", mode=AGENT)
    for bad in ({"fallback_ms": 0}, {"fallback_ms": -5}, {"fallback_ms": 86400001000}, {"mode": 7}, {"wait": True, "no_wait": True}):
        with refused("INVALID_ARGUMENT"):
            ask(client, "Shutdown", "late", **bad)
    assert state(client, "late") == "RUNNING"
    # What is asked for is shown until it is done.
    status = ask(client, "Shutdown", "vm", fallback_ms=3600000).status
    assert status.state == pb.DOMAIN_STATE_SHUTTING_DOWN and status.shutdown.mode == AGENT
    assert status.shutdown.fallback_time.seconds - status.shutdown.request_time.seconds in (3599, 3600, 3601)
    # The second takes the place of the first, and a wait has an end of its own.
    with refused("DEADLINE_EXCEEDED", "STILL_RUNNING"):
        ask(client, "Shutdown", "vm", mode=ACPI, wait=True, timeout_seconds=0.2)
    status = get(client, "vm").status
    assert status.shutdown.mode == ACPI and not status.shutdown.HasField("fallback_time")
    ask(client, "Shutdown", "vm", fallback_ms=100, wait=True)
    assert state(client, "vm") == "SHUTOFF" and reason(client, "vm") == "FALLBACK" and not get(client, "vm").status.HasField("shutdown")
    assert events.until("DOMAIN_POWERED_OFF", "vm").reason == "FALLBACK"
    ask(client, "Shutdown", "late", fallback_ms=3600000, wait=True)
    assert reason(client, "late") == "REQUESTED"
    # A power off ends the wait too.
    act(client, "Start", "vm")
    waiter = threading.Thread(target=ask, args=(client, "Shutdown", "vm"), kwargs={"wait": True})
    waiter.start()
    wait_until(lambda: state(client, "vm") == "SHUTTING_DOWN", "the shutdown")
    act(client, "PowerOff", "vm")
    waiter.join(20)
    assert not waiter.is_alive() and reason(client, "vm") == "REQUESTED"


def test_reboots_of_the_test_driver(client):
    events = Events(client)
    create(client, "vm", labels={"test.guest.reboot": "ignore"})
    act(client, "Start", "vm")
    assert ask(client, "Reboot", "vm", fallback_ms=3600000).status.shutdown.reboot
    assert state(client, "vm") == "RUNNING"
    act(client, "Reset", "vm")
    assert not get(client, "vm").status.HasField("shutdown")
    ask(client, "Reboot", "vm", fallback_ms=50)
    assert events.until("DOMAIN_RESET", "vm", count=2).reason == "FALLBACK"
    wait_until(lambda: not get(client, "vm").status.HasField("shutdown"), "the end of the reboot")


@fault(("reboot", "shutdown"), "the guest ignores it, QEMU hangs, or the daemon ends before the fallback",
       told="at its time, or when the next daemon starts, it is powered off (or reset): `FALLBACK`")
@fault("shutdown", "QEMU is stopped (SIGSTOP), with a fallback",
       told="DEADLINE_EXCEEDED in the time asked for, DOMAIN_SHUTTING_DOWN `NO_ANSWER`, and the fallback holds")
def test_a_fallback_outlives_the_daemon(make_daemon):
    """An empty machine hears no ACPI."""
    daemon = make_daemon().start()
    client = daemon.client()
    for name in ("soon", "reboots", "never", "hung"):
        create(client, name, driver="qemu")
        act(client, "Start", name)
    ask(client, "Shutdown", "soon", fallback_ms=3000)
    ask(client, "Reboot", "reboots", fallback_ms=3000)
    ask(client, "Shutdown", "never", fallback_ms=3000)
    # This one takes the place of that with a fallback.
    ask(client, "Shutdown", "never")
    ask(client, "Shutdown", "hung", fallback_ms=3000)
    hung = get(client, "hung").status.pid
    os.kill(hung, signal.SIGSTOP)
    daemon.kill()
    time.sleep(3)  # the time passes while there is no daemon; whether all of it does not matter
    daemon.start()
    client = daemon.client()
    events = Events(client, start_revision=1)
    for name in ("soon", "hung"):
        assert events.until("DOMAIN_POWERED_OFF", name, timeout=60).reason == "FALLBACK"
        wait_until(lambda name=name: state(client, name) == "SHUTOFF", "the end")
    assert events.until("DOMAIN_RESET", "reboots", timeout=60).reason == "FALLBACK"
    assert not alive(hung)
    wait_until(lambda: state(client, "reboots") == "RUNNING" and not get(client, "reboots").status.HasField("shutdown"), "the reset")
    assert state(client, "never") == "SHUTTING_DOWN"
    with refused("FAILED_PRECONDITION", "AGENT_NOT_CONNECTED"):
        ask(client, "Reboot", "reboots", mode=AGENT, fallback_ms=1000)
    assert not get(client, "reboots").status.HasField("shutdown")
    # A QEMU that does not answer is asked in vain, and falls back.
    pid = get(client, "reboots").status.pid
    os.kill(pid, signal.SIGSTOP)
    with refused("DEADLINE_EXCEEDED"):
        ask(client, "Shutdown", "reboots", fallback_ms=2000, timeout_seconds=1)
    assert events.until("DOMAIN_POWERED_OFF", "reboots", timeout=60).reason == "FALLBACK"
    assert not alive(pid)


@pytest.mark.timeout(1800)
@fault("reboot", "the daemon is killed while the guest shuts down, asked by ACPI",
       told="the next one resets it when it has; DOMAIN_RESET `REBOOT_REQUESTED`")
@fault("shutdown", "the agent in the guest does not answer", told="ACPI asks after 10 s, unless the mode is AGENT")
def test_a_guest_is_asked(make_daemon):
    """One guest, asked in each way; one boot for each restart."""
    daemon = make_daemon().start()
    client = daemon.client()
    events = Events(client)
    with guest.shell(client, "vm", words="guest.net=off", guest_agent=True) as shell:
        wait_until(lambda: get(client, "vm").status.agent.connected, "the agent", timeout=60)
        pid = get(client, "vm").status.pid
        # By its agent it resets itself.
        ask(client, "Reboot", "vm", mode=AGENT)
        events.wait(lambda: resets(events, "vm").count("REBOOT_REQUESTED") == 1, "the restart by the agent", timeout=120)
        assert "agent" in events.until("DOMAIN_REBOOTING", "vm").detail
        shell.wait_boot()
        # By ACPI it shuts down, and is reset in place of its end; also if the daemon dies on the way.
        os.kill(pid, signal.SIGSTOP)
        act(client, "Reboot", "vm", mode=ACPI, no_wait=True)
        os.kill(pid, signal.SIGCONT)
        events.until("DOMAIN_REBOOTING", "vm", count=2, timeout=60)
        daemon.kill()
        daemon.start()
        client = daemon.client()
        events = Events(client, start_revision=1)
        events.wait(lambda: resets(events, "vm").count("REBOOT_REQUESTED") == 2, "the restart by ACPI", timeout=120)
        shell.wait_boot()
        domain = get(client, "vm")
        assert domain.status.pid == pid and domain.status.state == pb.DOMAIN_STATE_RUNNING and not domain.status.HasField("shutdown")
        # Its agent is asked first; this one is deaf, so that ACPI has to do it.
        wait_until(lambda: get(client, "vm").status.agent.connected, "the agent", timeout=60)
        shell.run("mv /lib/guest/shutdown /lib/guest/gone; kill -STOP $(pidof qemu-ga)")
        ask(client, "Shutdown", "vm", fallback_ms=600000, wait=True)
    asked = [event for event in events.events if event.type == pb.EVENT_TYPE_DOMAIN_SHUTTING_DOWN]
    assert "ACPI" in asked[-1].detail and "since by its agent" in asked[-1].detail
    domain = get(client, "vm")
    assert domain.status.state == pb.DOMAIN_STATE_SHUTOFF and domain.status.reason == "REQUESTED"
