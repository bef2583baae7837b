"""vpctl, as a person and as a script use it: output, exit codes, what it says when something is wrong."""
import contextlib
import json
import os
import pty
import re
import signal
import subprocess

import pytest

from harness import images
from harness.client import TOP, pb
from harness.daemon import Lines, program, wait_until
from harness.domains import act, create, state


class Vpctl:
    def __init__(self, daemon):
        self.env = dict(daemon.env, VIRTPLANE_ENDPOINT=daemon.address, LC_ALL="C.UTF-8")
        self.folder = daemon.folder
        self.binary = program("VPCTL", "clients/cli/vpctl")

    def __call__(self, *arguments, code=0, **options):
        done = subprocess.run([self.binary, *arguments], env=self.env, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=120, **options)
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
        follow.wait(60)


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
    follow.wait(60)
    create(daemon.client(), "b")
    daemon.kill()
    daemon.start()
    create(daemon.client(), "c")
    follow = follow_until("c")
    follow.send_signal(signal.SIGINT)
    follow.wait(60)
    assert shown == ["a", "b", "c"]


def test_what_is_wrong_is_said(client, vpctl):
    create(client, "vm")
    done = vpctl("domain", "start", "nobody", code=1)
    assert "nobody" in done.stderr and "DOMAIN_NOT_FOUND" in done.stderr
    done = vpctl("domain", "create", "vm", "--driver", "test", code=1)
    assert "vm" in done.stderr
    assert "Try 'vpctl domain --help'" in vpctl("domain", "frobnicate", code=2).stderr
    vpctl("domain", "create", "x", "--memory", "many", code=2)
    vpctl("--output", "xml", "domain", "list", code=2)
    vpctl("domain", "show", code=2)


@pytest.mark.parametrize("arguments, says", [
    ("domain create x --driver test --vcpus 0", "--vcpus is a number from 1 on"),
    ("domain create x --driver test --vcpus -1", "--vcpus is a number from 1 on"),
    ("domain create x --driver test --memory 0", "--memory is a size"),
    ("domain update x --vcpus 0", "--vcpus is a number from 1 on"),
    ("image inspect --max-depth 0 x.qcow2", "--max-depth is a number from 1 on"),
    ("image graph x.qcow2 -o json", "a picture has no --output json"),
    ("events --filter resource=typo", "there is domain, image, daemon, operation"),
    ("events --filter type=typo", "there is domain-created"),
    ("events --filter typo=x", "the keys are type"),
    ("image explain NOSUCHCODE", "there is no finding"),
    ("image explain PROBE_USE", "did you mean PROBE_USED?"),
    ("image explain REFUSED", "PROBE_REFUSED_BACKING_FILE, PROBE_REFUSED_DATA_FILE"),
    ("completion fish", "bash and zsh"),
    ("--connect nonsense host", "use unix:PATH or HOST:PORT"),
    ("domain", "a command is missing after \"domain\""),
    ("inspect x.qcow2", "there is vpctl image inspect"),
    ("domain lst", "did you mean \"list\"?"),
])
def test_wrong_usage_is_refused(client, vpctl, arguments, says):
    """With exit code 2, and nothing is asked of the daemon that was not meant."""
    create(client, "x")
    done = vpctl(*arguments.split(), code=2)
    assert says in done.stderr and not done.stdout
    assert vpctl("domain", "list", "-o", "name").stdout.split() == ["x"]
    assert client.domain.GetDomain(pb.GetDomainRequest(name="x")).domain.spec.vcpus == 1


def test_revisions_that_are_not_there_yet(daemon, client, vpctl):
    """Also those of a cursor that is of another store; and where nothing matches, that is said."""
    create(client, "vm")
    for arguments in (["events", "--from", "99999"], ["events", "--from", "99999", "--follow"]):
        done = vpctl(*arguments, code=1)
        assert "99999 is not there yet" in done.stderr and "REVISION_IN_FUTURE" in done.stderr and not done.stdout
    with open(daemon.path("cursor"), "w", encoding="utf-8") as file:
        file.write("99999\n")
    assert "another daemon" in vpctl("events", "--cursor", "cursor", code=1).stderr
    done = vpctl("events", "--filter", "name=nobody")
    assert done.stderr == "no events\n" and done.stdout == ""
    last = json.loads(vpctl("daemon", "-o", "json").stdout)["daemon"]["revision"]
    assert vpctl("events", "--from", str(int(last) + 1)).stderr == "no events\n"


