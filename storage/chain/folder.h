/*
 * ImageService.InspectPath: every file below a folder as the top of a chain. The caller's thread lists the folder and hands results on; a few
 * threads walk. Everything in between is bounded: who does not take results stops the walks.
 */
#pragma once

#include "base/error.h"
#include "storage/chain/policy.h"
#include "virtplane/v1/image_service.pb-c.h"

typedef struct VpFolderOptions {
    const VpImagePolicy *policy; /* NULL: that of a daemon without configuration */
    PbImageFormat alike;         /* the format that files which look like it are declared to have; UNSPECIFIED: none */
    guint32 max_depth;           /* as in VpChainOptions */
    gboolean flat;               /* do not go into subfolders */
    guint threads;               /* that walk; 0: as many as cores, at most 4 */
    /* What somebody declared this file to be; UNSPECIFIED: nobody did. May be NULL. Any thread. */
    PbImageFormat (*declared)(void *data, const char *path);
    void *declared_data;
} VpFolderOptions;

/* Takes the next message, on the caller's thread; it may be added to, and is freed afterwards. FALSE: no more, the reader has gone. */
typedef gboolean (*VpFolderSink)(void *data, PbInspectPathResponse *message);

/* Inspects; the last message has the summary. NOT_FOUND, PERMISSION_DENIED, FAILED_PRECONDITION (reason NOT_A_FOLDER) if there is no such folder to be
 * read; CANCELLED if the sink said so. Bad files are answers. */
VpError *vp_folder_inspect(const char *path, const VpFolderOptions *options, VpFolderSink sink, void *data);
