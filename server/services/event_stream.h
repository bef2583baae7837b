/* Inside the event streams: one stream, the hub that looks after those at rest, and the list of resources that a stream may begin with. */
#pragma once

#include <pthread.h>

#include "server/services/access.h"
#include "server/services/event_hub.h"

/* The domains as of one revision, packed as a ResourceState each; immutable, and shared by all streams that asked at about the same time. */
typedef struct VpStateList {
    gint refs;
    VpEventHub *hub;
    gint64 revision;
    GPtrArray *states; /* of GBytes */
    gsize bytes;
} VpStateList;

typedef enum VpStreamPhase {
    VP_STREAM_IDLE,   /* waits for the hub */
    VP_STREAM_PUMPED, /* some thread, write or disk read is at work on it */
    VP_STREAM_ENDED,
} VpStreamPhase;

typedef struct VpEventStream {
    gint refs;
    VpEventHub *hub;
    VpCall *call; /* a reference */
    const PbEventFilter *filter;
    guint max_batch;     /* events in one message; 0: no batches */
    guint64 bookmark_ms; /* 0: none but the first */

    /* Touched by the one who pumps. */
    gint64 next_revision; /* the first that was not sent whole */
    guint sent_of_next;   /* how many events of it were */
    VpStateList *state;   /* what is to be sent first; NULL: nothing, or no more */
    guint state_at;

    pthread_mutex_t mutex; /* guards what follows */
    VpStreamPhase phase;
    gint64
        written_revision; /* all before it was handed to the transport, which sends it before the stream's end; 0: the initial state was not yet */
    gboolean bookmark_due;
    VpTimer *bookmark;

    /* Under the hub's mutex. */
    GList link;      /* its data is the stream */
    gboolean listed; /* among the hub's resting ones, which hold a reference */
} VpEventStream;

struct VpEventHub {
    VpStore *store;
    VpPool *pool;
    VpLoop *loop;
    VpStoreWatch *watch;
    pthread_t thread;
    gboolean running;

    pthread_mutex_t mutex;
    pthread_cond_t woken;
    pthread_cond_t empty; /* no stream is left */
    gboolean wake;
    gboolean stopping;
    guint streams;     /* all there are */
    GQueue resting;    /* of VpEventStream */
    GQueue listeners;  /* of VpEventStream, a reference each: they wait for a list of the resources */
    GQueue behind;     /* likewise: they wait for a worker's turn */
    guint workers;     /* at work for those */
    gboolean listing;  /* a worker is about to make one */
    gsize state_bytes; /* of all lists that are still being sent */
};

VpEventStream *vp_event_stream_ref(VpEventStream *stream);
void vp_event_stream_unref(VpEventStream *stream);
/* Ends it; `error` is consumed. */
void vp_event_stream_fail(VpEventStream *stream, VpError *error);

/* ---- event_hub.c ---- */

/* Puts a stream that is at rest among those that are pumped when the journal has grown. */
void vp_event_hub_rest(VpEventHub *hub, VpEventStream *stream);

/* Has a worker go on with a stream that is being pumped: its history is to be read from the disk, or there is much to look at. A few workers take turns
 * among all such streams, however many come back at once; the rest of the pool is for others. */
void vp_event_hub_work_later(VpEventHub *hub, VpEventStream *stream);

/* ---- event_pump.c ---- */

/* Takes the right to pump a stream at rest. */
gboolean vp_event_stream_take(VpEventStream *stream);
/* Sends what there is; by the one who has the right to. Never blocks. */
void vp_event_stream_pump(VpEventStream *stream);
void vp_event_stream_write_bookmark(VpEventStream *stream, gint64 revision, gboolean state_end);
/* The same as the pump, on a worker, which may read the disk and look at much. */
void vp_event_stream_work(VpEventStream *stream);

/* ---- event_state.c ---- */

/* Has the stream begin with the present state: a worker makes the list and pumps. */
void vp_event_state_begin(VpEventStream *stream);
/* A list that is not sent any further. NULL is let pass. */
void vp_state_list_unref(VpStateList *list);
