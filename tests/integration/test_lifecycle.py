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


RESTART, POWER_OFF, PAUSE, IGNORE = (getattr(pb, "LIFECYCLE_ACTION_" + name) for name in ("RESTART", "POWER_OFF", "PAUSE", "IGNORE"))


def told(events, kind, name):
    """The reasons of a type's events, in order."""
    number = getattr(pb, "EVENT_TYPE_" + kind)
    return [event.reason for event in events.events if event.type == number and event.name == name]


def test_a_domain_that_ends_at_once_is_started_again_some_times(client):
    events = Events(client)
    limit = pb.RestartLimit(count=2)
    create(client, "crash", labels={"test.crash_after": "1"}, on_crash=RESTART, restart_limit=limit)
    create(client, "panic", labels={"test.panic_after": "1"}, on_panic=RESTART, restart_limit=limit)
    create(client, "off", labels={"test.poweroff_after": "1"}, on_poweroff=RESTART, restart_limit=limit)
    for name in ("crash", "panic", "off"):
        act(client, "Start", name)
    for name, cause, end in (("crash", "ON_CRASH", "CRASHED"), ("panic", "ON_PANIC", "CRASHED"), ("off", "ON_POWEROFF", "SHUT_DOWN")):
        assert events.until("DOMAIN_RESTART_GIVEN_UP", name, timeout=60).reason == "RESTART_LIMIT"
        assert told(events, "DOMAIN_RESTART_SCHEDULED", name) == [cause] * 2
        assert told(events, "DOMAIN_STARTED", name) == ["REQUESTED", cause, cause]
        wait_until(lambda name=name: reason(client, name) == "RESTART_LIMIT", "the reason")
        status = get(client, name).status
        assert status.restart.count == 2 and not status.restart.HasField("next_time") and "2 times" in status.detail, status
        assert len(told(events, "DOMAIN_" + end, name)) == 3
    # Who starts it begins anew; a stop that was asked for is one.
    create(client, "asked", on_poweroff=RESTART, on_crash=RESTART)
    act(client, "Start", "asked")
    ask(client, "Shutdown", "asked", wait=True)
    assert state(client, "asked") == "SHUTOFF" and not get(client, "asked").status.HasField("restart")
    act(client, "Start", "off")
    wait_until(lambda: told(events, "DOMAIN_STARTED", "off")[3:4] == ["REQUESTED"], "the start")
    events.until("DOMAIN_RESTART_GIVEN_UP", "off", count=2, timeout=60)
    # What a panic does besides.
    create(client, "stays", labels={"test.panic_after": "1"}, on_panic=PAUSE)
    create(client, "goes-on", labels={"test.panic_after": "1"}, on_panic=IGNORE)
    for name in ("stays", "goes-on"):
        act(client, "Start", name)
        events.until("DOMAIN_PANICKED", name)
    wait_until(lambda: state(client, "stays") == "PAUSED" and reason(client, "stays") == "GUEST_PANICKED", "the halt")
    assert state(client, "goes-on") == "RUNNING"
    for field in ("on_poweroff", "on_reboot", "on_crash"):
        with refused("INVALID_ARGUMENT"):
            create(client, "bad", **{field: PAUSE})


@fault("-", "QEMU is killed, with `on_crash` RESTART, and the daemon before the restart", told="the next daemon starts it at its time")
def test_a_restart_is_called_off_or_goes_on_with_the_next_daemon(make_daemon):
    daemon = make_daemon().start()
    client = daemon.client()
    events = Events(client)
    limit = pb.RestartLimit(count=30)
    for name in ("called-off", "goes-on"):
        create(client, name, driver="qemu", on_crash=RESTART, restart_limit=limit)
        act(client, "Start", name)
    for number in range(4):  # the fourth restart is due after 4 s
        for name in ("called-off", "goes-on"):
            wait_until(lambda name=name: state(client, name) == "RUNNING", "the restart", timeout=60)
            os.kill(get(client, name).status.pid, signal.SIGKILL)
            events.until("DOMAIN_RESTART_SCHEDULED", name, count=number + 1, timeout=60)
    wait_until(lambda: get(client, "called-off").status.restart.HasField("next_time"), "the restart that is due")
    act(client, "PowerOff", "called-off")
    assert events.until("DOMAIN_RESTART_GIVEN_UP", "called-off").reason == "POWERED_OFF"
    assert not get(client, "called-off").status.HasField("restart")
    daemon.kill()
    daemon.start()
    client = daemon.client()
    wait_until(lambda: state(client, "goes-on") == "RUNNING", "the restart", timeout=60)
    assert get(client, "goes-on").status.restart.count == 4 and state(client, "called-off") == "CRASHED"
    # An end that nobody saw is not known to be one of those.
    pid = get(client, "goes-on").status.pid
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "QEMU's end")
    daemon.start()
    client = daemon.client()
    wait_until(lambda: reason(client, "goes-on") == "WHILE_DAEMON_DOWN", "the end")
    assert state(client, "goes-on") == "SHUTOFF" and daemon.hypervisors() == []


