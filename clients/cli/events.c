/*
 * vpctl events. History reads from a revision to the one that was present at the start, and ends; --follow stays,
 * and connects anew where the connection breaks, so that no event is missed and none comes twice.
 */
#include "clients/cli/events.h"

#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "clients/cli/event_line.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/message.h"
#include "clients/cli/text.h"
#include "virtplane/v1/event_service.pb-c.h"

enum {
    HISTORY_BOOKMARK_MS = 100,   /* how soon the end of the history is known */
    CURSOR_BOOKMARK_MS = 1000,   /* how soon the cursor catches up with a quiet journal */
    FOLLOW_BOOKMARK_MS = 30000,  /* signs of life */
    SILENCES = 3,                /* after so many of these without a sign the connection counts as dead */
    CURSOR_SAVE_US = 100 * 1000, /* the cursor is saved at most this often */
    FIRST_BACKOFF_MS = 200,
    LAST_BACKOFF_MS = 10000,
};

typedef struct Reader {
    VpCli *cli;
    PbWatchEventsRequest *request;
    VpEventPlace place;
    gboolean follow;
    gint64 until;       /* history: the last revision wanted */
    const char *cursor; /* a file, or NULL */
    VpEventPlace saved; /* the place in it */
    gint64 saved_us;
    gint64 told;            /* the last bookmark that was printed */
    gint64 shown;           /* events */
    VpInterrupt *interrupt; /* --follow */
    gint64 bookmark_ms;
    guint backoff_ms;
} Reader;

static VpError *save_cursor(Reader *reader, gboolean now)
{
    const VpEventPlace *place = &reader->place;

    if (!reader->cursor || place->complete < 0)
        return NULL;
    if (place->complete == reader->saved.complete && place->revision == reader->saved.revision &&
        place->handled == reader->saved.handled)
        return NULL;
    if (!now && vp_now_us() - reader->saved_us < CURSOR_SAVE_US)
        return NULL;

    VpError *error = vp_event_cursor_save(reader->cursor, place);
    if (!error) {
        reader->saved = *place;
        reader->saved_us = vp_now_us();
    }
    return error;
}

static void print_event(Reader *reader, const PbWatchEventsResponse *item)
{
    if (vp_cli_print(reader->cli, item, /* stream= */ TRUE))
        return;
    if (reader->cli->output == VP_OUTPUT_NAME) {
        g_autofree char *name = vp_text_escape(item->event->name);
        puts(name);
    } else {
        g_autofree char *line = vp_event_line(item->event, reader->cli->color);
        puts(line);
    }
    fflush(stdout);
}

/* Handles one message; *ret_end says that the history has been read to its end. */
static VpError *take(Reader *reader, const PbWatchEventsResponse *item, gboolean *ret_end)
{
    if (item->payload_case == PB_WATCH_EVENTS_RESPONSE__PAYLOAD_BOOKMARK) {
        vp_event_place_bookmark(&reader->place, item->bookmark->revision);
        /* Programs want them too, where they say something new: with a bookmark they know that nothing was missed. */
        if (reader->follow && item->bookmark->revision > reader->told)
            vp_cli_print(reader->cli, item, /* stream= */ TRUE);
        reader->told = MAX(reader->told, item->bookmark->revision);
        *ret_end = !reader->follow && reader->place.complete >= reader->until;
        return save_cursor(reader, /* now= */ TRUE);
    }
    if (item->payload_case != PB_WATCH_EVENTS_RESPONSE__PAYLOAD_EVENT)
        return NULL;
    if (!reader->follow && item->event->revision > reader->until) {
        reader->place.complete = MAX(reader->place.complete, reader->until);
        *ret_end = TRUE;
        return save_cursor(reader, /* now= */ TRUE);
    }
    if (vp_event_place_event(&reader->place, item->event->revision)) {
        print_event(reader, item);
        reader->shown++;
    }
    return save_cursor(reader, /* now= */ FALSE);
}

static VpError *read_messages(Reader *reader, VpClientStream *stream, gboolean *ret_end)
{
    const gint64 idle_ms = reader->bookmark_ms * SILENCES + reader->cli->timeout_ms;
    VpError *error = NULL;

    while (!error && !*ret_end) {
        vp_pb_auto PbWatchEventsResponse *item = vp_client_stream_read(stream, idle_ms, &error);

        if (!item)
            return error ? error : vp_error_new(VP_UNAVAILABLE, NULL, "the daemon ended the stream");
        reader->backoff_ms = FIRST_BACKOFF_MS;
        error = take(reader, item, ret_end);
    }
    return error;
}

/* One stream, until it breaks, the history ends, or a signal comes. */
static VpError *read_stream(Reader *reader, gboolean *ret_end)
{
    VpError *error = NULL;
    VpClient *client = vp_cli_client(reader->cli, &error);

    if (!client)
        return error;
    reader->request->start_revision = vp_event_place_open(&reader->place);
    g_autoptr(VpClientStream) stream =
        vp_client_stream_new(client, &pb_event_service__descriptor, "WatchEvents", reader->request, 0, &error);
    if (!stream)
        return error;
    if (!reader->interrupt)
        return read_messages(reader, stream, ret_end);

    vp_interrupt_watch(reader->interrupt, stream);
    error = read_messages(reader, stream, ret_end);
    vp_interrupt_watch(reader->interrupt, NULL);
    return error;
}

/* Whether it is worth to connect anew: not at the very first time, where the address is likely wrong. */
static gboolean can_retry(const Reader *reader, const VpError *error)
{
    const gboolean broken = error->code == VP_UNAVAILABLE || g_strcmp0(error->reason, "STREAM_IDLE") == 0;

    return reader->follow && broken && reader->backoff_ms > 0;
}

