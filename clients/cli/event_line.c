/* Events for people, and the place in the journal: see event_line.h. */
#include "clients/cli/event_line.h"

#include <string.h>

#include "base/pb.h"
#include "clients/cli/text.h"

static gboolean is_trouble(PbEventType type)
{
    return type == PB_EVENT_TYPE_DOMAIN_CRASHED || type == PB_EVENT_TYPE_DOMAIN_START_FAILED ||
           type == PB_EVENT_TYPE_DOMAIN_PANICKED || type == PB_EVENT_TYPE_DOMAIN_UNRESPONSIVE ||
           type == PB_EVENT_TYPE_OPERATION_FAILED || type == PB_EVENT_TYPE_DISK_IO_ERROR ||
           type == PB_EVENT_TYPE_DISK_THRESHOLD_REACHED || type == PB_EVENT_TYPE_DOMAIN_WATCHDOG ||
           type == PB_EVENT_TYPE_MEMORY_FAILURE;
}

char *vp_event_line(const PbEvent *event, gboolean color)
{
    g_autofree char *time = vp_text_time(event->time, /* fraction= */ TRUE);
    g_autofree char *type = vp_text_enum(&pb_event_type__descriptor, (int)event->type);
    g_autofree char *resource = vp_text_escape(event->resource_type);
    g_autofree char *name = vp_text_escape(event->name);
    g_autofree char *reason = vp_text_escape(event->reason);
    g_autofree char *detail = vp_text_escape(event->detail);
    const char *start = color && is_trouble(event->type) ? "\033[1;31m" : "";
    /* "domain/web"; a path has its own stroke. */
    const char *between = *name == '/' ? " " : *name ? "/" : "";
    GString *out = g_string_new(NULL);

    g_string_printf(out, "%6" G_GINT64_FORMAT "  %s  %s%-22s%s  %s%s%s", event->revision, time, start, type,
                    *start ? "\033[0m" : "", resource, between, name);
    if (*reason)
        g_string_append_printf(out, "  %s", reason);
    if (*detail)
        g_string_append_printf(out, "  %s", detail);
    return g_string_free(out, FALSE);
}

const char *const vp_event_resource_types[] = {"domain", "image", "daemon", "operation", "secret", "connection", NULL};

/* A type that no event has would be a filter that silently shows nothing. */
static VpError *add_resource(PbEventFilter *filter, const char *value)
{
    if (!g_strv_contains(vp_event_resource_types, value)) {
        g_autofree char *known = g_strjoinv(", ", (char **)vp_event_resource_types);

        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION",
                            "--filter resource=%s: no event is about that; there is %s", value, known);
    }
    vp_pb_append(&filter->n_resource_types, &filter->resource_types, g_strdup(value));
    return NULL;
}

VpError *vp_event_filter_add(PbEventFilter *filter, const char *text)
{
    const char *equals = strchr(text, '=');
    g_autofree char *key = equals ? g_strndup(text, (gsize)(equals - text)) : g_strdup("");
    const char *value = equals ? equals + 1 : "";
    int type = 0;

    if (g_str_equal(key, "type")) {
        VpError *error = vp_text_parse_enum(&pb_event_type__descriptor, value, &type);
        if (error)
            return vp_error_prefix(error, "--filter %s", text);
        filter->types = g_realloc_n(filter->types, filter->n_types + 1, sizeof(*filter->types));
        filter->types[filter->n_types++] = (PbEventType)type;
    } else if (g_str_equal(key, "resource")) {
        return add_resource(filter, value);
    } else if (g_str_equal(key, "name")) {
        vp_pb_append(&filter->n_names, &filter->names, g_strdup(value));
    } else if (g_str_equal(key, "uid")) {
        vp_pb_append(&filter->n_uids, &filter->uids, g_strdup(value));
    } else if (g_str_equal(key, "driver")) {
        vp_pb_append(&filter->n_drivers, &filter->drivers, g_strdup(value));
    } else if (g_str_equal(key, "label") && strchr(value, '=')) {
        const char *middle = strchr(value, '=');
        PbEventFilter__LabelsEntry *entry = vp_pb_new(&pb_event_filter__labels_entry__descriptor);

        entry->key = g_strndup(value, (gsize)(middle - value));
        vp_pb_set(&entry->value, middle + 1);
        vp_pb_append(&filter->n_labels, &filter->labels, entry);
    } else {
        return vp_error_new(VP_INVALID_ARGUMENT, "BAD_OPTION",
                            "--filter %s: must be KEY=VALUE, and the keys are type, resource, name, uid, driver and "
                            "label (label=KEY=VALUE)",
                            text);
    }
    return NULL;
}

