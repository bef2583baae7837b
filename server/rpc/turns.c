/*
 * Whose call is next on an RPC thread. Calls come from the core in the order in which it has read them, and it reads all that a connection has sent: of
 * one that sends a hundred at once all would go before the next one's. So a thread begins a few calls of one connection in a row, and then looks whether
 * another has something; what waits is begun in turns, one identity after another, one connection of it after another. A thread with one busy connection
 * goes on as if there were no turns, but for that look. /
 */
#include "base/thread.h"
#include "server/rpc/internal.h"

/* Calls of one connection in a row, where it is the only one, and where there was another within so long. */
#define IN_A_ROW 8
#define IN_A_ROW_BESIDE_OTHERS 2
#define BESIDE_US (100 * 1000)
/* What the core has to tell beside new calls does not keep those that wait for ever. */
#define EVENTS_BETWEEN 64

guint64 vp_call_group(const VpCall *call)
{
    const VpConnection *connection = call->connection;
    const guint64 group = connection ? __atomic_load_n(&connection->group, __ATOMIC_RELAXED) : 0;

    /* Whoever has not shown who he is shares the turns of all strangers. */
    return call->account ? (guint64)(gsize)call->account : group ? group : 1;
}

guint64 vp_call_lane(const VpCall *call)
{
    return call->connection ? call->connection->id : 0;
}

/* Whether the call may begin at once. */
static gboolean goes_on(VpQueue *queue, guint64 connection)
{
    if (connection != queue->last_connection) {
        queue->last_connection = connection;
        queue->changed_us = vp_now_us();
        queue->in_a_row = 0;
    }
    if (vp_fair_length(queue->waiting) > 0)
        return FALSE;
    queue->in_a_row++;
    return queue->in_a_row <= IN_A_ROW_BESIDE_OTHERS ||
           (queue->in_a_row <= IN_A_ROW && vp_now_us() - queue->changed_us > BESIDE_US);
}

void vp_turns_add(VpQueue *queue, VpCall *call)
{
    if (goes_on(queue, vp_call_lane(call)))
        vp_call_begin(call);
    else
        vp_fair_push(queue->waiting, vp_call_group(call), vp_call_lane(call), call);
}

gboolean vp_turns_waiting(const VpQueue *queue)
{
    return vp_fair_length(queue->waiting) > 0;
}

static void run(VpQueue *queue)
{
    const gboolean alone = vp_now_us() - queue->changed_us > BESIDE_US;

    queue->in_a_row = 0;
    queue->events = 0;
    queue->looked = FALSE;
    for (guint i = 0; i < (alone ? IN_A_ROW : IN_A_ROW_BESIDE_OTHERS); i++) {
        VpCall *call = vp_fair_pop(queue->waiting);

        if (!call)
            return;
        vp_call_begin(call);
    }
}

/* Where anything was told since the last time the core comes back at once without having looked at a connection: so a second time tells. */
void vp_turns_look(VpQueue *queue)
{
    if (queue->looked)
        run(queue);
    else
        queue->looked = TRUE;
}

void vp_turns_event(VpQueue *queue)
{
    queue->looked = FALSE;
    if (vp_turns_waiting(queue) && ++queue->events >= EVENTS_BETWEEN)
        run(queue);
}
