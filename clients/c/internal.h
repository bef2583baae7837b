/* What the files of the client share. */
#pragma once

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include "clients/c/client.h"

struct VpClient {
    grpc_channel *channel;
    char *address;
    gboolean tls;
};

/* What C core fills in when a call ends. */
typedef struct VpClientStatus {
    grpc_metadata_array trailing;
    grpc_status_code code;
    grpc_slice details;
} VpClientStatus;

void vp_client_status_init(VpClientStatus *status);
void vp_client_status_clear(VpClientStatus *status);

/* The error of a call that has ended, or NULL if it ended well. */
VpError *vp_client_status_error(VpClient *client, const VpClientStatus *status);

/* The path and the authority are right for this address, and gRPC will take it: "unix:PATH" or "HOST:PORT". */
char *vp_client_normalize_address(const char *address, VpError **error);

/* What a channel to this (normalized) address needs; owned by the caller. */
grpc_channel_credentials *vp_client_credentials(const char *normal, const VpClientSecurity *security, VpError **error);

/* Why nobody answers at this address, from the socket itself, or NULL if it cannot be told. */
char *vp_client_why_unreachable(const char *address);

/* The method of a service, or an error (a mistake of the program's). */
const ProtobufCMethodDescriptor *vp_client_find_method(const ProtobufCServiceDescriptor *service, const char *method,
                                                       const void *request, VpError **error);

/* A call of SERVICE/METHOD with a deadline (`timeout_ms` 0: none) on a queue that is plucked. */
grpc_call *vp_client_start(VpClient *client, grpc_completion_queue *queue, const ProtobufCServiceDescriptor *service,
                           const char *method, gint64 timeout_ms);

grpc_byte_buffer *vp_client_pack(const void *message);

/* The message in `buffer`; INTERNAL if the bytes are no such message. */
void *vp_client_unpack(const ProtobufCMessageDescriptor *descriptor, grpc_byte_buffer *buffer, VpError **error);