def test_words_of_virsh(vpctl):
    """Each is answered with ours, which is there."""
    for word in ("define", "destroy", "undefine", "dominfo", "domstate", "dumpxml", "suspend", "setmem", "domblklist"):
        for words in ([word], ["domain", word]):
            said = vpctl(*words, "x", code=2).stderr
            ours = re.search(rf"virsh's {word} is here:  vpctl (.*)", said).group(1).split()
            assert "sage" in vpctl(*[part for part in ours if not re.match("[A-Z-]", part)][:2], "--help").stdout
    for words in (["list", "--all"], ["start", "web"], ["nodeinfo"], ["vol-list"]):
        assert f"virsh's {words[0]} is here:  vpctl " in vpctl(*words, code=2).stderr


def test_every_virsh_word_leads_to_a_command(vpctl):
    with open(os.path.join(TOP, "clients/cli/virsh.c"), encoding="utf-8") as file:
        words = re.findall(r'^    \{"([a-z-]+)", "vpctl ([a-z -]+)', file.read(), flags=re.M)
    assert len(words) > 20
    for ours in {tuple(part for part in ours.split() if not part.startswith("-")) for _, ours in words}:
        assert "sage" in vpctl(*ours, "--help").stdout, ours


def test_nothing_is_said_twice(daemon, client, vpctl):
    """Neither the remedy, nor what the message says already."""
    images.raw(daemon.path("secret.raw"))
    images.qcow2(daemon.path("base.qcow2"), backing="secret.raw", backing_format="raw")
    images.qcow2(daemon.path("top.qcow2"), backing="base.qcow2", declare=False)
    remedy = "record-backing-format --backing-format qcow2 " + daemon.path("top.qcow2")
    done = vpctl("image", "inspect", "--format", "qcow2", "top.qcow2", code=1)
    assert done.stdout.count(remedy) == 1
    vpctl("domain", "create", "vm", "--disk", "top.qcow2,format=qcow2")
    said = vpctl("domain", "start", "vm", code=1).stderr
    assert said.count(remedy) == said.count("emedy: ") == 1 and said.count("PROBE_REFUSED_BACKING_FILE") == 1
    assert said.count(daemon.path("base.qcow2")) == 1

    create(client, "test")
    act(client, "Start", "test")
    said = vpctl("domain", "start", "test", code=1).stderr
    assert said.count("cannot start") == said.count("RUNNING") == said.count("test") == 1
    said = vpctl("domain", "create", "many", "--vcpus", "5000", code=1).stderr
    assert said.count("must be between") == 1 and "domain.spec.vcpus" in said
    assert vpctl("image", "probe", "/dev/null", code=1).stderr.count("/dev/null") == 1


def test_an_undeclared_disk_is_mended_as_the_remedy_says(daemon, client, vpctl):
    images.qcow2(daemon.path("base.qcow2"))
    images.qcow2(daemon.path("top.qcow2"), backing="base.qcow2")
    vpctl("domain", "create", "vm", "--disk", "top.qcow2", "--memory", "64M")
    said = vpctl("domain", "start", "vm", code=1).stderr
    option = re.search(r"--disk (\S+,format=qcow2)", said).group(1)
    vpctl("domain", "update", "vm", "--disk", option)
    disk, = client.domain.GetDomain(pb.GetDomainRequest(name="vm")).domain.spec.disks
    assert (disk.path, disk.target, disk.format) == (daemon.path("top.qcow2"), "vda", pb.IMAGE_FORMAT_QCOW2)
    vpctl("domain", "start", "vm")
    vpctl("domain", "poweroff", "vm")

    images.raw(daemon.path("more.raw"))
    vpctl("domain", "update", "vm", "--disk", "more.raw,format=raw,bus=scsi", "--disk", "other.raw,target=vda,format=raw")
    disks = client.domain.GetDomain(pb.GetDomainRequest(name="vm")).domain.spec.disks
    assert [(disk.target, os.path.basename(disk.path)) for disk in disks] == [("vda", "other.raw"), ("sda", "more.raw")]


