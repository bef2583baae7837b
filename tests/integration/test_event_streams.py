"""Event streams at their edges: list then watch, labels, batches, compaction, resuming at each boundary, ranges of the history."""
import threading

import grpc
import pytest

from harness import images
from harness.client import Client, pb
from harness.domains import act, create, names
from harness.errors import refused
from harness.events import Events

INTERVAL = pb.WatchEventsRequest().bookmark_interval
INTERVAL.FromMilliseconds(100)


def revision(client):
    return client.admin.GetDaemon(pb.GetDaemonRequest()).daemon.revision


def describe(client, name, text):
    request = pb.UpdateDomainRequest(domain=pb.Domain(name=name, spec=pb.DomainSpec(description=text)))
    request.update_mask.paths.append("spec.description")
    return client.domain.UpdateDomain(request).domain


def history(client, page_size=3, **request):
    found, token = [], ""
    while True:
        answer = client.event.ListEvents(pb.ListEventsRequest(page_token=token, page_size=page_size, **request))
        found += answer.events
        token = answer.next_page_token
        if not token:
            return found


def replay(states, events):
    """What a consumer knows: the list with the events on it. Fails where one is not what it must be: a gap or a duplicate."""
    known = {state.uid: state.revision for state in states}
    assert len(known) == len(states)
    for event in events:
        if event.resource_type != "domain":
            continue
        if event.type == pb.EVENT_TYPE_DOMAIN_CREATED:
            assert event.uid not in known, f"{event.name} is created twice"
        else:
            assert event.uid in known and event.revision >= known[event.uid], f"{event.name}: {event.revision} was in the list already"
        known[event.uid] = event.revision
        if event.type == pb.EVENT_TYPE_DOMAIN_DELETED:
            del known[event.uid]
    return known


# ---- list, then watch ----

def test_the_state_comes_first(client):
    for i in range(150):
        create(client, f"vm-{i}", labels={"half": str(i % 2)})
    events = Events(client, send_initial_state=True)
    assert sorted(state.name for state in events.states) == sorted(names(client))
    end = events.messages[-1].bookmark
    assert end.initial_state_end and end.revision == revision(client)
    assert [state.uid for state in events.states] == sorted(state.uid for state in events.states)
    first = client.domain.GetDomain(pb.GetDomainRequest(uid=events.states[0].uid)).domain
    assert first == events.states[0]
    created = create(client, "next")
    assert events.until("DOMAIN_CREATED").revision == created.revision == end.revision + 1
    assert not any(message.bookmark.initial_state_end for message in events.messages[151:])


def test_the_state_of_nothing(client):
    events = Events(client, send_initial_state=True)
    assert events.states == [] and events.messages[0].bookmark.initial_state_end
    create(client, "vm")
    events.until("DOMAIN_CREATED", "vm")


@pytest.mark.parametrize("fields, wanted", [
    (dict(labels={"half": "1"}), {"b"}),
    (dict(names=["a", "c"]), {"a", "c"}),
    (dict(resource_types=["daemon"]), set()),
    (dict(drivers=["qemu"]), set()),
    (dict(types=[pb.EVENT_TYPE_DOMAIN_DELETED]), {"a", "b", "c"}),
])
def test_the_state_of_a_filter(client, fields, wanted):
    for name, half in (("a", "0"), ("b", "1"), ("c", "0")):
        create(client, name, labels={"half": half})
    events = Events(client, send_initial_state=True, filter=pb.EventFilter(**fields))
    assert {state.name for state in events.states} == wanted


def test_the_state_of_few_among_many(daemon, client):
    """A filter that lets next to nothing pass: the list is looked at in parts."""
    for call in [client.domain.CreateDomain.future(pb.CreateDomainRequest(domain=pb.Domain(name=f"vm-{i}", spec=pb.DomainSpec(driver="test"))))
                 for i in range(1000)]:
        call.result()
    last = max(client.domain.ListDomains(pb.ListDomainsRequest(page_size=1000)).domains, key=lambda domain: domain.uid)
    for wanted in ([last.name], ["nobody"]):
        events = Events(client, send_initial_state=True, filter=pb.EventFilter(names=wanted))
        events.wait(lambda found=events: found.messages[-1].bookmark.initial_state_end, "the state's end")
        assert [state.name for state in events.states] == [name for name in wanted if name == last.name]
        events.cancel()


