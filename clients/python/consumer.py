"""A consumer that misses nothing: it prints each event, saves its place, and goes on there after its own crash or the daemon's.

usage: consumer.py ADDRESS CURSOR-FILE
"""
import sys

import grpc
from virtplane.v1 import event_pb2, event_service_pb2

import stream


def main(address, path):
    cursor = stream.Cursor(path)

    def request():
        wanted = event_service_pb2.WatchEventsRequest(start_revision=cursor.complete + 1)
        wanted.bookmark_interval.FromSeconds(1)
        return wanted

    # OUT_OF_RANGE: the consumer was away for longer than the journal is kept, and has to list anew: see reconcile.py.
    for message in stream.follow(grpc.insecure_channel(address), request):
        if message.WhichOneof("payload") == "event":
            event = message.event
            # What is to be done goes here. After a crash the last events may come again: what is done must stand that.
            print(event.revision, event_pb2.EventType.Name(event.type), event.name, event.reason, flush=True)
            cursor.handled(event.revision)
        elif message.WhichOneof("payload") == "bookmark":
            cursor.save(message.bookmark.revision)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
