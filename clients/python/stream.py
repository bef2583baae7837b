"""What consumers of virtplane's events share: a connection that is made anew with backoff, and the place reached in the journal."""
import contextlib
import os
import random
import sys
import tempfile
import time

import grpc
from virtplane.v1 import event_service_pb2_grpc

FIRST_BACKOFF, LAST_BACKOFF = 0.2, 10.0
LASTING = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.PERMISSION_DENIED,
           grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED)


def follow(channel, request):
    """Yields the messages of WatchEvents for ever. `request()` says what to ask for each time a connection begins. Raises what would come again."""
    events = event_service_pb2_grpc.EventServiceStub(channel)
    backoff = FIRST_BACKOFF
    while True:
        try:
            for message in events.WatchEvents(request()):
                backoff = FIRST_BACKOFF  # it works
                yield message
            why = "the daemon ended the stream"
        except grpc.RpcError as error:
            if error.code() in LASTING:
                raise
            why = error.details()
        print(f"the stream broke ({why}); trying again", file=sys.stderr)
        # Not all consumers of a daemon that comes back shall come at once.
        time.sleep(backoff * random.uniform(0.5, 1.5))
        backoff = min(backoff * 2, LAST_BACKOFF)


class Cursor:
    """The last revision of which all events were handled, kept in a file."""

    def __init__(self, path):
        self.path, self.complete, self.last = path, 0, 0
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            self.complete = int(file.read())

    def handled(self, revision):
        """Notes an event. Several may share a revision: it is complete when the next one begins, or a bookmark says so."""
        if revision != self.last:
            self.last = revision
            self.save(revision - 1)

    def save(self, complete):
        """Everything up to here was handled: a crash leaves the old file or the new one."""
        if complete <= self.complete:
            return
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(os.path.abspath(self.path)), prefix=".cursor-", delete=False) as file:
            file.write(f"{complete}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, self.path)
        self.complete = complete
