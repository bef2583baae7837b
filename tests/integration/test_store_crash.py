"""The store under kills, power cuts and failing disks: what was acknowledged is there, nothing by half, no event is lost, doubled or out of order."""
import errno
import os
import random
import signal
import threading
import time

import grpc
import pytest

from harness.client import pb
from harness.daemon import wait_until
from harness.disk import Disk
from harness.domains import act, create, get, names
from harness.errors import Refusal
from harness.events import Events

CLIENTS = 8
FULL = bool(os.environ.get("VIRTPLANE_FULL"))
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Writer(threading.Thread):
    """Creates, updates, starts, pauses, ends and deletes domains of its own until the daemon is gone.

    `model`: name -> (state, label) as acknowledged, None: must not be there. `doubt`: what the call without an answer may have made of its domain.
    """

    def __init__(self, daemon, number, model, seed):
        super().__init__(daemon=True)
        self.client, self.number, self.model = daemon.client(), number, model
        self.random, self.doubt, self.problem, self.revisions = random.Random(seed), None, None, []

    def step(self):
        name = f"vm-{self.number}-{self.random.randrange(5)}"
        now = self.model.get(name)
        label = str(self.random.randrange(1 << 30))
        if now is None:
            wanted, call = ("SHUTOFF", label), lambda: create(self.client, name, labels={"n": label}).revision
        else:
            choices = {"SHUTOFF": ("Start", "Delete", "Update"), "RUNNING": ("PowerOff", "Pause", "Update"), "PAUSED": ("Resume", "PowerOff", "Update")}
            choice = self.random.choice(choices[now[0]])
            states = {"Start": "RUNNING", "Resume": "RUNNING", "Pause": "PAUSED", "PowerOff": "SHUTOFF"}
            if choice == "Delete":
                wanted, call = None, lambda: self.client.domain.DeleteDomain(pb.DeleteDomainRequest(name=name)).revision
            elif choice == "Update":
                request = pb.UpdateDomainRequest(domain=pb.Domain(name=name, labels={"n": label}), update_mask={"paths": ["labels"]})
                wanted, call = (now[0], label), lambda: self.client.domain.UpdateDomain(request).domain.revision
            else:
                wanted, call = (states[choice], now[1]), lambda: act(self.client, choice, name).domain.revision
        self.doubt = (name, wanted)
        self.revisions.append(call())
        self.model[name] = wanted
        self.doubt = None

    def run(self):
        try:
            while True:
                self.step()
        except grpc.RpcError as error:
            if error.code() not in GONE:
                self.problem = Refusal(error)
        except ValueError:
            pass  # the channel was closed


class Consumer:
    """Reads the stream over all restarts from where it stood, and drops what comes again."""

    def __init__(self):
        self.events, self.again = [], 0

    def follow(self, client):
        """Starts at the last revision that was seen, not after it: its transaction may have come in part."""
        last = self.events[-1].revision if self.events else 1
        had = sum(1 for event in self.events if event.revision == last)
        self.stream = Events(client, start_revision=last)
        self.skip = had

    def take(self):
        """Takes what the stream brought until it ended."""
        came = list(self.stream.events)
        revisions = [event.revision for event in came]
        assert revisions == sorted(revisions), "out of order"
        again = came[:self.skip]
        assert again == self.events[len(self.events) - len(again):][:len(again)], "what came again is not what came first"
        self.again += len(again)
        self.events += came[self.skip:]


def check_after(client, models, writers, consumer_events):
    """Holds what is there against what was acknowledged; brings the models up to date."""
    answer = client.domain.ListDomains(pb.ListDomainsRequest(page_size=1000))
    there = {domain.name: domain for domain in answer.domains}
    for writer, model in zip(writers, models):
        possible = {name: [wanted] for name, wanted in model.items()}
        if writer.doubt:
            name, wanted = writer.doubt
            possible.setdefault(name, [model.get(name)]).append(wanted)
        for name, outcomes in possible.items():
            found = there.get(name)
            label = found.labels["n"] if found is not None else None
            assert label in [outcome and outcome[1] for outcome in outcomes], f"{name}: {label} is none of {outcomes}"
            # Domains of the test driver end with the daemon.
            model[name] = ("SHUTOFF", label) if found is not None else None
    assert all(domain.status.state == pb.DOMAIN_STATE_SHUTOFF for domain in there.values())
    check = client.admin.CheckStore(pb.CheckStoreRequest()).check
    assert not check.problems, check.problems
    assert check.domains == len(there)
    told = {(event.uid, event.revision) for event in consumer_events}
    untold = [domain.name for domain in there.values() if (domain.uid, domain.revision) not in told]
    assert not untold, f"changes without an event: {untold}"


