"""The agent inside a real guest: one boot for all that is asked of it."""
import hashlib
import itertools
import os
import queue
import signal
import subprocess

import pytest

from harness import guest
from harness.client import pb
from harness.daemon import program, wait_until
from harness.domains import act, get
from harness.errors import refused
from harness.faults import fault

# A boot without KVM takes its time.
pytestmark = pytest.mark.timeout(900)

NAME = "vm"
QEMU_GA = "qemu-ga -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run/agent -f /run/agent/pid -l /var/log/agent -d"
PASSWORD = "correct-horse-7411"


def connected(client):
    return get(client, NAME).status.agent.connected


def frozen(client):
    return get(client, NAME).status.agent.frozen


def run(client, *words, timeout=60, **fields):
    """RunGuestCommand of one that is to end well."""
    answer = client.domain.RunGuestCommand(pb.RunGuestCommandRequest(name=NAME, path=words[0], arguments=words[1:], **fields), timeout=timeout)
    assert answer.exit_code == 0 and answer.signal == 0, answer
    return answer.output.decode()


def script(client, text, **fields):
    return client.domain.RunGuestCommand(pb.RunGuestCommandRequest(name=NAME, path="/bin/sh", arguments=["-c", text], **fields), timeout=60)


def alive(client, pid):
    return script(client, f"[ -e /proc/{pid} ]").exit_code == 0


class Exec:
    """A stream of ExecGuest."""

    def __init__(self, client, *words, data=(), timeout=120, **fields):
        start = pb.ExecGuestStart(name=NAME, path=words[0], arguments=words[1:], **fields)
        requests = itertools.chain([pb.ExecGuestRequest(start=start)], (pb.ExecGuestRequest(input=part) for part in data))
        self.call = client.guest.ExecGuest(requests, timeout=timeout)
        self.output, self.error_output, self.exited, self.pid = b"", b"", None, 0

    def next(self):
        """Takes one message; FALSE: the stream has ended."""
        answer = next(self.call, None)
        if answer is None:
            return False
        self.output += answer.output
        self.error_output += answer.error_output
        if answer.HasField("started"):
            self.pid = answer.started.pid
        if answer.HasField("exited"):
            self.exited = answer.exited
        return True

    def until(self, what):
        while what not in self.output:
            assert self.next(), f"{what!r} did not come: {self.output!r} {self.error_output!r}"
        return self

    def end(self):
        while self.next():
            pass
        assert self.pid > 0 and self.exited is not None
        return self


def write(client, path, *parts, **fields):
    first = pb.WriteGuestFileRequest(open=pb.WriteGuestFileOpen(name=NAME, path=path, **fields))
    return client.guest.WriteGuestFile(itertools.chain([first], (pb.WriteGuestFileRequest(data=part) for part in parts)), timeout=60).written_bytes


def read(client, path, **fields):
    return b"".join(answer.data for answer in client.guest.ReadGuestFile(pb.ReadGuestFileRequest(name=NAME, path=path, **fields), timeout=60))


# ---- the checks of one boot ----

def check_ping(client):
    ping = client.guest.PingGuest(pb.PingGuestRequest(name=NAME))
    assert ping.version and ping.latency.ToMicroseconds() > 0
    assert {"guest-exec", "guest-file-open"} <= {command.name for command in ping.commands if command.enabled}
    with refused("NOT_FOUND"):
        client.guest.PingGuest(pb.PingGuestRequest(name="nonesuch"))
    with refused("INVALID_ARGUMENT"):
        request = pb.PingGuestRequest(name=NAME)
        request.timeout.FromSeconds(100000)
        client.guest.PingGuest(request)


