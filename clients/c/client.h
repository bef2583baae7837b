/*
 * A client of virtplaned for C: one connection, blocking calls with deadlines, streams that are read one message at
 * a time. Any service that protobuf-c knows can be called.
 *
 *     vp_client_library_init();
 *     g_autoptr(VpClient) client = vp_client_new("unix:/run/virtplane/virtplaned.sock", &error);
 *     vp_pb_auto PbGetDomainRequest *request = vp_pb_new(&pb_get_domain_request__descriptor);
 *     vp_pb_set(&request->name, "web");
 *     vp_pb_auto PbGetDomainResponse *answer =
 *         vp_client_call(client, &pb_domain_service__descriptor, "GetDomain", request, 5000, &error);
 *
 * Errors are the daemon's own, with the reason, metadata and violations that it sent. Where no daemon could be
 * reached the code is VP_UNAVAILABLE and the reason VP_CLIENT_NO_DAEMON; vp_client_no_answer() tells that from a
 * daemon that answered UNAVAILABLE.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/error.h"

#define VP_CLIENT_NO_DAEMON "NO_DAEMON"
#define VP_CLIENT_BAD_ANSWER "BAD_ANSWER"

typedef struct VpClient VpClient;
typedef struct VpClientStream VpClientStream;

/* Starts and stops gRPC. Counted; the last stop waits until gRPC's threads have ended. gRPC's own log is dropped
 * unless the environment variable GRPC_VERBOSITY asks for it. */
void vp_client_library_init(void);
void vp_client_library_shutdown(void);

/* Where this user's daemon listens when nobody said anything else: "unix:/run/virtplane/virtplaned.sock" for root,
 * "unix:$XDG_RUNTIME_DIR/virtplane/virtplaned.sock" for others; NULL if that variable is not set. */
char *vp_client_default_address(void);

/* How to reach a daemon by "HOST:PORT"; a unix socket needs nothing of it. Files are PEM. */
typedef struct VpClientSecurity {
    const char *ca;          /* who signs daemons; NULL: the system's CAs */
    const char *certificate; /* the client's, and its key; NULL: none */
    const char *key;
    const char *token;     /* a bearer token; NULL: none */
    gboolean insecure_tcp; /* no TLS at all: whoever is on the way reads and changes what goes over it */
} VpClientSecurity;

/* A client of `address`: "unix:PATH", an absolute path, or "HOST:PORT" (with TLS, and the system's CAs). Connects at the
 * first call. INVALID_ARGUMENT if the address is none. */
VpClient *vp_client_new(const char *address, VpError **error);

/* The same with what HOST:PORT needs, read now; reason BAD_CREDENTIALS if it cannot be. */
VpClient *vp_client_new_secure(const char *address, const VpClientSecurity *security, VpError **error);

/* The address as given to gRPC; borrowed. */
const char *vp_client_address(const VpClient *client);

/* Whether the error says that no daemon answered at all. */
gboolean vp_client_no_answer(const VpError *error);

/* A unary call; waits for the answer (owned by the caller, vp_pb_free), at most `timeout_ms`. `request` is borrowed.
 * Any thread. */
void *vp_client_call(VpClient *client, const ProtobufCServiceDescriptor *service, const char *method,
                     const void *request, gint64 timeout_ms, VpError **error);

/* Opens a server stream. `timeout_ms` bounds the whole stream; 0: no end. Does not wait for the daemon. */
VpClientStream *vp_client_stream_new(VpClient *client, const ProtobufCServiceDescriptor *service, const char *method,
                                     const void *request, gint64 timeout_ms, VpError **error);

/* The same for a stream both ways: `request` is its first message, and more are sent until vp_client_stream_close(). */
VpClientStream *vp_client_stream_open(VpClient *client, const ProtobufCServiceDescriptor *service, const char *method,
                                      const void *request, gint64 timeout_ms, VpError **error);

/* Sends one more message, and waits until it is on its way. FALSE: the stream has ended; a read tells why. One thread at a time, beside the one that
 * reads. */
gboolean vp_client_stream_send(VpClientStream *stream, const void *message);
/* No more messages are sent. By the thread that sends. */
void vp_client_stream_close(VpClientStream *stream);

/* Waits for the next message, owned by the caller, at most `idle_ms` (0: as long as it takes); DEADLINE_EXCEEDED if
 * none comes, which ends the stream. NULL without an error: the stream has ended well. One thread at a time. */
void *vp_client_stream_read(VpClientStream *stream, gint64 idle_ms, VpError **error);

/* Ends the stream early: a read that waits answers CANCELLED. Any thread. */
void vp_client_stream_cancel(VpClientStream *stream);

/* Cancels what is not yet ended, and frees. NULL is let pass. No read may be under way. */
void vp_client_stream_free(VpClientStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpClientStream, vp_client_stream_free)

/* After the calls and streams of the client have ended. NULL is let pass. */
void vp_client_free(VpClient *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpClient, vp_client_free)