static void wait_and_tell(Reader *reader, const VpError *error)
{
    g_autofree char *why = vp_text_escape(error->message);

    fflush(stdout);
    fprintf(stderr,
            "vpctl: the event stream broke (%s); trying again in %.1f s, from revision %" G_GINT64_FORMAT " on\n", why,
            (double)reader->backoff_ms / 1000, reader->place.complete + 1);
    vp_interrupt_sleep(reader->interrupt, reader->backoff_ms);
    reader->backoff_ms = MIN(reader->backoff_ms * 2, LAST_BACKOFF_MS);
    vp_cli_disconnect(reader->cli);
}

static int run(Reader *reader)
{
    gboolean end = FALSE;

    while (!end) {
        g_autoptr(VpError) error = read_stream(reader, &end);

        if (reader->interrupt && vp_interrupt_came(reader->interrupt))
            break;
        if (error && !can_retry(reader, error)) {
            vp_error_free(save_cursor(reader, /* now= */ TRUE));
            return vp_cli_fail(reader->cli, g_steal_pointer(&error),
                               reader->follow ? "follow the events" : "read the events");
        }
        if (error)
            wait_and_tell(reader, error);
    }

    VpError *error = save_cursor(reader, /* now= */ TRUE);
    return error ? vp_cli_fail(reader->cli, error, "follow the events") : VP_EXIT_DONE;
}

/* The journal's present end. */
static VpError *find_end(Reader *reader)
{
    vp_pb_auto PbListEventsRequest *request = vp_pb_new(&pb_list_events_request__descriptor);
    VpError *error = NULL;

    request->page_size = 1;
    vp_pb_auto PbListEventsResponse *answer =
        vp_cli_call(reader->cli, &pb_event_service__descriptor, "ListEvents", request, &error);
    if (answer)
        reader->until = answer->revision;
    return error;
}

/* A place that the journal has not reached would be waited for, or passed over in silence. */
static VpError *check_place(const Reader *reader)
{
    const gint64 next = reader->until + 1;
    const gint64 wanted = reader->place.complete + 1;

    if (wanted <= next)
        return NULL;
    return vp_error_new(VP_OUT_OF_RANGE, "REVISION_IN_FUTURE",
                        "revision %" G_GINT64_FORMAT " is not there yet; the journal ends at %" G_GINT64_FORMAT "%s",
                        wanted, reader->until,
                        reader->cursor ? ": the cursor is of another daemon, or the store was restored since" : "");
}

static int show_history(Reader *reader)
{
    VpError *error = find_end(reader);
    int code = VP_EXIT_DONE;

    if (!error)
        error = check_place(reader);
    if (error)
        return vp_cli_fail(reader->cli, error, "read the events");
    if (reader->place.complete < reader->until)
        code = run(reader);
    /* Not on stdout: who reads that wants events. */
    if (code == VP_EXIT_DONE && reader->shown == 0 && reader->cli->output == VP_OUTPUT_TABLE)
        fprintf(stderr, "no events\n");
    return code;
}

static int start(Reader *reader)
{
    VpError *error = NULL;

    reader->bookmark_ms = !reader->follow  ? HISTORY_BOOKMARK_MS
                          : reader->cursor ? CURSOR_BOOKMARK_MS
                                           : FOLLOW_BOOKMARK_MS;
    reader->request->bookmark_interval = vp_message_duration(reader->bookmark_ms);
    if (reader->follow) {
        g_autoptr(VpInterrupt) interrupt = vp_interrupt_new(&error);
        if (!interrupt)
            return vp_cli_fail(reader->cli, error, "follow the events");
        reader->interrupt = interrupt;
        return run(reader);
    }

    return show_history(reader);
}

int vp_events(VpCli *cli, const VpCommand *command, int argc, char **argv)
{
    g_autofree char *cursor = NULL;
    g_auto(GStrv) filters = NULL;
    gint64 from = -1;
    gboolean follow = FALSE;
    const GOptionEntry entries[] = {
        {"follow", 'f', 0, G_OPTION_ARG_NONE, &follow, "Stay, and show events as they come", NULL},
        {"from", 0, 0, G_OPTION_ARG_INT64, &from,
         "The first revision wanted (default: the oldest; with --follow: from now on)", "REVISION"},
        {"filter", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &filters,
         "Only these: type=, resource=, name=, uid=, driver=, label=KEY=; may be given again", "KEY=VALUE"},
        {"cursor", 0, 0, G_OPTION_ARG_FILENAME, &cursor,
         "Keep the last revision in this file, and go on after it the next time", "FILE"},
        {NULL, 0, 0, 0, NULL, NULL, NULL},
    };
    int code;

    if (!vp_cli_parse(cli, command, entries, &argc, &argv, &code))
        return code;
    vp_pb_auto PbWatchEventsRequest *request = vp_pb_new(&pb_watch_events_request__descriptor);
    Reader reader = {.cli = cli, .request = request, .follow = follow, .cursor = cursor, .told = -1};
    request->filter = vp_pb_new(&pb_event_filter__descriptor);
    for (char **filter = filters; filter && *filter; filter++) {
        VpError *error = vp_event_filter_add(request->filter, *filter);
        if (error)
            return vp_cli_usage_error(command, error);
    }

    gboolean found = FALSE;
    VpError *error = cursor ? vp_event_cursor_load(cursor, &reader.place, &found) : NULL;
    if (error)
        return vp_cli_fail(cli, error, "read the events");
    reader.saved = reader.place;
    if (from >= 0 || !found)
        vp_event_place_init(&reader.place, from >= 0 ? from : follow ? 0 : 1);
    return start(&reader);
}
