"""The daemon in trouble: killed, on a full or read-only disk, beside another one. What was acknowledged is never lost."""
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time

import grpc
import pytest

from harness.client import pb
from harness.daemon import process_state, wait_until
from harness.domains import act, create, get, names, state
from harness.errors import Refusal, refused
from harness.events import Events


def test_a_second_daemon_on_the_same_state(daemon, client, make_daemon):
    second = make_daemon()
    second.state_dir = daemon.state_dir
    code, said = second.try_start()
    assert code != 0
    assert str(daemon.process.pid) in said and daemon.state_dir in said, said
    create(client, "vm")
    assert names(client) == ["vm"]


def test_a_second_daemon_on_the_same_address(daemon, client, make_daemon):
    second = make_daemon()
    second.listen = [daemon.address]
    code, said = second.try_start()
    assert code != 0 and daemon.socket in said, said
    create(client, "vm")


def test_a_stale_socket_is_replaced(make_daemon):
    daemon = make_daemon().start()
    daemon.kill()
    assert stat.S_ISSOCK(os.stat(daemon.socket).st_mode), "kill -9 leaves the socket behind"
    daemon.start()
    assert names(daemon.client()) == []


def test_what_is_no_socket_is_not_replaced(make_daemon):
    daemon = make_daemon()
    with open(daemon.socket, "w", encoding="utf-8") as file:
        file.write("precious")
    code, said = daemon.try_start()
    assert code != 0 and daemon.socket in said
    with open(daemon.socket, encoding="utf-8") as file:
        assert file.read() == "precious"


def test_the_socket_goes_with_the_daemon(make_daemon):
    daemon = make_daemon().start()
    daemon.stop()
    assert not os.path.exists(daemon.socket)


def test_a_taken_port(make_daemon):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = make_daemon()
        daemon.listen = [daemon.address, "127.0.0.1:%d" % taken.getsockname()[1]]
        daemon.arguments = ["--insecure-tcp"]
        code, said = daemon.try_start()
        assert code != 0 and str(taken.getsockname()[1]) in said, said


@pytest.mark.parametrize("address", ["nonsense", "unix:", "unix:" + "/x" * 100, "127.0.0.1:99999"])
def test_bad_addresses(make_daemon, address):
    daemon = make_daemon()
    daemon.listen = [address]
    code, said = daemon.try_start()
    assert code != 0 and said.strip(), said


def test_bad_configuration(make_daemon):
    daemon = make_daemon(config="this is no key file\n")
    code, said = daemon.try_start()
    assert code != 0 and "virtplaned.conf" in said, said