def test_no_gap_and_no_duplicate_while_everything_changes(daemon):
    """Lists taken amid changes, each with the events after it, all end in the same state."""
    stop, failures = threading.Event(), []

    def work(number):
        client = daemon.client()
        try:
            step = 0
            while not stop.is_set():
                name = f"vm-{number}-{step % 7}"
                create(client, name)
                describe(client, name, "x")
                if step >= 3:
                    client.domain.DeleteDomain(pb.DeleteDomainRequest(name=f"vm-{number}-{(step - 3) % 7}"))
                step += 1
        except grpc.RpcError as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    streams = [Events(daemon.client(), send_initial_state=True, bookmark_interval=INTERVAL, max_batch=(i % 2) * 16) for i in range(30)]
    stop.set()
    for worker in workers:
        worker.join()
    assert not failures
    client = daemon.client()
    last = revision(client)
    now = {domain.uid: domain.revision for domain in client.domain.ListDomains(pb.ListDomainsRequest()).domains}
    for stream in streams:
        stream.until_revision(last)
        assert replay(stream.states, stream.events) == now
        revisions = [event.revision for event in stream.events]
        assert revisions == sorted(revisions) and (not revisions or revisions[0] > stream.bookmarks[0])


def test_a_large_state_goes_at_the_readers_pace(make_daemon):
    """2,000 domains of 4 KiB to readers that do not read: the daemon waits for them, and they find all."""
    daemon = make_daemon().start()
    client = daemon.client()
    for call in [client.domain.CreateDomain.future(pb.CreateDomainRequest(
            domain=pb.Domain(name=f"vm-{i}", labels={"note": "x" * 4000}, spec=pb.DomainSpec(driver="test")))) for i in range(2000)]:
        call.result()
    slow = Client(daemon.address, [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65535)])
    daemon.clients.append(slow)
    streams = [slow.event.WatchEvents(pb.WatchEventsRequest(send_initial_state=True)) for _ in range(5)]
    listed = revision(client)
    firsts = [next(stream) for stream in streams]
    act(client, "Start", "vm-0")
    for stream, first in zip(streams, firsts):
        found = {first.state.domain.uid}
        for message in stream:
            if message.WhichOneof("payload") == "bookmark":
                break
            found.add(message.state.domain.uid)
        assert len(found) == 2000 and message.bookmark.initial_state_end and message.bookmark.revision == listed
        assert next(stream).event.type == pb.EVENT_TYPE_DOMAIN_STARTING
        stream.cancel()


def test_a_list_and_a_revision_exclude_each_other(client):
    with refused("INVALID_ARGUMENT") as refusal:
        next(client.event.WatchEvents(pb.WatchEventsRequest(send_initial_state=True, start_revision=1), timeout=60))
    assert "start_revision" in refusal.error.violations


# ---- labels ----

def test_events_carry_the_labels_of_their_time(client):
    events = Events(client, filter=pb.EventFilter(labels={"tier": "web"}))
    create(client, "a", labels={"tier": "web", "zone": "1"})
    create(client, "b", labels={"tier": "db"})
    act(client, "Start", "a")
    act(client, "PowerOff", "a")
    request = pb.UpdateDomainRequest(domain=pb.Domain(name="a", labels={"tier": "db"}))
    request.update_mask.paths.append("labels")
    client.domain.UpdateDomain(request)
    request = pb.UpdateDomainRequest(domain=pb.Domain(name="b", labels={"tier": "web"}))
    request.update_mask.paths.append("labels")
    client.domain.UpdateDomain(request)
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="a"))
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name="b"))
    events.until("DOMAIN_DELETED", "b")
    assert [(event.name, pb.EventType.Name(event.type)[len("EVENT_TYPE_DOMAIN_"):]) for event in events.events] == [
        ("a", "CREATED"), ("a", "STARTING"), ("a", "STARTED"), ("a", "POWERED_OFF"), ("b", "UPDATED"), ("b", "DELETED")]
    assert dict(events.events[0].labels) == {"tier": "web", "zone": "1"}
    # The journal answers as the stream did, though neither domain is there any more.
    assert history(client, filter=pb.EventFilter(labels={"tier": "web"}), oldest_first=True) == events.events
    assert history(client, filter=pb.EventFilter(labels={"tier": "web", "zone": "1"}, names=["b"])) == []