def check_run(client):
    assert run(client, "/bin/echo", "one", "two words") == "one two words\n"
    answer = script(client, "cat; echo $WORD; echo wrong >&2; exit 7", environment=["WORD=of-mine"], input=b"in\0put\n")
    assert answer.output == b"in\0put\nof-mine\n" and answer.error_output == b"wrong\n" and answer.exit_code == 7
    assert script(client, "kill -9 $$").signal == 9
    answer = script(client, "dd if=/dev/zero bs=1M count=3 2>/dev/null")
    assert answer.truncated and len(answer.output) == 1 << 20
    assert not script(client, "echo x", discard_output=True).output
    with refused("FAILED_PRECONDITION", "AGENT_ERROR"):
        run(client, "/nonesuch")
    with refused("INVALID_ARGUMENT"):
        run(client, "")
    # It goes on.
    request = pb.RunGuestCommandRequest(name=NAME, path="/bin/sh", arguments=["-c", "sleep 2; echo >/tmp/went-on"])
    request.timeout.FromMilliseconds(300)
    with refused("DEADLINE_EXCEEDED"):
        client.domain.RunGuestCommand(request)
    wait_until(lambda: "went-on" in run(client, "/bin/ls", "/tmp"), "the program that goes on")


def check_exec(client):
    ended = Exec(client, "/bin/sh", "-c", "echo out; echo err >&2; cat; pwd; exit 3", data=[b"in", b"put\n"], working_directory="/etc").end()
    assert (ended.output, ended.error_output) == (b"out\ninput\n/etc\n", b"err\n")
    assert (ended.exited.exit_code, ended.exited.signal) == (3, 0)
    assert Exec(client, "/bin/sh", "-c", "kill -15 $$").end().exited.signal == 15
    assert Exec(client, "/nonesuch").end().exited.exit_code == 127
    assert Exec(client, "/bin/sh", "-c", "echo $A", environment=["A=b c"]).end().output == b"b c\n"
    # What it prints comes while it runs.
    running = Exec(client, "/bin/sh", "-c", "echo one; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo two").until(b"one\n")
    assert running.output == b"one\n" and running.exited is None
    write(client, "/tmp/go")
    assert running.end().output == b"one\ntwo\n"
    # Much of both.
    data = os.urandom(3 << 20)
    ended = Exec(client, "/bin/sh", "-c", "cat; echo end >&2", data=[data[at:at + 700000] for at in range(0, len(data), 700000)]).end()
    assert ended.output == data and ended.error_output == b"end\n"
    with refused("RESOURCE_EXHAUSTED", "GUEST_OUTPUT_TOO_LARGE"):
        Exec(client, "/bin/sh", "-c", "echo $$ >/tmp/loud; while :; do echo more; done", max_output_bytes=100000).end()
    with refused("FAILED_PRECONDITION", "GUEST_SCRATCH_FAILED"):
        Exec(client, "/bin/true", scratch_directory="/nonesuch").end()
    with refused("INVALID_ARGUMENT"):
        Exec(client, "").end()
    with refused("INVALID_ARGUMENT", "NOT_OPENED"):
        list(client.guest.ExecGuest(iter([pb.ExecGuestRequest(input=b"x")]), timeout=30))
    # One that is left is ended, and one that is to go on is not.
    left = Exec(client, "/bin/sh", "-c", "echo here; exec sleep 1000").until(b"here")
    left.call.cancel()
    kept = Exec(client, "/bin/sh", "-c", "echo here; exec sleep 1001", keep_running=True).until(b"here")
    kept.call.cancel()
    late = Exec(client, "/bin/sh", "-c", "exec sleep 1002", timeout=5)
    with refused("DEADLINE_EXCEEDED"):
        late.end()
    wait_until(lambda: not alive(client, left.pid) and not alive(client, late.pid), "the programs' end")
    assert alive(client, kept.pid)
    run(client, "/bin/kill", str(kept.pid))
    assert "virtplane" not in run(client, "/bin/ls", "/tmp")