def test_usage(make_daemon):
    command = make_daemon().command()[0]
    for flag in ("--help", "--version"):
        done = subprocess.run([command, flag], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout.strip()
    done = subprocess.run([command, "--nonesuch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2 and "--nonesuch" in done.stderr


def mount_prefix(*commands):
    """A command that mounts in a namespace of its own and runs the daemon there; the test is skipped where that may not be done."""
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/mnt"], stderr=subprocess.PIPE).returncode != 0:
        pytest.skip("mount namespaces may not be made here")
    return [*unshare, "sh", "-c", " && ".join([*commands, 'exec "$@"']), "sh"]


def test_a_read_only_state_folder(make_daemon):
    daemon = make_daemon()
    daemon.start()
    create(daemon.client(), "vm")
    daemon.stop()
    daemon.prefix = mount_prefix(f"mount --bind {daemon.state_dir} {daemon.state_dir}", f"mount -o remount,bind,ro {daemon.state_dir}")
    code, said = daemon.try_start()
    assert code != 0
    assert daemon.state_dir in said and "ead-only" in said, said
    daemon.prefix = []
    daemon.start()
    assert names(daemon.client()) == ["vm"]


def test_a_full_state_folder(make_daemon):
    """Writes are refused, reads go on, and nothing that was acknowledged is lost; with room again, writes are taken again."""
    daemon = make_daemon()
    daemon.prefix = mount_prefix(f"mount -t tmpfs -o size=2m,mode=700 none {daemon.state_dir}")
    daemon.start()
    client = daemon.client()
    filler = f"/proc/{daemon.process.pid}/root{daemon.state_dir}/filler"
    create(client, "first")
    try:
        with open(filler, "wb", buffering=0) as file:
            while file.write(b"x" * 4096) == 4096:
                pass
    except OSError:
        pass
    made = ["first"]
    error = None
    for i in range(2000):
        try:
            create(client, f"vm-{i:04}", labels={"note": "x" * 4000})
            made.append(f"vm-{i:04}")
        except grpc.RpcError as failure:
            error = Refusal(failure)
            break
    assert error is not None and error.code == "RESOURCE_EXHAUSTED" and error.reason == "STORE_FULL", error
    assert sorted(names(client)) == sorted(made)
    assert get(client, "first").name == "first"
    os.unlink(filler)

    def works_again():
        try:
            create(client, "after")
            return True
        except grpc.RpcError:
            return False

    wait_until(works_again, "writing with room again")
    made.append("after")
    assert sorted(names(client)) == sorted(made)


def test_a_damaged_store_is_not_used(make_daemon):
    daemon = make_daemon().start()
    create(daemon.client(), "vm")
    daemon.stop()
    for folder, _, files in os.walk(daemon.state_dir):
        for file in files:
            path = os.path.join(folder, file)
            with open(path, "rb") as data:
                if data.read(16).startswith(b"SQLite format 3"):
                    with open(path, "r+b") as data:
                        data.write(b"garbage, not a data base at all" * 200)
    code, said = daemon.try_start()
    assert code != 0 and daemon.state_dir in said, said


class Writer(threading.Thread):
    """Creates, starts, stops and deletes domains until the daemon is gone, and notes what was acknowledged.

    `model` has what must be there: name -> (state, labels), or None for a domain that must not. `doubt` has the name whose last
    call got no answer: either outcome is right.
    """

    def __init__(self, daemon, number, model):
        super().__init__(daemon=True)
        self.client, self.number, self.model, self.doubt = daemon.client(), number, model, None
        self.random, self.problem, self.revisions = random.Random(number), None, []

    def step(self):
        name = f"vm-{self.number}-{self.random.randrange(6)}"
        self.doubt = name
        now = self.model.get(name)
        if now is None:
            self.revisions.append(create(self.client, name).revision)
            self.model[name] = "SHUTOFF"
        elif now == "RUNNING":
            self.revisions.append(act(self.client, "PowerOff", name).domain.revision)
            self.model[name] = "SHUTOFF"
        elif self.random.random() < 0.5:
            self.revisions.append(act(self.client, "Start", name).domain.revision)
            self.model[name] = "RUNNING"
        else:
            self.revisions.append(self.client.domain.DeleteDomain(pb.DeleteDomainRequest(name=name)).revision)
            self.model[name] = None
        self.doubt = None

    def run(self):
        try:
            while True:
                self.step()
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                self.problem = Refusal(error)
        except ValueError:
            pass  # the channel was closed


def test_kill_at_random_moments(make_daemon):
    """kill -9 under load from 4 clients, again and again: all that was acknowledged is there, and revisions only grow."""
    rounds = 20 if os.environ.get("VIRTPLANE_FULL") else 8
    daemon = make_daemon().start()
    models = [{} for _ in range(4)]
    last = 0
    for number in range(rounds):
        writers = [Writer(daemon, index, model) for index, model in enumerate(models)]
        for writer in writers:
            writer.random.seed(number * 100 + writer.number)
            writer.start()
        time.sleep(random.Random(number).uniform(0.05, 0.6))  # the moment is what varies; nothing is waited for
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        for writer in writers:
            writer.join(90)
            assert not writer.is_alive() and writer.problem is None, writer.problem
        daemon.close_clients()
        daemon.start()
        client = daemon.client()
        there = {domain.name: domain for domain in client.domain.ListDomains(pb.ListDomainsRequest(page_size=1000)).domains}
        acknowledged = max([revision for writer in writers for revision in writer.revisions], default=0)
        revision = client.admin.GetDaemon(pb.GetDaemonRequest()).daemon.revision
        assert revision > acknowledged >= 0 and revision > last, "a revision was lost or used twice"
        last = revision
        for writer, model in zip(writers, models):
            for name, wanted in list(model.items()):
                found = there.get(name)
                if name != writer.doubt:
                    assert (found is not None) == (wanted is not None), f"{name}: acknowledged as {wanted}, is {found}"
                # Domains of the test driver end with the daemon.
                model[name] = "SHUTOFF" if found is not None else None
            if writer.doubt:
                model[writer.doubt] = "SHUTOFF" if writer.doubt in there else None
        assert all(domain.status.state == pb.DOMAIN_STATE_SHUTOFF for domain in there.values())
    # The journal tells the same story: strictly in order, and each domain's events end as the domain is.
    events = Events(client, start_revision=1)
    events.until_revision(last)
    revisions = [event.revision for event in events.events]
    assert revisions == sorted(revisions)
    created = {event.uid: event.name for event in events.events if event.type == pb.EVENT_TYPE_DOMAIN_CREATED}
    deleted = {event.uid for event in events.events if event.type == pb.EVENT_TYPE_DOMAIN_DELETED}
    assert {name for uid, name in created.items() if uid not in deleted} == set(names(client))


def test_a_request_id_survives_a_kill(make_daemon):
    daemon = make_daemon().start()
    first = create(daemon.client(), "vm", request_id="once")
    daemon.kill()
    daemon.start()
    client = daemon.client()
    assert create(client, "vm", request_id="once").uid == first.uid
    with refused("INVALID_ARGUMENT"):
        create(client, "other", request_id="once")


def test_stop_and_start_keeps_everything(daemon):
    client = daemon.client()
    made = {name: create(client, name, labels={"x": name}) for name in ("a", "b", "c")}
    act(client, "Start", "b")
    daemon.restart()
    client = daemon.client()
    assert names(client) == ["a", "b", "c"]
    assert get(client, "a") == made["a"]
    assert state(client, "b") == "SHUTOFF" and get(client, "b").status.reason == "WHILE_DAEMON_DOWN"


def test_sigterm_twice_and_sigint(make_daemon):
    for signals in ([signal.SIGTERM, signal.SIGTERM], [signal.SIGINT]):
        daemon = make_daemon().start()
        for number in signals:
            daemon.process.send_signal(number)
        daemon.wait_end()


def test_a_frozen_daemon_goes_on_after_sigcont(daemon, client):
    create(client, "vm")
    daemon.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: process_state(daemon.process.pid) == "T", "the stop")
    daemon.process.send_signal(signal.SIGCONT)
    assert state(client, "vm") == "SHUTOFF"


def test_few_descriptors(make_daemon):
    """A daemon that runs out of descriptors refuses what it cannot do and lives on."""
    daemon = make_daemon(prefix=["prlimit", "--nofile=64"])
    daemon.start()
    client = daemon.client()
    create(client, "vm")
    sockets = []
    for _ in range(100):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(1)
        try:
            connection.connect(daemon.socket)
        except OSError:
            connection.close()
            break
        sockets.append(connection)
    for connection in sockets:
        connection.close()

    def answers():
        try:
            return names(daemon.client()) == ["vm"]
        except grpc.RpcError:
            return False

    wait_until(answers, "an answer to a new client")
    assert names(client) == ["vm"]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 4096, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1000, b""])
def test_what_is_no_grpc_does_no_harm(daemon, client, data):
    for _ in range(20):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(daemon.socket)
        connection.sendall(data)
        connection.close()
    create(client, "vm")
    assert names(client) == ["vm"]


def test_a_state_folder_that_cannot_be_made(make_daemon):
    daemon = make_daemon()
    shutil.rmtree(daemon.state_dir)
    with open(daemon.state_dir, "w", encoding="utf-8") as file:
        file.write("a file where a folder should be")
    code, said = daemon.try_start()
    assert code != 0 and daemon.state_dir in said, said
