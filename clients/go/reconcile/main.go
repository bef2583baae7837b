// A reconcile loop: every domain with the label wanted=running runs. It lists, then watches; after a break it lists anew, so nothing it missed matters.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "virtplane.example/go/gen/virtplane/v1"
	"virtplane.example/go/stream"
)

// reconcile acts on what is there now, not on what an event said: that may be old by the time it is read.
func reconcile(ctx context.Context, domains v1.DomainServiceClient, uid string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	answer, err := domains.GetDomain(ctx, &v1.GetDomainRequest{Uid: uid})
	if status.Code(err) == codes.NotFound {
		return
	}
	if err == nil && answer.Domain.Labels["wanted"] == "running" &&
		answer.Domain.Status.State == v1.DomainState_DOMAIN_STATE_SHUTOFF {
		log.Printf("starting %s", answer.Domain.Name)
		_, err = domains.StartDomain(ctx, &v1.StartDomainRequest{Uid: uid})
	}
	if err != nil {
		log.Printf("%s: %v", uid, err) // a real one tries again, later and later
	}
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: reconcile ADDRESS")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	connection, err := stream.Dial(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	domains := v1.NewDomainServiceClient(connection)

	request := func() *v1.WatchEventsRequest {
		filter := &v1.EventFilter{ResourceTypes: []string{"domain"}, Labels: map[string]string{"wanted": "running"}}
		return &v1.WatchEventsRequest{SendInitialState: true, Filter: filter}
	}
	err = stream.Follow(ctx, v1.NewEventServiceClient(connection), request, func(message *v1.WatchEventsResponse) error {
		switch {
		case message.GetState().GetDomain() != nil:
			reconcile(ctx, domains, message.GetState().GetDomain().Uid)
		case message.GetEvent() != nil:
			reconcile(ctx, domains, message.GetEvent().Uid)
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}
