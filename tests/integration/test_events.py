"""The event stream: complete, in order, resumed from any revision, across restarts and kills of the daemon."""
import grpc
import pytest

from harness.client import Client, pb
from harness.daemon import wait_until
from harness.domains import act, create
from harness.errors import Refusal, refused
from harness.events import Events


def life(client, name):
    create(client, name)
    act(client, "Start", name)
    act(client, "PowerOff", name)
    client.domain.DeleteDomain(pb.DeleteDomainRequest(name=name))


LIFE = ["DOMAIN_CREATED", "DOMAIN_STARTING", "DOMAIN_STARTED", "DOMAIN_POWERED_OFF", "DOMAIN_DELETED"]


def history(client, **request):
    """All of ListEvents, page by page."""
    found, token = [], ""
    while True:
        answer = client.event.ListEvents(pb.ListEventsRequest(page_token=token, page_size=7, **request))
        found += answer.events
        token = answer.next_page_token
        if not token:
            return found


def test_a_life_in_events(client):
    events = Events(client)
    life(client, "vm")
    events.until("DOMAIN_DELETED", "vm")
    assert events.kinds("vm") == LIFE
    revisions = [event.revision for event in events.events]
    assert revisions == sorted(revisions) and revisions[0] > events.bookmarks[0]
    for event in events.events:
        assert event.time.seconds > 0 and event.resource_type == "domain" and event.uid and event.driver == "test"
    reasons = {pb.EventType.Name(event.type): event.reason for event in events.events}
    assert reasons["EVENT_TYPE_DOMAIN_POWERED_OFF"] == "REQUESTED"
    states = [event.state for event in events.events]
    assert states[2] == pb.DOMAIN_STATE_RUNNING and states[3] == pb.DOMAIN_STATE_SHUTOFF


def test_resume_from_a_revision(client):
    events = Events(client)
    for i in range(3):
        life(client, f"vm-{i}")
    events.until("DOMAIN_DELETED", "vm-2")
    all_events = list(events.events)
    events.cancel()
    for cut in range(len(all_events)):
        again = Events(client, start_revision=all_events[cut].revision)
        again.until("DOMAIN_DELETED", "vm-2")
        wanted = [event for event in all_events if event.revision >= all_events[cut].revision]
        assert again.events == wanted
        again.cancel()


def test_all_that_is_kept(client):
    life(client, "vm")
    events = Events(client, start_revision=1)
    events.until("DOMAIN_DELETED", "vm")
    assert events.kinds("vm") == LIFE
    assert "DAEMON_STARTED" in events.kinds()


def test_the_next_revision_is_no_error_and_later_ones_are(client):
    revision = create(client, "vm").revision
    events = Events(client, start_revision=revision + 1)
    assert events.error is None and events.bookmarks[0] >= revision
    create(client, "next")
    assert events.until("DOMAIN_CREATED").name == "next"
    with refused("OUT_OF_RANGE"):
        next(client.event.WatchEvents(pb.WatchEventsRequest(start_revision=revision + 1000), timeout=60))
    with refused("INVALID_ARGUMENT"):
        next(client.event.WatchEvents(pb.WatchEventsRequest(start_revision=-1), timeout=60))


def test_bookmarks_move_an_idle_consumer_forward(client):
    request = pb.WatchEventsRequest()
    request.bookmark_interval.FromMilliseconds(200)
    events = Events(client, bookmark_interval=request.bookmark_interval, filter=pb.EventFilter(names=["nobody"]))
    life(client, "vm")
    revision = client.admin.GetDaemon(pb.GetDaemonRequest()).daemon.revision
    events.wait(lambda: events.bookmarks[-1] >= revision, "a bookmark after what was filtered out")
    assert events.events == [] and events.bookmarks == sorted(events.bookmarks)


@pytest.mark.parametrize("fields, wanted", [
    (dict(types=[pb.EVENT_TYPE_DOMAIN_STARTED]), ["DOMAIN_STARTED"] * 2),
    (dict(names=["a"]), LIFE),
    (dict(names=["a"], types=[pb.EVENT_TYPE_DOMAIN_CREATED, pb.EVENT_TYPE_DOMAIN_DELETED]), ["DOMAIN_CREATED", "DOMAIN_DELETED"]),
    (dict(resource_types=["daemon"]), []),
    (dict(drivers=["qemu"]), []),
    (dict(drivers=["test"], types=[pb.EVENT_TYPE_DOMAIN_DELETED]), ["DOMAIN_DELETED"] * 2),
])
def test_filters(client, fields, wanted):
    events = Events(client, filter=pb.EventFilter(**fields))
    first = client.admin.GetDaemon(pb.GetDaemonRequest()).daemon.revision + 1
    life(client, "a")
    life(client, "b")
    revision = client.admin.GetDaemon(pb.GetDaemonRequest()).daemon.revision
    interval = pb.WatchEventsRequest().bookmark_interval
    interval.FromMilliseconds(100)
    everything = Events(client, start_revision=first, filter=pb.EventFilter(**fields), bookmark_interval=interval)
    if wanted:
        everything.wait(lambda: len(everything.events) >= len(wanted), "the events")
        events.wait(lambda: len(events.events) >= len(wanted), "the events")
    everything.wait(lambda: everything.bookmarks[-1] >= revision, "a bookmark")
    assert events.kinds() == wanted and everything.kinds() == wanted
    listed = [pb.EventType.Name(event.type)[len("EVENT_TYPE_"):]
              for event in history(client, filter=pb.EventFilter(**fields), oldest_first=True) if event.revision >= first]
    assert listed == wanted