def test_a_folder_says_why_each_image_is_unsafe(daemon, vpctl):
    """Also where the layer that is to blame was told with another image."""
    os.mkdir(daemon.path("images"))
    images.raw(daemon.path("images/secret.raw"))
    images.qcow2(daemon.path("images/base.qcow2"), backing="secret.raw", backing_format="raw")
    images.qcow2(daemon.path("images/middle.qcow2"), backing="base.qcow2", declare=False)
    for name in ("a", "b", "c"):
        images.qcow2(daemon.path(f"images/{name}.qcow2"), backing="middle.qcow2")
    rows = {os.path.basename(line.split()[0]): line.split() for line in vpctl("image", "list", "images", "-F", "qcow2").stdout.splitlines()[1:7]}
    for name in ("a", "b", "c", "middle"):
        assert rows[name + ".qcow2"][-3:-1] == ["no", "PROBE_REFUSED_BACKING_FILE"], rows
    assert rows["base.qcow2"][-3:-1] == rows["secret.raw"][-3:-1] == ["yes", "-"]
    assert "6 images, 2 safe to open, 4 not" in vpctl("image", "list", "images", "-F", "qcow2").stdout


def test_xml_is_told_apart(daemon, vpctl):
    with open(daemon.path("web.xml"), "w", encoding="utf-8") as file:
        file.write("<domain type='kvm'><name>web</name></domain>")
    assert "YAML or JSON" in vpctl("domain", "create", "--from-file", "web.xml", code=1).stderr


def test_errors_for_programs(client, vpctl):
    """With --output json or yaml: one object on stderr, with all that the daemon said."""
    create(client, "vm")
    error = json.loads(vpctl("domain", "show", "nobody", "-o", "json", code=1).stderr)["error"]
    assert error["code"] == "NOT_FOUND" and error["reason"] == "DOMAIN_NOT_FOUND" and "nobody" in error["message"]
    error = json.loads(vpctl("domain", "create", "many", "--vcpus", "5000", "-o", "yaml", code=1).stderr)["error"]
    assert error["violations"][0]["field"] == "domain.spec.vcpus"
    vpctl.env["VIRTPLANE_ENDPOINT"] = "unix:/nonexistent"
    error = json.loads(vpctl("host", "-o", "json", code=1).stderr)["error"]
    assert error["code"] == "UNAVAILABLE" and error["reason"] == "NO_DAEMON"


def test_no_daemon(daemon, vpctl):
    daemon.stop()
    done = vpctl("domain", "list", code=1)
    assert daemon.socket in done.stderr and "virtplaned" in done.stderr


def test_no_way_to_the_daemon(daemon, client, vpctl):
    """Each cause has its advice."""
    said = vpctl("--connect", "unix:/nonexistent/sock", "host", code=1).stderr
    assert "no such socket" in said and "virtplaned" in said
    said = vpctl("--connect", "127.0.0.1:1", "host", code=1).stderr
    assert "Check the host and the port" in said
    if os.getuid() == 0:
        os.chmod(daemon.folder, 0o755)
        copy = daemon.path("vpctl")
        subprocess.run(["install", "-m", "755", vpctl.binary, copy], check=True)
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", copy, "host"], env=vpctl.env, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 1 and "belongs to another user" in done.stderr and "sudo vpctl" in done.stderr


def test_connect_before_and_after(daemon, client, vpctl):
    create(client, "vm")
    del vpctl.env["VIRTPLANE_ENDPOINT"]
    assert "vm" in vpctl("--connect", daemon.address, "domain", "list", "--all").stdout
    assert "vm" in vpctl("domain", "list", "--all", "--connect", daemon.address).stdout


def commands(vpctl):
    """All commands, as the help lists them: ("domain", "create"), ("events",)."""
    lines = re.findall(r"^  ([a-z][a-z -]*?) (?: |[A-Z\[])", vpctl("--help").stdout, flags=re.M)
    return [tuple(line.split()) for line in lines]


def test_help(vpctl):
    for arguments in ([], ["domain"], ["domain", "create"], ["events"]):
        done = vpctl(*arguments, "--help")
        assert "sage" in done.stdout
        assert vpctl("help", *arguments).stdout.replace("\u2026", "...") == done.stdout.replace("\u2026", "...")
    assert all(len(line) < 120 for line in vpctl("help").stdout.split("\n"))
    assert vpctl("--version").stdout.strip() or vpctl("version").stdout.strip()