def test_labels_are_bounded(client):
    create(client, "most", labels={"k": "x" * 4000, "l": "x" * 4000, "m": "x" * 4000, "n": "x" * 4000})
    with refused("INVALID_ARGUMENT"):
        create(client, "more", labels={"k": "x" * 4000, "l": "x" * 4000, "m": "x" * 4000, "n": "x" * 4000, "o": "x" * 400})


# ---- batches ----

def test_batches(client):
    singles = Events(client)
    for i in range(300):
        create(client, f"vm-{i}")
    singles.until("DOMAIN_CREATED", "vm-299")
    batches = Events(client, start_revision=singles.events[0].revision, max_batch=100)
    batches.until("DOMAIN_CREATED", "vm-299")
    assert batches.events == singles.events
    sizes = [len(message.events.events) for message in batches.messages[1:]]
    assert max(sizes) == 100 and sum(sizes) == 300 and 0 not in sizes
    # One alone comes at once.
    create(client, "alone")
    batches.until("DOMAIN_CREATED", "alone")
    with refused("INVALID_ARGUMENT"):
        next(client.event.WatchEvents(pb.WatchEventsRequest(max_batch=1001), timeout=60))


# ---- resuming ----

def start_with_findings(daemon, client, name):
    """A domain whose start makes one transaction with several events; answers that revision and how many events it has."""
    base, top = daemon.path(name + "-base.raw"), daemon.path(name + "-top.qcow2")
    images.qcow2(base)
    images.qcow2(top, backing=base, declare=False)
    create(client, name, driver="qemu", disks=[top])
    try:
        act(client, "Start", name)
    except grpc.RpcError:
        pass  # the findings are told all the same
    by_revision = {}
    for event in history(client, oldest_first=True):
        by_revision.setdefault(event.revision, []).append(event)
    return max(by_revision.items(), key=lambda item: len(item[1]))


def test_resuming_at_each_boundary(daemon, client):
    """At, right after and in the middle of a transaction of several events; at the last revision; at the next; in the future."""
    several, of_it = start_with_findings(daemon, client, "vm")
    assert len(of_it) >= 2, "no transaction with several events was made"
    create(client, "last")
    last = revision(client)
    everything = history(client, oldest_first=True)
    for start in range(1, last + 2):
        for batch in (0, 1, 2, 1000):
            stream = Events(client, start_revision=start, bookmark_interval=INTERVAL, max_batch=batch)
            stream.wait(lambda: len(stream.bookmarks) >= 2, "a bookmark")
            assert stream.events == [event for event in everything if event.revision >= start]
            stream.cancel()
    # A consumer that broke off in the middle comes back with the last revision that it has whole, and gets all of the next one.
    again = Events(client, start_revision=several)
    again.until_revision(last)
    assert again.events[:len(of_it)] == of_it
    for start, reason in ((last + 2, "REVISION_IN_FUTURE"), (1 << 62, "REVISION_IN_FUTURE")):
        with refused("OUT_OF_RANGE") as refusal:
            next(client.event.WatchEvents(pb.WatchEventsRequest(start_revision=start), timeout=60))
        assert refusal.error.reason == reason and refusal.error.metadata["next_revision"] == str(last + 1)


def test_pages_cut_a_transaction_anywhere(daemon, client):
    start_with_findings(daemon, client, "vm")
    whole = history(client, page_size=1000, oldest_first=True)
    for size in (1, 2, 3):
        assert history(client, page_size=size, oldest_first=True) == whole
        backwards = history(client, page_size=size)
        assert [event.SerializeToString() for event in backwards] == [event.SerializeToString() for event in whole[::-1]]


# ---- ranges of the history ----

def test_ranges_of_revisions(client):
    for i in range(10):
        create(client, f"vm-{i}")
    everything = history(client, oldest_first=True)
    last = everything[-1].revision
    for start in (0, 1, 2, last - 3, last, last + 1, last + 100):
        for end in (0, 1, 2, last - 3, last, last + 1, last + 100):
            wanted = [event for event in everything if event.revision >= start and (end == 0 or event.revision < end)]
            assert history(client, start_revision=start, end_revision=end, oldest_first=True) == wanted
            assert history(client, start_revision=start, end_revision=end) == wanted[::-1]
    for field in ("start_revision", "end_revision"):
        with refused("INVALID_ARGUMENT"):
            client.event.ListEvents(pb.ListEventsRequest(**{field: -1}))