def next_boot(daemon, word="done"):
    """Makes the marker one of another boot."""
    with open(os.path.join(daemon.state_dir, "autostart"), "w", encoding="utf-8") as file:
        file.write(f"00000000-0000-4000-8000-000000000000 {word}\n")


def test_domains_start_with_the_host(make_daemon):
    daemon = make_daemon(config="[daemon]\nautostart_parallel=1\n").start()
    client = daemon.client()
    marker = os.path.join(daemon.state_dir, "autostart")
    wait_until(lambda: os.path.exists(marker) and "done" in open(marker, encoding="utf-8").read(), "the marker")
    for name, fields in (("b", {"autostart": True}), ("a", {"autostart": True}), ("first", {"autostart": True, "autostart_order": 0}),
                         ("last", {"autostart": True, "autostart_order": 7}), ("not", {})):
        order = {"a": 5, "b": 5}.get(name, fields.pop("autostart_order", 0))
        domain = pb.Domain(name=name, spec=pb.DomainSpec(driver="test"), autostart_order=order, **fields)
        client.domain.CreateDomain(pb.CreateDomainRequest(domain=domain))
    create(client, "broken", driver="qemu", disks=[daemon.path("missing.qcow2")])
    # It is the domain's own, as labels are: a running one takes it at once, and nothing is restarted by it.
    act(client, "Start", "not")
    for name, wanted in (("broken", True), ("not", True), ("not", False)):
        request = pb.UpdateDomainRequest(domain=pb.Domain(name=name, autostart=wanted, autostart_order=6))
        request.update_mask.paths.extend(["autostart", "autostart_order"])
        updated = client.domain.UpdateDomain(request).domain
        assert updated.autostart is wanted and updated.autostart_order == 6 and not updated.status.HasField("live_spec")
    assert state(client, "not") == "RUNNING"
    act(client, "PowerOff", "not")
    # Not in this boot: it was done.
    daemon.restart()
    client = daemon.client()
    assert state(client, "a") == "SHUTOFF"
    next_boot(daemon)
    daemon.restart()
    client = daemon.client()
    events = Events(client, start_revision=1)
    events.until("DOMAIN_STARTED", "last", timeout=60)
    assert events.until("DOMAIN_AUTOSTART_FAILED", "broken").reason == "FILE_MISSING"
    assert [event.name for event in events.events if event.type == pb.EVENT_TYPE_DOMAIN_STARTED and event.reason == "AUTOSTART"] == \
        ["first", "a", "b", "last"]
    assert state(client, "not") == "SHUTOFF" and "broken could not be started with the host" in daemon.log()
    wait_until(lambda: "done" in open(marker, encoding="utf-8").read(), "the marker")
    # One that was stopped stays so; a daemon that died in the midst of it leaves the rest, and that alone, to the next.
    act(client, "PowerOff", "a")
    stopped = time.time_ns() // 1000
    daemon.stop()
    with open(marker, encoding="utf-8") as file:
        boot = file.read().split()[0]
    with open(marker, "w", encoding="utf-8") as file:
        file.write(f"{boot} begun {stopped - 10_000_000}\n")
    # The test driver's domains end with the daemon: their state has changed since.
    daemon.start()
    client = daemon.client()
    wait_until(lambda: "done" in open(marker, encoding="utf-8").read(), "the marker")
    assert [state(client, name) for name in ("a", "b", "not")] == ["SHUTOFF"] * 3


@pytest.mark.timeout(1800)
@fault("-", "the guest panics", told="DOMAIN_PANICKED, and by `on_panic` it is CRASHED (`GUEST_PANICKED`), started again (`ON_PANIC`), halted, or let be")
def test_a_guest_panics(client):
    """A real one, as it tells by the device on PCI Express."""
    events = Events(client)
    with guest.shell(client, "vm", words="guest.net=off panic=-1", kernel="full", panic=pb.PANIC_MODEL_PCI, on_panic=RESTART) as shell:
        pid = get(client, "vm").status.pid
        shell.wait_for("lsmod | grep -q pvpanic", timeout=120)
        shell.type("echo c >/proc/sysrq-trigger\n")
        events.until("DOMAIN_PANICKED", "vm", timeout=120)
        assert events.until("DOMAIN_CRASHED", "vm", timeout=60).reason == "GUEST_PANICKED"
        assert events.until("DOMAIN_STARTED", "vm", count=2, timeout=60).reason == "ON_PANIC"
    domain = get(client, "vm")
    assert domain.status.pid not in (0, pid) and domain.status.restart.cause == "ON_PANIC"
    act(client, "PowerOff", "vm")
