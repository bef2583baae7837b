"""The store as clients and administrators see it: compare and set, pages amid writes, retention, backup, restore, check, stores of earlier versions."""
import glob
import os
import re
import sqlite3
import subprocess
import threading

import pytest

from harness.client import TOP, pb
from harness.daemon import program, wait_until
from harness.domains import act, create, get, names, state
from harness.errors import refused
from harness.events import Events


def revision(client):
    return client.admin.GetDaemon(pb.GetDaemonRequest()).daemon.revision


def vpctl(daemon, *arguments, code=0):
    done = subprocess.run([program("VPCTL", "clients/cli/vpctl"), *arguments], env=dict(daemon.env, VIRTPLANE_ENDPOINT=daemon.address), cwd=daemon.folder,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert done.returncode == code, f"vpctl {arguments}: {done.returncode}\n{done.stdout}"
    return done.stdout


# ---- writes and lists ----

def test_compare_and_set(client):
    """A change for a revision that has passed is refused with the present one, which then serves for the next try."""
    create(client, "vm")

    def update(text, expected):
        request = pb.UpdateDomainRequest(domain=pb.Domain(name="vm", revision=expected, spec=pb.DomainSpec(description=text)))
        request.update_mask.paths.append("spec.description")
        return client.domain.UpdateDomain(request).domain

    first = get(client, "vm").revision
    second = update("one", first).revision
    for call in (lambda: update("two", first), lambda: client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm", revision=first))):
        with refused("ABORTED", "REVISION_CONFLICT") as refusal:
            call()
        assert refusal.error.metadata["revision"] == str(second)
    assert get(client, "vm").spec.description == "one"
    third = update("two", int(refusal.error.metadata["revision"])).revision
    assert third > second
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="vm", revision=third))
    assert names(client) == []


def test_pages_are_stable_amid_writes(daemon, client):
    """All pages are of the first one's revision; who was there all along comes once; with the events after it the list is what is there in the end."""
    for i in range(60):
        create(client, f"stay-{i:02}")
    stop = threading.Event()

    def churn(number):
        writer = daemon.client()
        step = 0
        while not stop.is_set():
            name = f"{'az'[number]}-{step % 5}"
            create(writer, name)
            act(writer, "Start", name)
            act(writer, "PowerOff", name)
            deletions[number] = writer.domain.DeleteDomain(pb.DeleteDomainRequest(name=name)).revision
            step += 1

    deletions = [0, 0]
    writers = [threading.Thread(target=churn, args=(i,)) for i in range(2)]
    for writer in writers:
        writer.start()
    lists = []
    for _ in range(10):
        found, revisions, token = [], set(), ""
        while True:
            page = client.domain.ListDomains(pb.ListDomainsRequest(page_size=7, page_token=token))
            found, token = found + list(page.domains), page.next_page_token
            revisions.add(page.revision)
            if not token:
                break
        lists.append((found, revisions))
    stop.set()
    for writer in writers:
        writer.join()
    # GetDaemon may tell the revision of a change a moment after the change was answered.
    last = max(deletions)
    now = {domain.uid: domain.revision for domain in client.domain.ListDomains(pb.ListDomainsRequest(page_size=1000)).domains}
    for found, revisions in lists:
        assert len(revisions) == 1
        listed = [domain.name for domain in found]
        assert listed == sorted(set(listed)) and [name for name in listed if name.startswith("stay-")] == [f"stay-{i:02}" for i in range(60)]
        stream = Events(client, start_revision=revisions.pop() + 1)
        if stream.bookmarks[0] < last:
            stream.until_revision(last)
        known = {domain.uid: domain.revision for domain in found}
        # What a page shows may be newer than the list's revision: then it is told once more.
        for event in stream.events:
            known[event.uid] = max(event.revision, known.get(event.uid, 0))
            if event.type == pb.EVENT_TYPE_DOMAIN_DELETED:
                del known[event.uid]
        assert known == now
        stream.cancel()


def test_what_was_compacted_is_said(make_daemon):
    daemon = make_daemon(config="[events]\nmax_count = 50\nkeep_count = 10\n").start()
    client = daemon.client()
    for i in range(200):
        create(client, f"vm-{i}")
    last = revision(client)

    def oldest():
        return client.event.ListEvents(pb.ListEventsRequest(oldest_first=True, page_size=1)).events[0].revision

    wait_until(lambda: oldest() > last - 100, "the compaction")
    for ask in (lambda: next(client.event.WatchEvents(pb.WatchEventsRequest(start_revision=2), timeout=60)),
                lambda: client.event.ListEvents(pb.ListEventsRequest(start_revision=2))):
        with refused("OUT_OF_RANGE", "REVISION_COMPACTED") as refusal:
            ask()
        assert int(refusal.error.metadata["oldest_revision"]) == oldest()
    kept = Events(client, start_revision=oldest())
    kept.until_revision(last)
    assert [event.revision for event in kept.events] == list(range(oldest(), last + 1)) and len(kept.events) >= 10
    assert len(names(client)) == 200


