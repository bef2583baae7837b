/*
 * What a guest's agent sends, cut into messages: JSON objects, one a line; after a 0xFF byte begins a new one, whatever came before. The guest is hostile:
 * length, depth and number of values are bounded before anything is parsed. Pure; the client (agent.h) feeds it, and a fuzzer.
 */
#pragma once

#include <jansson.h>

#include "base/error.h"

/* Of one message, at most; the reader's own bound is what it can expect. The agent's longest is a program's captured outputs, in base64. */
#define VP_AGENT_MAX_MESSAGE (48u * 1024 * 1024)
#define VP_AGENT_COMMON_MESSAGE (2u * 1024 * 1024)
/* A value takes some hundred times more memory than text: so many are let pass in one message. */
#define VP_AGENT_MAX_VALUES 100000
#define VP_AGENT_MAX_DEPTH 32

typedef struct VpAgentReader {
    GByteArray *line;   /* the message that is being read */
    gboolean waiting;   /* for a 0xFF: all before it is thrown away */
    gboolean delimited; /* the message being read came right after a 0xFF */
    gboolean too_long;  /* it is thrown away up to its end */
    guint max_bytes;    /* of a message; at first VP_AGENT_COMMON_MESSAGE */
} VpAgentReader;

typedef enum VpAgentRead {
    VP_AGENT_READ_MORE, /* all was taken, and no message has ended */
    VP_AGENT_READ_MESSAGE,
    VP_AGENT_READ_GARBAGE,  /* a line that is no JSON object */
    VP_AGENT_READ_TOO_LARGE /* one that passes the bounds */
} VpAgentRead;

void vp_agent_reader_init(VpAgentReader *reader);
void vp_agent_reader_clear(VpAgentReader *reader);

/* Throws away what comes until the next 0xFF. */
void vp_agent_reader_wait(VpAgentReader *reader);

/* Reads on, up to the end of one message; `*data` and `*length` become what is left. With MESSAGE it is in `*ret_message`, a JSON object, owned by the caller,
 * and `*ret_delimited` tells whether a 0xFF came right before. */
VpAgentRead vp_agent_reader_take(VpAgentReader *reader, const guint8 **data, gsize *length, json_t **ret_message,
                                 gboolean *ret_delimited);
