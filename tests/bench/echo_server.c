/* The peer of the RPC figures: a bare C core server with one completion queue that unpacks a message and packs it back. Nothing of the daemon's runtime. */
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "virtplane/v1/domain_service.pb-c.h"

#define POSTED 128

typedef struct Slot {
    grpc_call *call;
    grpc_metadata_array metadata;
    gpr_timespec deadline;
    grpc_byte_buffer *payload;
    int cancelled;
    int answered;
} Slot;

static grpc_server *server;
static grpc_completion_queue *cq;
static void *method;

static void post(Slot *slot)
{
    slot->answered = 0;
    grpc_metadata_array_init(&slot->metadata);
    if (grpc_server_request_registered_call(server, method, &slot->call, &slot->deadline, &slot->metadata,
                                            &slot->payload, cq, cq, slot) != GRPC_CALL_OK)
        exit(1);
}

static void echo(Slot *slot)
{
    grpc_byte_buffer_reader reader;

    grpc_byte_buffer_reader_init(&reader, slot->payload);
    grpc_slice in = grpc_byte_buffer_reader_readall(&reader);
    PbGetDomainRequest *message = pb_get_domain_request__unpack(NULL, GRPC_SLICE_LENGTH(in), GRPC_SLICE_START_PTR(in));
    grpc_slice out = grpc_slice_malloc(pb_get_domain_request__get_packed_size(message));
    pb_get_domain_request__pack(message, GRPC_SLICE_START_PTR(out));
    grpc_byte_buffer *answer = grpc_raw_byte_buffer_create(&out, 1);
    grpc_op ops[4] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA},
        {.op = GRPC_OP_SEND_MESSAGE},
        {.op = GRPC_OP_SEND_STATUS_FROM_SERVER},
        {.op = GRPC_OP_RECV_CLOSE_ON_SERVER},
    };
    ops[1].data.send_message.send_message = answer;
    ops[3].data.recv_close_on_server.cancelled = &slot->cancelled;
    slot->answered = 1;
    if (grpc_call_start_batch(slot->call, ops, 4, slot, NULL) != GRPC_CALL_OK)
        exit(1);
    pb_get_domain_request__free_unpacked(message, NULL);
    grpc_byte_buffer_destroy(answer);
    grpc_byte_buffer_destroy(slot->payload);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_slice_unref(in);
    grpc_slice_unref(out);
}

int main(int argc, char **argv)
{
    Slot slots[POSTED] = {0};

    if (argc != 2)
        return 2;
    grpc_init();
    server = grpc_server_create(NULL, NULL);
    cq = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server, cq, NULL);
    method =
        grpc_server_register_method(server, "/bench.Echo/Echo", NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    if (!grpc_server_add_http2_port(server, argv[1], grpc_insecure_server_credentials_create()))
        return 1;
    grpc_server_start(server);
    for (int i = 0; i < POSTED; i++)
        post(&slots[i]);
    fprintf(stderr, "ready %s\n", argv[1]);
    for (;;) {
        const grpc_event event = grpc_completion_queue_next(cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        Slot *slot = event.tag;

        if (event.type != GRPC_OP_COMPLETE)
            return 1;
        if (!slot->answered) {
            echo(slot);
            continue;
        }
        grpc_call_unref(slot->call);
        grpc_metadata_array_destroy(&slot->metadata);
        post(slot);
    }
}
