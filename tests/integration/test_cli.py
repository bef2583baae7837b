"""vpctl, as a person and as a script use it: output, exit codes, what it says when something is wrong."""
import json
import os
import signal
import subprocess

import pytest

from harness import images
from harness.client import pb
from harness.daemon import Lines, program, wait_until
from harness.domains import act, create, state


class Vpctl:
    def __init__(self, daemon):
        self.env = dict(daemon.env, VIRTPLANE_ENDPOINT=daemon.address, LC_ALL="C.UTF-8")
        self.folder = daemon.folder
        self.binary = program("VPCTL", "clients/cli/vpctl")

    def __call__(self, *arguments, code=0, **options):
        done = subprocess.run([self.binary, *arguments], env=self.env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=60, **options)
        assert done.returncode == code, f"vpctl {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments):
        return [json.loads(line) for line in self("--output", "json", *arguments).stdout.splitlines() if line.strip()]

    def popen(self, *arguments):
        return subprocess.Popen([self.binary, *arguments], env=self.env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture
def vpctl(daemon):
    return Vpctl(daemon)


def test_a_session(daemon, client, vpctl):
    images.qcow2(daemon.path("disk.qcow2"))
    assert "web" in vpctl("domain", "create", "web", "--memory", "64M", "--disk", "disk.qcow2,format=qcow2").stdout
    assert "running" in vpctl("domain", "start", "web").stdout.lower()
    assert "web" in vpctl("domain", "list").stdout
    shown = vpctl("domain", "show", "web").stdout
    assert daemon.path("disk.qcow2") in shown and "running" in shown.lower()
    for verb, after in (("pause", "PAUSED"), ("resume", "RUNNING"), ("shutdown", "SHUTTING_DOWN"), ("poweroff", "SHUTOFF")):
        vpctl("domain", verb, "web")
        assert state(client, "web") == after
    vpctl("domain", "delete", "web")
    assert "web" not in vpctl("domain", "list", "--all").stdout
    said = vpctl("events").stdout
    for word in ("created", "started", "paused", "resumed", "powered", "deleted"):
        assert word in said.lower()


def test_json_is_the_answer_itself(client, vpctl):
    create(client, "vm")
    text = vpctl("--output", "json", "domain", "show", "vm").stdout
    shown = json.loads(text)
    shown = shown.get("domain", shown)
    assert shown["name"] == "vm" and shown["spec"]["driver"] == "test" and shown["status"]["state"] == "DOMAIN_STATE_SHUTOFF"
    assert shown["spec"]["memoryBytes"] == str(64 << 20), "64-bit numbers are strings in protobuf's JSON"
    events = vpctl.json("events")
    assert [item["event"]["type"] for item in events if "event" in item][-1] == "EVENT_TYPE_DOMAIN_CREATED"


def test_names_alone(client, vpctl):
    for name in ("b", "a"):
        create(client, name)
    assert vpctl("--output", "name", "domain", "list", "--all").stdout.split() == ["a", "b"]


def test_yaml_goes_back_in(client, vpctl):
    create(client, "vm", labels={"tier": "web"})
    text = vpctl("--output", "yaml", "domain", "show", "vm").stdout
    assert "name: vm" in text
    text = "\n".join(line for line in text.split("\n") if not line.strip().startswith("uid:"))
    vpctl("domain", "create", "copy", "--from-file", "-", input=text)
    copy = client.domain.GetDomain(pb.GetDomainRequest(name="copy")).domain
    assert copy.spec.driver == "test" and dict(copy.labels) == {"tier": "web"}


def test_an_image_tree(daemon, vpctl):
    images.qcow2(daemon.path("base.qcow2"))
    images.qcow2(daemon.path("top.qcow2"), backing="base.qcow2", declare=False)
    done = vpctl("image", "inspect", "--format", "qcow2", "top.qcow2")
    assert daemon.path("top.qcow2") in done.stdout and "base.qcow2" in done.stdout and "\x1b" not in done.stdout
    assert "FORMAT_NOT_DECLARED" in done.stdout.upper().replace("-", "_").replace(" ", "_")
    messages = vpctl.json("image", "inspect", "--format", "qcow2", "top.qcow2")
    assert messages[-1]["summary"]["safe"] is True


def test_an_unsafe_image(daemon, vpctl):
    images.raw(daemon.path("secret.raw"))
    images.qcow2(daemon.path("base.qcow2"), backing="secret.raw", backing_format="raw")
    images.qcow2(daemon.path("top.qcow2"), backing="base.qcow2", declare=False)
    done = vpctl("image", "inspect", "--format", "qcow2", "top.qcow2", code=1)
    assert "PROBE_REFUSED_BACKING_FILE" in done.stdout.upper().replace("-", "_").replace(" ", "_")
    vpctl("domain", "create", "vm", "--disk", "top.qcow2,format=qcow2")
    done = vpctl("domain", "start", "vm", code=1)
    assert "PROBE_REFUSED_BACKING_FILE" in done.stderr and daemon.path("base.qcow2") in done.stderr and "remedy" in done.stderr
    # What the remedy says works when pasted (the image is the user's own here).
    done = vpctl("image", "record-backing-format", "--backing-format", "qcow2", "top.qcow2")
    assert images.recorded_backing_format(daemon.path("top.qcow2")) == "qcow2"
    vpctl("domain", "start", "vm")


def test_events_are_followed(client, vpctl):
    follow = vpctl.popen("events", "--follow", "--from", "1")
    try:
        create(client, "vm")
        act(client, "Start", "vm")
        lines = Lines(follow.stdout)
        while "domain_started" not in lines.next().lower().replace("-", "_"):
            pass
    finally:
        follow.send_signal(signal.SIGINT)
        follow.wait(10)


def test_a_cursor_survives_both_sides(daemon, vpctl):
    """Each event is shown once, though vpctl and the daemon are killed meanwhile."""
    cursor = daemon.path("cursor")
    shown = []

    def saved():
        try:
            with open(cursor, encoding="utf-8") as file:
                return int(file.read().split()[0])
        except (OSError, IndexError):
            return 0

    def follow_until(name):
        follow = vpctl.popen("--output", "json", "events", "--follow", "--from", "1", "--cursor", cursor) if not os.path.exists(cursor) else \
            vpctl.popen("--output", "json", "events", "--follow", "--cursor", cursor)
        lines = Lines(follow.stdout)
        while True:
            event = json.loads(lines.next()).get("event")
            if event and event["resourceType"] == "domain":
                shown.append(event["name"])
                if event["name"] == name:
                    # Shown first, saved then: an event is shown twice rather than not at all.
                    wait_until(lambda: saved() >= int(event["revision"]), "the saving of the cursor")
                    return follow

    create(daemon.client(), "a")
    follow = follow_until("a")
    follow.send_signal(signal.SIGINT)
    follow.wait(10)
    create(daemon.client(), "b")
    daemon.kill()
    daemon.start()
    create(daemon.client(), "c")
    follow = follow_until("c")
    follow.send_signal(signal.SIGINT)
    follow.wait(10)
    assert shown == ["a", "b", "c"]


def test_what_is_wrong_is_said(client, vpctl):
    create(client, "vm")
    done = vpctl("domain", "start", "nobody", code=1)
    assert "nobody" in done.stderr and "DOMAIN_NOT_FOUND" in done.stderr
    done = vpctl("domain", "create", "vm", "--driver", "test", code=1)
    assert "vm" in done.stderr
    assert "try" in vpctl("domain", "frobnicate", code=2).stderr.lower() or vpctl("domain", "frobnicate", code=2).stderr
    vpctl("domain", "create", "x", "--memory", "many", code=2)
    vpctl("--output", "xml", "domain", "list", code=2)
    vpctl("domain", "show", code=2)


def test_no_daemon(daemon, vpctl):
    daemon.stop()
    done = vpctl("domain", "list", code=1)
    assert daemon.socket in done.stderr and "virtplaned" in done.stderr


def test_connect_before_and_after(daemon, client, vpctl):
    create(client, "vm")
    del vpctl.env["VIRTPLANE_ENDPOINT"]
    assert "vm" in vpctl("--connect", daemon.address, "domain", "list", "--all").stdout
    assert "vm" in vpctl("domain", "list", "--all", "--connect", daemon.address).stdout


def test_help(vpctl):
    for arguments in ([], ["domain"], ["domain", "create"], ["events"]):
        done = vpctl(*arguments, "--help")
        assert "sage" in done.stdout
    assert vpctl("--version").stdout.strip() or vpctl("version").stdout.strip()


def test_host_and_daemon(daemon, vpctl):
    assert "qemu" in vpctl("host").stdout
    assert daemon.state_dir in vpctl("daemon").stdout


def test_names_from_outside_cannot_forge_lines(client, vpctl):
    """Labels and descriptions may hold what a terminal obeys; vpctl does not pass it on."""
    domain = pb.Domain(name="vm", labels={"note": "a\x1b[31mb"}, spec=pb.DomainSpec(driver="test", description="one\ntwo\x1b]0;title\x07"))
    client.domain.CreateDomain(pb.CreateDomainRequest(domain=domain))
    for arguments in (["domain", "show", "vm"], ["domain", "list", "--all"], ["events"]):
        assert "\x1b" not in vpctl(*arguments).stdout and "\x07" not in vpctl(*arguments).stdout


def test_both_programs_find_each_other(daemon):
    """With no flag at all. Run as an ordinary user's, in that user's own folders."""
    if os.getuid() != 0:
        drop = []
    else:
        drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    home = daemon.path("home")
    for name in ("run", "state"):
        os.makedirs(os.path.join(home, name))
        if drop:
            os.chown(os.path.join(home, name), 65534, 65534)
            os.chmod(daemon.folder, 0o755)
    env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": home + "/run", "XDG_STATE_HOME": home + "/state", "HOME": home,
           "ASAN_OPTIONS": daemon.env["ASAN_OPTIONS"]}
    binaries = [program("VIRTPLANED", "server/virtplaned"), program("VPCTL", "clients/cli/vpctl")]
    if drop and subprocess.run([*drop, binaries[0], "--version"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE).returncode != 0:
        # bazel's folders may be closed to others.
        for index, binary in enumerate(binaries):
            copy = daemon.path(os.path.basename(binary))
            subprocess.run(["install", "-m", "755", binary, copy], check=True)
            binaries[index] = copy
    other = subprocess.Popen([*drop, binaries[0]], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        lines = Lines(other.stdout)
        while not lines.next().lstrip("<>0123456789").startswith("ready"):
            pass
        done = subprocess.run([*drop, binaries[1], "domain", "create", "mine", "--driver", "test"], env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=30)
        assert done.returncode == 0, done.stdout
        done = subprocess.run([*drop, binaries[1], "domain", "list", "--all"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=30)
        assert "mine" in done.stdout
        assert os.path.exists(home + "/run/virtplane/virtplaned.sock")
    finally:
        other.terminate()
        assert other.wait(20) == 0