def check_files(client):
    data = os.urandom(700001)
    assert write(client, "/tmp/file", data[:300000], data[300000:]) == len(data)
    assert read(client, "/tmp/file") == data
    assert hashlib.md5(data).hexdigest() in run(client, "/bin/md5sum", "/tmp/file")
    assert read(client, "/tmp/file", offset=1000, length=200000) == data[1000:201000]
    assert read(client, "/tmp/file", offset=700000) == data[700000:] and read(client, "/tmp/file", offset=800000) == b""
    assert write(client, "/tmp/file", b"end", mode=pb.GUEST_FILE_MODE_APPEND) == 3
    assert write(client, "/tmp/file", b"XY", mode=pb.GUEST_FILE_MODE_OVERWRITE, offset=5) == 2
    assert read(client, "/tmp/file") == data[:5] + b"XY" + data[7:] + b"end"
    assert write(client, "/tmp/file") == 0 and read(client, "/tmp/file") == b""
    for call in (lambda: read(client, "/nonesuch/file"), lambda: write(client, "/nonesuch/file", b"x"),
                 lambda: write(client, "/nonesuch", b"x", mode=pb.GUEST_FILE_MODE_OVERWRITE)):
        with refused("NOT_FOUND", "GUEST_FILE_NOT_FOUND"):
            call()
    with refused("INVALID_ARGUMENT"):
        write(client, "/tmp/file", b"x", offset=5)
    # No room: the bytes that the agent still holds are not told to be written.
    with refused("FAILED_PRECONDITION", "AGENT_ERROR"):
        write(client, "/dev/full", b"x")
    # Readers that leave, and one that never begins to read.
    for _ in range(3):
        call = client.guest.ReadGuestFile(pb.ReadGuestFileRequest(name=NAME, path="/dev/zero"), timeout=60)
        next(call)
        call.cancel()
    # A writer that stops in the midst.
    parts = queue.Queue()
    parts.put(pb.WriteGuestFileRequest(open=pb.WriteGuestFileOpen(name=NAME, path="/tmp/file")))
    with refused("DEADLINE_EXCEEDED"):
        client.guest.WriteGuestFile(iter(parts.get, None), timeout=2)
    parts.put(None)


def check_what_is_told(client, shell):
    interfaces = {interface.name: interface for interface in client.guest.ListGuestInterfaces(pb.ListGuestInterfacesRequest(name=NAME)).interfaces}
    assert "127.0.0.1" in [address.address for address in interfaces["lo"].addresses]
    assert interfaces["lo"].addresses[0].prefix_length == 8
    mac = get(client, NAME).spec.interfaces[0].mac
    assert mac in [interface.mac for interface in interfaces.values()]
    client.guest.ListGuestUsers(pb.ListGuestUsersRequest(name=NAME))
    info = client.guest.GetGuestInfo(pb.GetGuestInfoRequest(name=NAME)).info
    assert info.host_name == shell.run("hostname") and info.operating_system.kernel_release == shell.run("uname -r"), info
    [disk] = [filesystem for filesystem in info.file_systems if filesystem.mount_point == "/mnt"]
    assert disk.type == "ext4" and disk.device == "vda" and 0 < disk.used_bytes < disk.total_bytes
    # The clock.
    client.guest.SetGuestTime(pb.SetGuestTimeRequest(name=NAME))
    told = client.guest.GetGuestTime(pb.GetGuestTimeRequest(name=NAME))
    assert abs(told.time.ToMilliseconds() - told.host_time.ToMilliseconds()) < 60000
    request = pb.SetGuestTimeRequest(name=NAME)
    request.time.FromJsonString("2031-05-06T07:08:09Z")
    client.guest.SetGuestTime(request)
    assert shell.run("date -u +%Y-%m-%dT%H:%M").startswith("2031-05-06T07:")
    client.guest.SetGuestTime(pb.SetGuestTimeRequest(name=NAME))
    request.time.FromJsonString("1969-05-06T07:08:09Z")
    with refused("INVALID_ARGUMENT"):
        client.guest.SetGuestTime(request)
    trimmed = client.guest.TrimGuestFilesystems(pb.TrimGuestFilesystemsRequest(name=NAME), timeout=60)
    assert "/mnt" in [filesystem.mount_point for filesystem in trimmed.file_systems]


