"""A consumer of the event stream that tests can wait on."""
import threading

import grpc

from .client import pb
from .daemon import PATIENCE


class Events:
    """Collects a WatchEvents stream in the background."""

    def __init__(self, client, start_revision=0, **request):
        self.events, self.bookmarks, self.states, self.error, self.ended = [], [], [], None, False
        self.messages = []
        self._changed = threading.Condition()
        self._stream = client.event.WatchEvents(pb.WatchEventsRequest(start_revision=start_revision, **request))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.wait(lambda: self.bookmarks or self.ended, "the first bookmark")

    def _run(self):
        try:
            for message in self._stream:
                with self._changed:
                    self.messages.append(message)
                    payload = message.WhichOneof("payload")
                    if payload == "event":
                        self.events.append(message.event)
                    elif payload == "events":
                        self.events += message.events.events
                    elif payload == "state":
                        self.states.append(message.state.domain)
                    else:
                        self.bookmarks.append(message.bookmark.revision)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            self.error = error
        finally:
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def wait(self, condition, what, timeout=PATIENCE):
        """Waits until condition() is true of what was collected."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout), f"{what} did not come within {timeout} s; there is:\n{self}"

    def until(self, kind, name=None, count=1, timeout=PATIENCE):
        """Waits for the `count`th event of this type ("DOMAIN_STARTED") and answers it."""
        number = getattr(pb, "EVENT_TYPE_" + kind)

        def matching():
            return [event for event in self.events if event.type == number and (name is None or event.name == name)]

        self.wait(lambda: len(matching()) >= count, f"event {kind} {name or ''}", timeout)
        return matching()[count - 1]

    def until_revision(self, revision, timeout=PATIENCE):
        """Waits until all up to `revision` has come."""
        self.wait(lambda: (self.events and self.events[-1].revision >= revision) or (self.bookmarks and self.bookmarks[-1] >= revision),
                  f"revision {revision}", timeout)

    def kinds(self, name=None):
        """The types that came, in order, without their prefix."""
        return [pb.EventType.Name(event.type)[len("EVENT_TYPE_"):] for event in self.events if name is None or event.name == name]

    def cancel(self):
        self._stream.cancel()
        self._thread.join(10)

    def __str__(self):
        lines = [f"  {event.revision} {pb.EventType.Name(event.type)} {event.name} {event.reason} {event.detail}" for event in self.events]
        return "\n".join(lines) or "  (none)"
