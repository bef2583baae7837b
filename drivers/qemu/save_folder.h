/*
 * What a domain's folder has of saves: the file that the daemon keeps (memory.save), its name once the guest may have run from it (memory.used), and the note
 * of a save that is under way (saving), by which a later daemon takes it back or completes it. Blocks on the disk.
 */
#pragma once

#include "save_file.h"

#define VP_SAVE_FILE "memory.save"
#define VP_SAVE_USED "memory.used"

/* A save that is under way. From the moment that `path` is there and has `id` it is done, and the domain does not go on. */
typedef struct VpSaveNote {
    char *id;
    char *path;           /* of the file when it is done */
    char *temporary;      /* while it is written */
    gboolean was_running; /* the CPUs ran before */
} VpSaveNote;

void vp_save_note_clear(VpSaveNote *note);
VpError *vp_save_note_write(const char *dir, const VpSaveNote *note);
/* FALSE: there is none. */
gboolean vp_save_note_read(const char *dir, VpSaveNote *ret_note);
/* Removes it, and the file that was being written. */
void vp_save_note_drop(const char *dir);

/* Whether the save that was under way is done; then what is to be told of it, owned by the caller. */
PbSavedState *vp_save_note_done(const VpSaveNote *note, const char *dir, const guint8 *key);

/* The key by which the daemon knows its own files, made with the first use; `state_dir` is the driver's. */
VpError *vp_save_key(const char *state_dir, guint8 *ret_key);

/* The file that the daemon keeps: its path, owned by the caller. */
char *vp_save_kept_path(const char *dir);
gboolean vp_save_is_used(const char *dir);
/* The guest is about to run from it: it will not be used again. On the disk when this returns. */
VpError *vp_save_mark_used(const char *dir);
/* It has not run after all. */
VpError *vp_save_unmark_used(const char *dir);
/* The guest runs. */
void vp_save_remove_used(const char *dir);
/* Removes all that there is of saves in the folder. */
void vp_save_remove_all(const char *dir);

/* What is told of a file. */
PbSavedState *vp_saved_state_new(const char *path, gboolean managed, const PbSaveFileHead *head, guint64 size_bytes);