def test_ranges_of_time(client):
    for i in range(10):
        create(client, f"vm-{i}")
    everything = history(client, oldest_first=True)
    for at in (0, 3, len(everything) - 1):
        time = everything[at].time
        key = (time.seconds, time.nanos)
        after = [event for event in everything if (event.time.seconds, event.time.nanos) >= key]
        before = [event for event in everything if (event.time.seconds, event.time.nanos) < key]
        assert history(client, start_time=time, oldest_first=True) == after
        assert history(client, end_time=time, oldest_first=True) == before
        assert history(client, start_time=time) == after[::-1]
        assert history(client, start_time=time, end_time=time) == []
    bad = pb.ListEventsRequest()
    bad.start_time.seconds = 1 << 60
    with refused("INVALID_ARGUMENT"):
        client.event.ListEvents(bad)


def test_pages_are_stable_while_events_come(client):
    for i in range(20):
        create(client, f"vm-{i}")
    before = history(client, page_size=1000)
    first = client.event.ListEvents(pb.ListEventsRequest(page_size=5))
    for i in range(20):
        create(client, f"more-{i}")
    found, token = list(first.events), first.next_page_token
    while token:
        answer = client.event.ListEvents(pb.ListEventsRequest(page_size=5, page_token=token))
        found, token = found + list(answer.events), answer.next_page_token
    assert found == before
    # A token is bound to its question.
    with refused("INVALID_ARGUMENT"):
        client.event.ListEvents(pb.ListEventsRequest(page_token=first.next_page_token, end_revision=5))


# ---- what else is told ----

def test_a_failed_operation_is_told(client):
    create(client, "vm", labels={"test.fault.pause": "fail:UNAVAILABLE:not now"})
    events = Events(client)
    with refused("FAILED_PRECONDITION"):
        act(client, "Resume", "vm")  # never begun: told to the caller alone
    act(client, "Start", "vm")
    with refused("UNAVAILABLE"):
        act(client, "Pause", "vm")
    event = events.until("OPERATION_FAILED")
    assert (event.resource_type, event.name, event.reason, event.driver) == ("operation", "domain.pause", "INJECTED", "test")
    assert "vm" in event.detail and "not now" in event.detail
    assert client.operation.GetOperation(pb.GetOperationRequest(uid=event.uid)).operation.type == "domain.pause"
    assert events.kinds() == ["DOMAIN_STARTING", "DOMAIN_STARTED", "OPERATION_FAILED"]


def test_a_page_of_operations_is_bounded_in_bytes(client):
    """Operations whose errors are as long as can be: a page is no more than a client takes by default."""
    label = "fail:UNAVAILABLE:" + "x" * 4000
    for i in range(50):
        create(client, f"vm-{i}", labels={"test.fault.start": label})
    calls = [client.domain.StartDomain.future(pb.StartDomainRequest(name=f"vm-{i % 50}")) for i in range(900)]
    assert all(call.code() == grpc.StatusCode.UNAVAILABLE for call in calls)
    found, token, pages = [], "", 0
    while True:
        page = client.operation.ListOperations(pb.ListOperationsRequest(page_size=1000, page_token=token))
        assert page.ByteSize() < (3 << 20) + 10000
        found, token, pages = found + [operation.uid for operation in page.operations], page.next_page_token, pages + 1
        if not token:
            break
    assert len(found) == len(set(found)) >= 900 and pages >= 2


def test_many_streams_come_and_go(daemon):
    """Streams that are cancelled at any point, while events come, leave the daemon whole."""
    stop = threading.Event()

    def write():
        client, step = daemon.client(), 0
        create(client, "vm")
        while not stop.is_set():
            describe(client, "vm", str(step))
            step += 1

    writer = threading.Thread(target=write)
    writer.start()
    clients = [daemon.client() for _ in range(4)]
    kept = Events(clients[0], bookmark_interval=INTERVAL)
    for step in range(400):
        request = pb.WatchEventsRequest(send_initial_state=step % 3 == 0, max_batch=step % 5, start_revision=step % 3 == 1)
        stream = clients[step % 4].event.WatchEvents(request)
        for _ in range(step % 4):
            next(stream)
        stream.cancel()
    stop.set()
    writer.join()
    last = revision(clients[0])
    kept.until_revision(last)
    revisions = [event.revision for event in kept.events]
    assert revisions == list(range(revisions[0], revisions[0] + len(revisions)))