def crash_rounds(daemon, rounds, cut=None):
    """Kills the daemon again and again under load; `cut(number)` does to its files what a power cut does."""
    models = [{} for _ in range(CLIENTS)]
    consumer = Consumer()
    last = 0
    daemon.start()
    for number in range(rounds):
        writers = [Writer(daemon, index, model, number * 100 + index) for index, model in enumerate(models)]
        consumer.follow(daemon.client())
        for writer in writers:
            writer.start()
        time.sleep(random.Random(number).uniform(0.02, 0.5))  # the moment is what varies; nothing is waited for
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        for writer in writers:
            writer.join(90)
            assert not writer.is_alive() and writer.problem is None, writer.problem
        consumer.stream.wait(lambda: consumer.stream.ended, "the stream's end")
        consumer.take()
        daemon.close_clients()
        if cut:
            cut(number)
        daemon.start()
        client = daemon.client()
        acknowledged = [revision for writer in writers for revision in writer.revisions]
        assert len(set(acknowledged)) == len(acknowledged), "a revision was given twice"
        revision = client.admin.GetDaemon(pb.GetDaemonRequest()).daemon.revision
        assert revision > max([last, *acknowledged]), "a revision was lost"
        last = revision
        consumer.follow(client)
        consumer.stream.until_revision(last)
        consumer.stream.cancel()
        consumer.take()
        check_after(client, models, writers, consumer.events)
    history = Events(client, start_revision=1)
    history.until_revision(last)
    assert [event.SerializeToString() for event in history.events if event.revision <= last] == [
        event.SerializeToString() for event in consumer.events if event.revision <= last]
    assert consumer.again >= rounds


@pytest.mark.timeout(1800 if FULL else 600)
def test_kills(make_daemon):
    crash_rounds(make_daemon(), 200 if FULL else 20)


@pytest.mark.timeout(1800 if FULL else 600)
def test_power_cuts(make_daemon):
    """The same, and what was not fsynced is gone, or there in part."""
    daemon = make_daemon()
    disk = Disk(daemon.folder)
    daemon.env.update(disk.env)
    chance = random.Random(4)
    lost = []
    crash_rounds(daemon, 200 if FULL else 20, lambda number: lost.append(disk.power_cut(daemon.state_dir, chance)))
    print(f"{sum(lost)} of {len(lost)} cuts lost something")
    assert sum(lost) > 0, "no cut came upon anything that was not fsynced: the test shows nothing"


def attempt(client, name):
    """Creates a domain; answers the refusal, None if it was made."""
    try:
        create(client, name)
        return None
    except grpc.RpcError as error:
        return Refusal(error)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_each_write_fails_in_turn(make_daemon, number):
    """The first write of a change fails, then the second, and so on: the change is refused and not there, and the next one is made."""
    daemon = make_daemon()
    disk = Disk(daemon.folder)
    daemon.env.update(disk.env)
    daemon.start()
    client = daemon.client()
    made, failed = [], 0
    for after in range(40):
        disk.fail(number, after, 1)
        name = f"fault-{after:02}"
        refusal = attempt(client, name)
        if refusal is None:
            made.append(name)
        else:
            failed += 1
            assert (refusal.code, refusal.reason) == (("RESOURCE_EXHAUSTED", "STORE_FULL") if number == errno.ENOSPC else ("UNAVAILABLE", "STORE_FAILED"))
            assert "store.db" in refusal.message
        unused = disk.faults_left()
        disk.heal()
        assert attempt(client, name + "-next") is None, "it does not recover"
        made.append(name + "-next")
        assert sorted(names(client)) == sorted(made)
        if refusal is None and unused:
            break
    assert failed >= 2, "no write was made to fail"
    assert unused, "the last write of a change was not reached"
    daemon.kill()
    disk.power_cut(daemon.state_dir)
    daemon.start()
    client = daemon.client()
    assert sorted(names(client)) == sorted(made)
    assert not client.admin.CheckStore(pb.CheckStoreRequest()).check.problems


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_for_a_while(make_daemon, number):
    """Under load, every write fails for some time, again and again: readers are answered, and it goes on by itself when the disk does.

    The journal is kept so short that its compaction fails as well.
    """
    daemon = make_daemon(config="[events]\nmax_count = 20\n")
    disk = Disk(daemon.folder)
    daemon.env.update(disk.env)
    daemon.start()
    client = daemon.client()
    made = []
    for turn in range(10 if FULL else 4):
        for i in range(30):
            name = f"vm-{turn}-{i:02}"
            create(client, name)
            made.append(name)
        disk.fail(number, after=turn)
        assert [attempt(client, f"bad-{turn}-{i}") for i in range(10)][-1] is not None
        made += [name for name in names(client) if name.startswith(f"bad-{turn}-")]
        assert get(client, made[0]).name == made[0]
        disk.heal()
        wait_until(lambda made_it=f"after-{turn}": attempt(client, made_it) is None, "writing again")
        made.append(f"after-{turn}")
        assert sorted(names(client)) == sorted(made)
    daemon.kill()
    disk.power_cut(daemon.state_dir)
    daemon.start()
    assert sorted(names(daemon.client())) == sorted(made)