def test_history(client):
    life(client, "a")
    life(client, "b")
    oldest = history(client, oldest_first=True)
    newest = history(client)
    revisions = [event.revision for event in oldest]
    assert revisions == sorted(revisions)
    assert [event.revision for event in newest] == revisions[::-1]
    assert sorted(event.SerializeToString() for event in newest) == sorted(event.SerializeToString() for event in oldest)


def test_nothing_is_missed_across_restarts_and_kills(daemon):
    """A consumer that saves its last revision and comes back sees each event once."""
    seen, kept = [], 0
    for number, end in enumerate([daemon.stop, daemon.kill, daemon.stop, daemon.kill]):
        client = daemon.client()
        events = Events(client, start_revision=kept + 1 if kept else 1)
        life(client, f"before-{number}")
        events.until("DOMAIN_DELETED", f"before-{number}")
        life(client, f"unseen-{number}")  # this consumer may or may not see it before it dies
        seen += events.events
        kept = events.events[-1].revision
        events.cancel()
        seen += [event for event in events.events if event.revision > kept]
        kept = max(kept, events.events[-1].revision)
        end()
        daemon.start()
    events = Events(daemon.client(), start_revision=kept + 1)
    events.until("DAEMON_STARTED")
    seen += events.events
    domains = [(event.name, pb.EventType.Name(event.type)[len("EVENT_TYPE_"):]) for event in seen if event.resource_type == "domain"]
    assert domains == [(f"{kind}-{number}", what) for number in range(4) for kind in ("before", "unseen") for what in LIFE]
    revisions = [event.revision for event in seen]
    assert revisions == sorted(revisions)
    assert [event.type for event in seen].count(pb.EVENT_TYPE_DAEMON_STARTED) == 5


def test_a_consumer_that_does_not_read_delays_nobody(daemon, client):
    # Never read from: flow control stops the daemon's writes to it.
    slow = [client.event.WatchEvents(pb.WatchEventsRequest(start_revision=1)) for _ in range(20)]
    events = Events(client)
    for i in range(100):
        create(client, f"vm-{i}", labels={"note": "x" * 4000})
    events.until("DOMAIN_CREATED", "vm-99")
    assert len(slow) == 20 and daemon.running


def test_a_watch_right_after_an_acknowledged_change(daemon):
    """The revision that an answer names is there already: watching from the next one on is never too early."""
    client, other = daemon.client(), daemon.client()
    for i in range(300):
        revision = create(client, f"vm-{i}").revision
        stream = other.event.WatchEvents(pb.WatchEventsRequest(start_revision=revision + 1), timeout=60)
        assert next(stream).bookmark.revision == revision
        stream.cancel()


def refuses(client):
    try:
        client.host.GetHost(pb.GetHostRequest())
        return False
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.UNAVAILABLE


def test_resuming_where_a_drained_stream_says(make_daemon):
    """A consumer that was far behind when the daemon stopped, and that goes by resume_revision, misses nothing."""
    daemon = make_daemon().start()
    client = daemon.client()
    # A small window: the daemon cannot send far ahead of what is read.
    slow = Client(daemon.address, [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65535)])
    daemon.clients.append(slow)
    stream = slow.event.WatchEvents(pb.WatchEventsRequest(start_revision=1))
    next(stream)
    description = "x" * 50
    for i in range(3000):
        create(client, f"{i}-{description}"[:63])
    seen, resume = [], None
    daemon.terminate()
    wait_until(lambda: refuses(client), "the drain")
    try:
        for message in stream:
            if message.WhichOneof("payload") == "event":
                seen.append(message.event)
    except grpc.RpcError as error:
        refusal = Refusal(error)
        assert refusal.code == "UNAVAILABLE", refusal
        resume = int(refusal.metadata["resume_revision"])
    assert resume is not None and len(seen) < 2000, "this consumer was not behind"
    daemon.wait_end()
    daemon.close_clients()
    daemon.start()
    again = Events(daemon.client(), start_revision=resume)
    again.until("DAEMON_STARTED")
    names = {event.name for event in seen + again.events if event.type == pb.EVENT_TYPE_DOMAIN_CREATED}
    assert len(names) == 3000, f"{len(seen)} seen, resumed at {resume}: {3000 - len(names)} were missed"