# ---- backup, restore, check ----

def test_backup_and_restore(daemon, client):
    for i in range(20):
        create(client, f"before-{i}")
    act(client, "Start", "before-0")
    stop = threading.Event()

    def churn():
        writer = daemon.client()
        step = 0
        while not stop.is_set():
            create(writer, f"during-{step}")
            step += 1

    writer = threading.Thread(target=churn)
    writer.start()
    wait_until(lambda: "during-0" in names(client), "a writer")
    assert "at revision" in vpctl(daemon, "admin", "backup", "copy.db")
    assert "all is well" in vpctl(daemon, "admin", "check")
    stop.set()
    writer.join()
    assert os.stat(daemon.path("copy.db")).st_mode & 0o777 == 0o600
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="before-19"))
    last = revision(client)

    # Not under a running daemon.
    said = vpctl(daemon, "admin", "restore", "copy.db", "--state-dir", daemon.state_dir, code=1)
    assert str(daemon.process.pid) in said
    said = vpctl(daemon, "admin", "check", "--state-dir", daemon.state_dir, code=1)
    assert str(daemon.process.pid) in said
    daemon.stop()
    assert "all is well" in vpctl(daemon, "admin", "check", "--state-dir", daemon.state_dir)
    assert "all is well" in vpctl(daemon, "admin", "restore", "copy.db", "--state-dir", daemon.state_dir)
    assert os.path.exists(os.path.join(daemon.state_dir, "store.db.before-restore"))
    daemon.start()
    client = daemon.client()
    there = names(client)
    assert "before-19" in there and {f"before-{i}" for i in range(20)} <= set(there)
    assert state(client, "before-0") == "SHUTOFF"
    assert revision(client) < last
    with refused("OUT_OF_RANGE", "REVISION_IN_FUTURE"):
        next(client.event.WatchEvents(pb.WatchEventsRequest(start_revision=last + 1), timeout=60))
    create(client, "after")


def test_a_damaged_backup_is_refused(daemon, client):
    for i in range(50):
        create(client, f"vm-{i}")
    vpctl(daemon, "admin", "backup", "copy.db")
    there = names(client)
    daemon.stop()
    with open(daemon.path("copy.db"), "r+b") as file:
        for page in range(2, 8):
            file.seek(4096 * page)
            file.write(b"\x5a" * 2048)
    vpctl(daemon, "admin", "restore", "copy.db", "--state-dir", daemon.state_dir, code=1)
    with open(daemon.path("no.db"), "wb") as file:
        file.write(b"this is no database" * 100)
    for bad in ("no.db", "missing.db", daemon.folder):
        vpctl(daemon, "admin", "restore", bad, "--state-dir", daemon.state_dir, code=1)
    vpctl(daemon, "admin", "restore", "copy.db", code=2)
    daemon.start()
    assert names(daemon.client()) == there


def test_damage_is_found(daemon, client):
    for i in range(50):
        create(client, f"vm-{i}")
    daemon.stop()
    path = os.path.join(daemon.state_dir, "store.db")
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM journal WHERE revision = 20")
        database.execute("UPDATE kv SET value = x'0a0bff' WHERE key IN (SELECT key FROM kv WHERE key LIKE '/domains/%' LIMIT 1)")
    database.close()
    said = vpctl(daemon, "admin", "check", "--state-dir", daemon.state_dir, code=1)
    assert "DAMAGED" in said and "/domains/" in said
    said = vpctl(daemon, "--output", "json", "admin", "check", "--state-dir", daemon.state_dir, code=1)
    assert '"problems"' in said


# ---- earlier versions ----

DUMPS = sorted(glob.glob(os.path.join(TOP, "tests", "unit", "store", "schema", "v*.sql")))


@pytest.mark.parametrize("dump", DUMPS, ids=os.path.basename)
def test_a_daemon_on_an_earlier_store(make_daemon, dump):
    daemon = make_daemon()
    with open(dump, encoding="utf-8") as file, sqlite3.connect(os.path.join(daemon.state_dir, "store.db")) as database:
        database.executescript(file.read())
    database.close()
    daemon.start()
    client = daemon.client()
    assert len(names(client)) == 1
    history = Events(client, start_revision=1)
    history.until_revision(revision(client))
    assert [event.revision for event in history.events] == list(range(1, revision(client) + 1))
    create(client, "new")
    assert "all is well" in vpctl(daemon, "admin", "check")


def test_each_earlier_version_has_its_dump():
    with open(os.path.join(TOP, "server", "store", "schema.h"), encoding="utf-8") as file:
        version = int(re.search(r"#define VP_SCHEMA_VERSION (\d+)", file.read()).group(1))
    assert [os.path.basename(dump) for dump in DUMPS] == [f"v{number}.sql" for number in range(1, version)]
