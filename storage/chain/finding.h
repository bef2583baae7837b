/* The words of findings: what is wrong, and a remedy that works when pasted. Paths come as they are on disk and are escaped here. */
#pragma once

#include "storage/probe/probe.h"
#include "virtplane/v1/image.pb-c.h"

/* A finding about `path`; the message is "PATH: TEXT" with all of TEXT escaped. `remedy` is taken over; NULL: none. */
PbFinding *vp_finding_new(PbFindingCode code, PbSeverity severity, guint32 depth, const char *path, char *remedy,
                          const char *format, ...) G_GNUC_PRINTF(6, 7);

/* What the parser of `format` noted, with the remedy that fits. */
PbFinding *vp_finding_from_issue(const VpProbeIssue *issue, PbImageFormat format, guint32 depth, const char *path);

/* How to record the format of `backing` (as the header names it) in `overlay`; UNSPECIFIED: the person has to know it. */
char *vp_remedy_record(const char *overlay, const char *backing, PbImageFormat format);

/* For an overlay of a format that has no place for it: how to make a qcow2 of it, with its backing file named in the command. */
char *vp_remedy_convert(const char *overlay, PbImageFormat overlay_format, const char *backing, PbImageFormat format);

/* The qemu-img command alone; `format` has to have a name in QEMU. */
char *vp_remedy_rebase_to(const char *overlay, const char *backing, PbImageFormat format);

/* How to declare the format of the top; UNSPECIFIED: the person has to know it. */
char *vp_remedy_declare(const char *path, PbImageFormat format);

/* How to give `overlay` another backing file. */
char *vp_remedy_rebase(const char *overlay);