def check_password(daemon, client):
    # Read by the agent: what is printed on the console is kept in a log.
    before = read(client, "/etc/shadow")
    client.guest.SetGuestPassword(pb.SetGuestPasswordRequest(name=NAME, user="root", password=PASSWORD.encode()))
    after = read(client, "/etc/shadow")
    assert after != before and b":$" in after and PASSWORD.encode() not in after
    client.guest.SetGuestPassword(pb.SetGuestPasswordRequest(name=NAME, user="root", password=b"$5$salt$" + PASSWORD.encode(), hashed=True))
    assert f"root:$5$salt${PASSWORD}:".encode() in read(client, "/etc/shadow")
    with refused("FAILED_PRECONDITION", "AGENT_ERROR") as refusal:
        client.guest.SetGuestPassword(pb.SetGuestPasswordRequest(name=NAME, user="nobody-here", password=PASSWORD.encode()))
    assert PASSWORD not in refusal.error.message
    for bad in (b"", b"a\nb", b"a\0b"):
        with refused("INVALID_ARGUMENT"):
            client.guest.SetGuestPassword(pb.SetGuestPasswordRequest(name=NAME, user="root", password=bad))
    found = subprocess.run(["grep", "-rlaF", PASSWORD, daemon.folder], stdout=subprocess.PIPE, text=True).stdout
    assert not found, f"the password is in {found}"


def freeze(client, thaw_after=None):
    request = pb.FreezeGuestFilesystemsRequest(name=NAME)
    if thaw_after:
        request.thaw_after.FromMilliseconds(int(thaw_after * 1000))
    return client.guest.FreezeGuestFilesystems(request)


def check_freeze(daemon, client, shell):
    answer = freeze(client)
    status = get(client, NAME).status.agent
    assert answer.file_systems == 1 and status.frozen and status.frozen_file_systems == 1 and status.thaw_time == answer.thaw_time
    # No child of the shell's: one that ends while a line is read takes busybox' shell with it.
    shell.run("(setsid sh -c 'echo x >/mnt/x; sync; echo >/tmp/written' &); sleep 1; [ ! -e /tmp/written ]")
    with refused("FAILED_PRECONDITION", "GUEST_FROZEN") as refusal:
        run(client, "/bin/true")
    assert refusal.error.metadata["thaw_time"]
    with refused("FAILED_PRECONDITION", "GUEST_FROZEN"):
        freeze(client)
    client.guest.PingGuest(pb.PingGuestRequest(name=NAME))
    assert client.guest.ThawGuestFilesystems(pb.ThawGuestFilesystemsRequest(name=NAME)).file_systems == 1
    assert not frozen(client)
    shell.wait_for("[ -e /tmp/written ]")
    assert client.guest.ThawGuestFilesystems(pb.ThawGuestFilesystemsRequest(name=NAME)).file_systems == 0
    # By itself.
    freeze(client, thaw_after=1)
    wait_until(lambda: not frozen(client), "the thaw")
    # A daemon that dies leaves it to the next one.
    freeze(client, thaw_after=10)
    daemon.kill()
    daemon.start()
    client = daemon.client()
    wait_until(lambda: not frozen(client), "the thaw by the next daemon")
    shell.run("echo y >/mnt/y; sync")
    for bad in (0.5, 3601):
        with refused("INVALID_ARGUMENT"):
            freeze(client, thaw_after=bad)
    types = [pb.EVENT_TYPE_GUEST_FROZEN, pb.EVENT_TYPE_GUEST_THAWED, pb.EVENT_TYPE_DOMAIN_ADOPTED]
    events = list(reversed(client.event.ListEvents(pb.ListEventsRequest(filter=pb.EventFilter(types=types))).events))
    assert [event.reason for event in events if event.type != types[2]] == ["REQUESTED", "REQUESTED", "REQUESTED", "TIMEOUT", "REQUESTED", "TIMEOUT"]
    assert [event.type for event in events[-3:]] == [types[0], types[2], types[1]]
    return client


