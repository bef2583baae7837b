/* Events: the line that a person reads, the filter that a person writes, and the place reached in the journal. */
#pragma once

#include "virtplane/v1/event_service.pb-c.h"

#include "base/error.h"

/* "    42  2026-01-02 03:04:05.678  domain-started        domain/web  REQUESTED  detail", with no newline. */
char *vp_event_line(const PbEvent *event, gboolean color);

/* What events are about (EventFilter.resource_types), NULL at the end. */
extern const char *const vp_event_resource_types[];

/* Adds "KEY=VALUE" to the filter: type, resource, name, uid, driver; "label=KEY=VALUE". */
VpError *vp_event_filter_add(PbEventFilter *filter, const char *text);

/* Where a reader of the journal is. Several events may share a revision, and a stream may break between them. */
typedef struct VpEventPlace {
    gint64 complete; /* everything up to here was handled; -1: not known yet, the stream starts "from now on" */
    gint64 revision; /* of the last event */
    guint handled;   /* events of that revision that were handled */
    guint skip;      /* of these, how many will come again on the present stream */
    gboolean fresh;  /* nothing has come on the present stream */
} VpEventPlace;

/* `start_revision` as in WatchEventsRequest; 0: from now on. */
void vp_event_place_init(VpEventPlace *place, gint64 start_revision);
/* The start_revision to ask for, at the first connection and after a broken one. */
gint64 vp_event_place_open(VpEventPlace *place);
/* An event has come: FALSE if it was handled before. */
gboolean vp_event_place_event(VpEventPlace *place, gint64 revision);
/* A bookmark has come. */
void vp_event_place_bookmark(VpEventPlace *place, gint64 revision);

/* The place in a cursor file, which is "REVISION", or "REVISION NEXT COUNT" where COUNT events of revision NEXT were
 * handled too. */
VpError *vp_event_cursor_load(const char *path, VpEventPlace *place, gboolean *ret_found);
/* Replaces the file in one step: a crash leaves the old one or the new one. */
VpError *vp_event_cursor_save(const char *path, const VpEventPlace *place);
