// A consumer that misses nothing: it prints each event, saves its place, and goes on there after its own crash or the daemon's.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v1 "virtplane.example/go/gen/virtplane/v1"
	"virtplane.example/go/stream"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: consumer ADDRESS CURSOR-FILE")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	connection, err := stream.Dial(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	cursor, err := stream.Load(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}

	request := func() *v1.WatchEventsRequest {
		return &v1.WatchEventsRequest{StartRevision: cursor.Next(), BookmarkInterval: durationpb.New(time.Second)}
	}
	err = stream.Follow(ctx, v1.NewEventServiceClient(connection), request, func(message *v1.WatchEventsResponse) error {
		switch {
		case message.GetEvent() != nil:
			event := message.GetEvent()
			// What is to be done goes here. After a crash the last events may come again: what is done must stand that.
			fmt.Println(event.Revision, event.Type, event.Name, event.Reason)
			return cursor.Handled(event.Revision)
		case message.GetBookmark() != nil:
			return cursor.Complete(message.GetBookmark().Revision)
		}
		return nil
	})
	// OUT_OF_RANGE: the consumer was away for longer than the journal is kept, and has to list anew: see the reconcile loop.
	if err != nil {
		log.Fatal(err)
	}
}
