/*
 * The audit log: who called what on what, and what came of it; a JSON object a line, in a file that is rotated, in systemd's journal, or in both. Calls
 * hand their records over; a thread writes. What it cannot keep up with is counted, and the count is written. Requests' contents never get here, so
 * neither do secrets. /
 */
#pragma once

#include "base/error.h"

typedef struct VpAudit VpAudit;

typedef struct VpAuditOptions {
    const char *file;  /* NULL: none */
    gboolean journal;  /* each line also as an entry of systemd's journal, of virtplaned-audit */
    guint64 max_bytes; /* then it is renamed to FILE.1, that to FILE.2, ... */
    guint keep;        /* how many of those */
    /* Told of each refused call, on the audit's thread; may be NULL. Bounded: at most some 10 a second. */
    void (*refused)(void *data, const char *identity, const char *method, const char *detail);
    void *data;
} VpAuditOptions;

typedef struct VpAuditRecord {
    const char *identity;
    const char *caller;
    const char *method;
    const char *resource; /* NULL: none */
    gboolean refused;
    const VpError *error; /* NULL: done */
    gint64 revision;      /* 0: none */
    gint64 duration_us;
    guint64 left_out; /* so many refusals before it were not written, as there were too many */
} VpAuditRecord;

/* Opens the file. FAILED_PRECONDITION if there is no journal that is to be used. The strings of `options` are copied. */
VpAudit *vp_audit_new(const VpAuditOptions *options, VpError **error);
/* Any thread; never blocks. */
void vp_audit_write(VpAudit *audit, const VpAuditRecord *record);
/* Writes what there is, and from then on nothing. Once. */
void vp_audit_stop(VpAudit *audit);
/* The same, if that was not done, and frees it. NULL is let pass. */
void vp_audit_free(VpAudit *audit);