void vp_event_place_init(VpEventPlace *place, gint64 start_revision)
{
    *place = (VpEventPlace){.complete = start_revision - 1};
}

gint64 vp_event_place_open(VpEventPlace *place)
{
    place->fresh = TRUE;
    place->skip = place->revision > place->complete ? place->handled : 0;
    return place->complete + 1;
}

gboolean vp_event_place_event(VpEventPlace *place, gint64 revision)
{
    place->fresh = FALSE;
    if (revision == place->revision && place->skip > 0) {
        place->skip--;
        return FALSE;
    }
    place->skip = 0;
    if (revision != place->revision) {
        /* The next revision has begun, so all before it has come. */
        place->complete = MAX(place->complete, revision - 1);
        place->revision = revision;
        place->handled = 0;
    }
    place->handled++;
    return TRUE;
}

void vp_event_place_bookmark(VpEventPlace *place, gint64 revision)
{
    /* The first one of a stream that started at a given revision says that it is live, and no more than was known. */
    const gboolean greeting = place->fresh && place->complete >= 0;

    place->fresh = FALSE;
    if (!greeting)
        place->complete = MAX(place->complete, revision);
}

/* "REVISION" or "REVISION NEXT COUNT". */
static gboolean parse_cursor(const char *text, VpEventPlace *ret_place)
{
    g_auto(GStrv) words = g_strsplit(text, " ", -1);
    const guint count = g_strv_length(words);
    VpEventPlace place = {0};
    guint64 handled = 0;

    if ((count != 1 && count != 3) || !g_ascii_string_to_signed(words[0], 10, 0, G_MAXINT64 - 1, &place.complete, NULL))
        return FALSE;
    if (count == 3 && (!g_ascii_string_to_signed(words[1], 10, place.complete + 1, G_MAXINT64, &place.revision, NULL) ||
                       !g_ascii_string_to_unsigned(words[2], 10, 1, G_MAXUINT32, &handled, NULL)))
        return FALSE;
    place.handled = (guint)handled;
    *ret_place = place;
    return TRUE;
}

VpError *vp_event_cursor_load(const char *path, VpEventPlace *place, gboolean *ret_found)
{
    g_autoptr(GError) wrong = NULL;
    g_autofree char *text = NULL;

    *ret_found = g_file_get_contents(path, &text, NULL, &wrong);
    if (!*ret_found && g_error_matches(wrong, G_FILE_ERROR, G_FILE_ERROR_NOENT))
        return NULL;
    if (!*ret_found)
        return vp_error_new(VP_FAILED_PRECONDITION, "CURSOR_UNREADABLE", "cannot read the cursor: %s", wrong->message);
    if (!parse_cursor(g_strstrip(text), place))
        return vp_error_new(VP_FAILED_PRECONDITION, "CURSOR_UNREADABLE",
                            "%s holds no revision; name another file, or remove this one and say --from REVISION",
                            path);
    return NULL;
}

VpError *vp_event_cursor_save(const char *path, const VpEventPlace *place)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GError) wrong = NULL;

    g_string_printf(text, "%" G_GINT64_FORMAT, place->complete);
    if (place->revision > place->complete)
        g_string_append_printf(text, " %" G_GINT64_FORMAT " %u", place->revision, place->handled);
    g_string_append_c(text, '\n');
    if (g_file_set_contents_full(path, text->str, (gssize)text->len,
                                 G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE, 0666, &wrong))
        return NULL;
    return vp_error_new(VP_FAILED_PRECONDITION, "CURSOR_UNWRITABLE", "cannot save the cursor: %s", wrong->message);
}