def check_vpctl(daemon, tmp_path):
    """The commands of vpctl guest."""
    def vpctl(*words, data=b"", code=0):
        done = subprocess.run([program("VPCTL", "clients/cli/vpctl"), "--connect", daemon.address, "guest", *words], input=data, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        assert done.returncode == code, done
        return done.stdout

    assert b"answers in" in vpctl("ping", NAME)
    assert vpctl("exec", NAME, "--", "/bin/sh", "-c", "cat; echo err >&2; exit 9", data=b"piped", code=9) == b"piped"
    assert vpctl("exec", NAME, "-n", "--chdir", "/etc", "-e", "A=1", "--", "sh", "-c", "pwd; echo $A") == b"/etc\n1\n"
    vpctl("exec", NAME, "-n", "--", "sh", "-c", "kill -9 $$", code=128 + 9)
    assert b'"exitCode": 3' in vpctl("exec", NAME, "-n", "-o", "json", "--", "sh", "-c", "exit 3", code=3).replace(b":3", b": 3")
    vpctl("exec", "nonesuch", "-n", "--", "true", code=1)
    vpctl("exec", NAME, code=2)
    data = os.urandom(500000)
    (tmp_path / "from").write_bytes(data)
    assert b"500000 bytes" in vpctl("write", NAME, "/tmp/sent", "--from", str(tmp_path / "from"))
    vpctl("write", NAME, "/tmp/sent", "--append", data=b"more")
    vpctl("write", NAME, "/tmp/sent", "--offset", "2", data=b"XY")
    vpctl("read", NAME, "/tmp/sent", "--to", str(tmp_path / "to"))
    assert (tmp_path / "to").read_bytes() == data[:2] + b"XY" + data[4:] + b"more"
    assert vpctl("read", NAME, "/tmp/sent", "--offset", "500000", "--length", "2") == b"mo"
    vpctl("read", NAME, "/nonesuch", code=1)
    assert b"127.0.0.1/8" in vpctl("addresses", NAME) and b"127.0.0.1" in vpctl("addresses", NAME, "-o", "name").split()
    assert b"kernel" in vpctl("info", NAME) and b"/mnt" in vpctl("info", NAME)
    vpctl("users", NAME)
    assert b"the host" in vpctl("time", NAME)
    assert b"2031" in vpctl("set-time", NAME, "2031-05-06T07:08:09Z")
    vpctl("set-time", NAME, "yesterday", code=2)
    vpctl("set-time", NAME)
    assert b"is set" in vpctl("set-password", NAME, "root", data=b"secret-of-vpctl\n")
    assert b"1 file systems are frozen" in vpctl("freeze", NAME, "--thaw-after", "60s")
    vpctl("exec", NAME, "-n", "--", "true", code=1)
    assert b"1 file systems were thawed" in vpctl("thaw", NAME)
    assert b"/mnt" in vpctl("trim", NAME)


def check_faults(client, shell):
    domain = get(client, NAME)
    request = pb.PingGuestRequest(name=NAME)
    request.timeout.FromMilliseconds(700)
    # An agent that hangs, and a QEMU that does.
    shell.run("kill -STOP $(pidof qemu-ga)")
    with refused("DEADLINE_EXCEEDED"):
        client.guest.PingGuest(request)
    shell.run("kill -CONT $(pidof qemu-ga)")
    wait_until(lambda: connected(client), "the agent's next answer")
    client.guest.PingGuest(pb.PingGuestRequest(name=NAME))
    os.kill(domain.status.pid, signal.SIGSTOP)
    with refused("DEADLINE_EXCEEDED"):
        client.guest.PingGuest(request)
    os.kill(domain.status.pid, signal.SIGCONT)
    client.guest.PingGuest(pb.PingGuestRequest(name=NAME, timeout={"seconds": 60}), timeout=60)
    # A guest that is paused is not asked.
    act(client, "Pause", NAME)
    with refused("FAILED_PRECONDITION", "WRONG_STATE"):
        client.guest.PingGuest(request)
    act(client, "Resume", NAME)
    # One that dies in the midst; it is seen to go, and to come.
    running = Exec(client, "/bin/sh", "-c", "echo here; sleep 1003").until(b"here")
    shell.run("kill -9 $(pidof qemu-ga)")
    with refused("UNAVAILABLE", "AGENT_DISCONNECTED"):
        running.end()
    wait_until(lambda: not connected(client), "the agent's going")
    with refused("FAILED_PRECONDITION", "AGENT_NOT_CONNECTED"):
        client.guest.PingGuest(pb.PingGuestRequest(name=NAME))
    # One that may not.
    shell.run(f"{QEMU_GA} -b guest-exec,guest-get-osinfo")
    wait_until(lambda: connected(client), "the agent's return")
    for call in (lambda: run(client, "/bin/true"), lambda: Exec(client, "/bin/true").end()):
        with refused("FAILED_PRECONDITION", "AGENT_COMMAND_BLOCKED") as refusal:
            call()
        assert "block-rpcs" in refusal.error.message
    info = client.guest.GetGuestInfo(pb.GetGuestInfoRequest(name=NAME)).info
    assert info.host_name and [(gap.command, gap.reason) for gap in info.gaps] == [("guest-get-osinfo", "AGENT_COMMAND_BLOCKED")]


# Plays the agent, after the real one has gone: lies, floods, says nothing. While the host has its end of the port closed a read ends at once.
HOSTILE = r"""
exec 3<>/dev/virtio-ports/org.qemu.guest_agent.0
while sleep 0.1; do while read -r line <&3; do
    case $line in
    *guest-sync-delimited*) id=${line##*:}; printf '\377{"return": %s}\n' "${id%%\}*}" ;;
    *guest-fsfreeze-status*) echo '{"return": "thawed"}' ;;
    *guest-ping*) echo '{"return": {}}' ;;
    *guest-info*) echo '{"return": {"version": 7, "supported_commands": 9}}' ;;
    *guest-get-users*) echo 'no JSON at all' ;;
    *guest-get-time*) echo '{"return": "late"}' ;;
    *guest-network*) dd if=/dev/zero bs=1M count=3 2>/dev/null | tr '\0' 1; echo ;;
    *guest-fsfreeze-freeze*) echo '{"return": -1}' ;;
    *guest-fsfreeze-thaw*) echo '{"return": 0}' ;;
    *guest-file-open*) echo '{"return": 1000}' ;;
    *guest-file-read*) echo '{"return": {"count": 4, "buf-b64": "####", "eof": false}}' ;;
    *guest-file-close*) echo closed >>/tmp/closed; echo '{"return": {}}' ;;
    *guest-exec-status*) echo '{"return": {"exited": true, "exitcode": "none"}}' ;;
    *guest-exec*) echo '{"return": {"pid": 17}}' ;;
    *guest-set-time*) echo '{"error": {"class": "GenericError", "desc": "'"$(dd if=/dev/zero bs=1k count=64 2>/dev/null | tr '\0' x)"'"}}' ;;
    esac >&3
done; done
"""


def check_hostile(client, shell):
    write(client, "/tmp/hostile", HOSTILE.encode())
    shell.run("kill $(pidof qemu-ga)")
    wait_until(lambda: not connected(client), "the agent's going")
    shell.run("(setsid sh -c 'echo $$ >/tmp/liar; exec sh /tmp/hostile' >/dev/null 2>&1 &)")
    wait_until(lambda: connected(client), "the one that lies")
    request = pb.GetGuestInfoRequest(name=NAME)
    request.timeout.FromMilliseconds(1500)
    for call, code, reason in (
            (lambda: client.guest.PingGuest(pb.PingGuestRequest(name=NAME)), "UNAVAILABLE", "AGENT_GARBAGE"),
            (lambda: client.guest.ListGuestUsers(pb.ListGuestUsersRequest(name=NAME)), "UNAVAILABLE", "AGENT_GARBAGE"),
            (lambda: client.guest.GetGuestTime(pb.GetGuestTimeRequest(name=NAME)), "UNAVAILABLE", "AGENT_GARBAGE"),
            (lambda: client.guest.ListGuestInterfaces(pb.ListGuestInterfacesRequest(name=NAME, timeout={"seconds": 60}), timeout=60),
             "RESOURCE_EXHAUSTED", "AGENT_ANSWER_TOO_LARGE"),
            (lambda: freeze(client), "UNAVAILABLE", "AGENT_GARBAGE"),
            (lambda: read(client, "/etc/passwd"), "UNAVAILABLE", "AGENT_GARBAGE"),
            (lambda: run(client, "/bin/true"), "UNAVAILABLE", "AGENT_GARBAGE"),
            (lambda: Exec(client, "/bin/true").end(), "UNAVAILABLE", "AGENT_GARBAGE"),
            (lambda: client.guest.GetGuestInfo(request), "DEADLINE_EXCEEDED", None)):
        with refused(code, reason):
            call()
    with refused("FAILED_PRECONDITION", "AGENT_ERROR") as refusal:
        client.guest.SetGuestTime(pb.SetGuestTimeRequest(name=NAME))
    assert len(refusal.error.message) < 2000
    shell.wait_for("[ -e /tmp/closed ]")
    assert not frozen(client)


def check_end(client):
    call = client.guest.ReadGuestFile(pb.ReadGuestFileRequest(name=NAME, path="/dev/zero"), timeout=60)
    next(call)
    os.kill(get(client, NAME).status.pid, signal.SIGKILL)
    with refused("UNAVAILABLE"):
        for _ in call:
            pass
    wait_until(lambda: get(client, NAME).status.state == pb.DOMAIN_STATE_CRASHED, "the domain's end")
    with refused("FAILED_PRECONDITION", "WRONG_STATE"):
        client.guest.PingGuest(pb.PingGuestRequest(name=NAME))


def open_files(shell):
    return shell.run("ls /proc/$(pidof qemu-ga)/fd | wc -l")


@fault("guest agent", "the agent hangs, or QEMU is stopped (SIGSTOP)",
       told="DEADLINE_EXCEEDED in the time asked for; once it goes on the next call is answered")
@fault("guest agent", "the agent lies, floods, or says nothing",
       told="`AGENT_GARBAGE`, `AGENT_ANSWER_TOO_LARGE` or DEADLINE_EXCEEDED; the next call is answered; what was opened in the guest is closed")
@fault("guest agent", "the daemon is killed while file systems are frozen", told="the next one thaws them in time; `GUEST_THAWED`, `TIMEOUT`")
@fault("guest command", "the client goes, or its time is up", told="ExecGuest ends the program and leaves no file open in the guest; RunGuestCommand's goes on")
@fault("guest command", "the agent is killed", told="UNAVAILABLE, `AGENT_DISCONNECTED`; the program goes on")
@fault("guest command", "the guest's administrator has switched it off", told="`AGENT_COMMAND_BLOCKED`, and where to allow it")
@fault(("guest agent", "guest command"), "QEMU is killed", told="UNAVAILABLE; DOMAIN_CRASHED")
def test_agent(daemon, client, tmp_path):
    image = str(tmp_path / "disk.img")
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", image, "16M"], check=True, stdout=subprocess.DEVNULL)
    disk = pb.Disk(target="vda", path=image, format=pb.IMAGE_FORMAT_RAW)
    with guest.shell(client, NAME, guest_agent=True, disks=[disk], interfaces=[pb.Interface(type=pb.INTERFACE_TYPE_USER)]) as shell:
        wait_until(lambda: connected(client), "the agent's first answer")
        shell.run("mount -t ext4 /dev/vda /mnt")
        before = open_files(shell)
        check_ping(client)
        check_run(client)
        check_exec(client)
        check_files(client)
        wait_until(lambda: open_files(shell) == before, "the files' close in the guest")
        check_what_is_told(client, shell)
        check_password(daemon, client)
        client = check_freeze(daemon, client, shell)
        check_vpctl(daemon, tmp_path)
        check_faults(client, shell)
        check_hostile(client, shell)
        shell.run("kill -9 $(cat /tmp/liar)")
        wait_until(lambda: not connected(client), "the liar's end")
        shell.run(QEMU_GA)
        # A later daemon finds it again.
        daemon.kill()
        daemon.start()
        client = daemon.client()
        wait_until(lambda: connected(client), "the agent after a restart")
        check_end(client)
