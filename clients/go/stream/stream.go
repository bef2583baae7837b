// Package stream has what consumers of virtplane's events share: a connection that is made anew with backoff, and the place reached in the journal.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	v1 "virtplane.example/go/gen/virtplane/v1"
)

const (
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 10 * time.Second
)

// Dial connects to "unix:PATH" or "HOST:PORT"; the connection is made at the first call.
func Dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// Lasting says whether an error stays however often one tries.
func Lasting(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.OutOfRange, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

// Follow watches until ctx ends or an error lasts. Each time a connection begins, request says what to ask for; take is given every message.
func Follow(ctx context.Context, events v1.EventServiceClient, request func() *v1.WatchEventsRequest, take func(*v1.WatchEventsResponse) error) error {
	backoff := firstBackoff
	for {
		err := watch(ctx, events, request(), func(message *v1.WatchEventsResponse) error {
			backoff = firstBackoff // it works
			return take(message)
		})
		if ctx.Err() != nil {
			return nil
		}
		var own *handlerError
		if errors.As(err, &own) {
			return own.error
		}
		if Lasting(err) {
			return err
		}
		log.Printf("the stream broke (%v); trying again", err)
		// Not all consumers of a daemon that comes back shall come at once.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff/2 + time.Duration(rand.Int63n(int64(backoff)))):
		}
		backoff = min(backoff*2, lastBackoff)
	}
}

type handlerError struct{ error }

func watch(ctx context.Context, events v1.EventServiceClient, request *v1.WatchEventsRequest, take func(*v1.WatchEventsResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, err := events.WatchEvents(ctx, request)
	if err != nil {
		return err
	}
	for {
		message, err := messages.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the daemon ended the stream")
		}
		if err != nil {
			return err
		}
		if err := take(message); err != nil {
			return &handlerError{err}
		}
	}
}

// Cursor is the last revision of which all events were handled, kept in a file.
type Cursor struct {
	path     string
	complete int64
	last     int64
}

// Load reads the file; without one everything that is kept is new.
func Load(path string) (*Cursor, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return &Cursor{path: path}, nil
	}
	if err != nil {
		return nil, err
	}
	complete, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return &Cursor{path: path, complete: complete}, err
}

// Next is the revision to go on from.
func (cursor *Cursor) Next() int64 { return cursor.complete + 1 }

// Handled notes an event. Several may share a revision: it is complete when the next one begins, or a bookmark says so.
func (cursor *Cursor) Handled(revision int64) error {
	if revision == cursor.last {
		return nil
	}
	cursor.last = revision
	return cursor.Complete(revision - 1)
}

// Complete saves that everything up to revision was handled: a crash leaves the old file or the new one.
func (cursor *Cursor) Complete(revision int64) error {
	if revision <= cursor.complete {
		return nil
	}
	file, err := os.CreateTemp(filepath.Dir(cursor.path), ".cursor-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err = fmt.Fprintln(file, revision); err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), cursor.path)
	}
	if err == nil {
		cursor.complete = revision
	}
	return err
}