def test_each_command_has_an_example(vpctl):
    found = commands(vpctl)
    assert len(found) > 25 and ("admin", "backup") in found and ("events",) in found
    for words in found:
        text = vpctl(*words, "--help").stdout
        assert f"  vpctl {' '.join(words)}" in text.split("Examples:")[1], text


def test_what_answers_in_every_form(daemon, client, vpctl):
    """-o json and yaml wherever there is an answer; -o name without a heading."""
    images.qcow2(daemon.path("disk.qcow2"))
    create(client, "vm")
    act(client, "Start", "vm")
    uid = vpctl("operation", "list", "-o", "name").stdout.split()[0]
    for words in (["domain", "list"], ["domain", "show", "vm"], ["image", "inspect", "disk.qcow2"], ["image", "list", "."], ["image", "probe", "disk.qcow2"],
                  ["image", "explain", "LOOP"], ["operation", "list"], ["operation", "show", uid], ["operation", "watch", uid], ["admin", "check"],
                  ["admin", "backup", "copy.db"], ["events"], ["host"], ["daemon"], ["version"], ["domain", "pause", "vm"],
                  ["domain", "update", "vm", "--description", "x"], ["domain", "create", "other", "--driver", "test"]):
        text = vpctl(*words, "-o", "json").stdout
        try:
            json.loads(text)
        except ValueError:
            assert [json.loads(line) for line in text.splitlines()], words
        if words[:2] not in (["domain", "pause"], ["domain", "create"]):
            assert re.match(r"(---\n)?[a-zA-Z]+:", vpctl(*words, "-o", "yaml").stdout), words
            assert vpctl(*words, "-o", "name").stdout.strip() or words == ["admin", "check"], words


def test_columns(client, vpctl):
    """Those of a table stay; more come with -o wide; --all, which virsh's users type, changes nothing."""
    create(client, "vm", labels={"tier": "front"})
    heading = vpctl("domain", "list").stdout.split("\n", maxsplit=1)[0].split()
    assert heading == ["NAME", "STATE", "VCPUS", "MEMORY", "DISKS", "DRIVER", "JOB"]
    wide = vpctl("domain", "list", "-o", "wide").stdout
    assert wide.split("\n", maxsplit=1)[0].split()[:7] == heading and "UID" in wide and "tier=front" in wide
    assert vpctl("domain", "list", "--all").stdout == vpctl("domain", "list").stdout


def test_long_messages_leave_the_table_in_shape(daemon, vpctl):
    vpctl("domain", "create", "vm", "--disk", daemon.path("nowhere" * 10) + ",format=qcow2")
    vpctl("domain", "start", "vm", code=1)
    short, wide = vpctl("operation", "list").stdout, vpctl("operation", "list", "-o", "wide").stdout
    assert "..." in short and max(map(len, short.split("\n"))) < 200 < max(map(len, wide.split("\n")))


def test_colours_on_a_terminal_alone(daemon, vpctl):
    images.qcow2(daemon.path("disk.qcow2"))

    def on_a_terminal(*arguments, **env):
        master, slave = pty.openpty()
        done = subprocess.run([vpctl.binary, *arguments], env=dict(vpctl.env, TERM="xterm", **env), cwd=daemon.folder, stdout=slave, stderr=slave,
                              stdin=slave, timeout=120)
        os.close(slave)
        said = b""
        with contextlib.suppress(OSError):
            while part := os.read(master, 65536):
                said += part
        os.close(master)
        return done.returncode, said.decode()

    inspect = ["image", "inspect", "disk.qcow2"]
    assert "\x1b[" in on_a_terminal(*inspect)[1]
    assert "\x1b[" not in on_a_terminal(*inspect, NO_COLOR="1")[1] and "\x1b[" not in vpctl(*inspect).stdout
    code, said = on_a_terminal("image", "graph", "disk.qcow2")
    assert code == 2 and "--file FILE" in said, "an SVG on a terminal"


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
                              stderr=subprocess.STDOUT, text=True, timeout=120)
        assert done.returncode == 0, done.stdout
        done = subprocess.run([*drop, binaries[1], "domain", "list", "--all"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=120)
        assert "mine" in done.stdout
        assert os.path.exists(home + "/run/virtplane/virtplaned.sock")
    finally:
        other.terminate()
        assert other.wait(60) == 0
