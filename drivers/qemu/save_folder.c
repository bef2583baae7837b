/* See save_folder.h. */
#include "save_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pb.h"
#include "save_read.h"

#define NOTE "saving"
#define GROUP "save"
#define KEY "save.key"

static char *in_folder(const char *dir, const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void remove_file(const char *dir, const char *name)
{
    g_autofree char *path = in_folder(dir, name);

    unlink(path);
}

/* What was renamed or removed in the folder stays so. */
static VpError *sync_folder(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int r = fd < 0 ? -1 : fsync(fd);
    const int errnum = errno;

    if (fd >= 0)
        close(fd);
    return r < 0 ? vp_error_errno(errnum, "STATE_DIR", "cannot write the folder %s to the disk", dir) : NULL;
}

/* ---- the note ---- */

void vp_save_note_clear(VpSaveNote *note)
{
    g_clear_pointer(&note->id, g_free);
    g_clear_pointer(&note->path, g_free);
    g_clear_pointer(&note->temporary, g_free);
}

VpError *vp_save_note_write(const char *dir, const VpSaveNote *note)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autofree char *path = in_folder(dir, NOTE);
    g_autoptr(GError) failure = NULL;

    g_key_file_set_string(file, GROUP, "id", note->id);
    g_key_file_set_string(file, GROUP, "path", note->path);
    g_key_file_set_string(file, GROUP, "temporary", note->temporary);
    g_key_file_set_boolean(file, GROUP, "was_running", note->was_running);
    g_autofree char *text = g_key_file_to_data(file, NULL, NULL);
    if (!g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &failure))
        return vp_error_new(failure->code == G_FILE_ERROR_NOSPC ? VP_RESOURCE_EXHAUSTED : VP_INTERNAL, "STATE_DIR",
                            "cannot write down that the domain is being saved: %s", failure->message);
    return NULL;
}

gboolean vp_save_note_read(const char *dir, VpSaveNote *ret_note)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autofree char *path = in_folder(dir, NOTE);
    VpSaveNote note = {0};

    if (!g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, NULL))
        return FALSE;
    note.id = g_key_file_get_string(file, GROUP, "id", NULL);
    note.path = g_key_file_get_string(file, GROUP, "path", NULL);
    note.temporary = g_key_file_get_string(file, GROUP, "temporary", NULL);
    note.was_running = g_key_file_get_boolean(file, GROUP, "was_running", NULL);
    if (!note.id || !note.path || !note.temporary) {
        vp_save_note_clear(&note);
        return FALSE;
    }
    *ret_note = note;
    return TRUE;
}

/* Notes that were not written to their end. */
static void remove_half_notes(const char *dir)
{
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);

    for (const char *name = entries ? g_dir_read_name(entries) : NULL; name; name = g_dir_read_name(entries)) {
        if (g_str_has_prefix(name, NOTE "."))
            remove_file(dir, name);
    }
}

void vp_save_note_drop(const char *dir)
{
    VpSaveNote note;

    if (vp_save_note_read(dir, &note)) {
        unlink(note.temporary);
        vp_save_note_clear(&note);
    }
    remove_file(dir, NOTE);
    remove_half_notes(dir);
}

PbSavedState *vp_save_note_done(const VpSaveNote *note, const char *dir, const guint8 *key)
{
    g_autofree char *kept = vp_save_kept_path(dir);
    VpSaveReader reader = {.fd = -1};
    PbSavedState *saved = NULL;
    g_autoptr(VpError) error = NULL;

    reader.fd = open(note->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (reader.fd < 0)
        return NULL;
    error = vp_save_reader_read(&reader, key);
    if (!error && strcmp(reader.head->id, note->id) == 0)
        saved = vp_saved_state_new(note->path, strcmp(note->path, kept) == 0, reader.head,
                                   reader.frame.stream_offset + reader.frame.stream_bytes);
    vp_save_reader_clear(&reader);
    return saved;
}

/* ---- the key ---- */

static VpError *make_key(const char *path)
{
    guint8 key[VP_SAVE_KEY_BYTES];
    g_autoptr(GError) failure = NULL;

    if (getrandom(key, sizeof(key), 0) != (ssize_t)sizeof(key))
        return vp_error_errno(errno, "STATE_DIR", "there are no random numbers");
    if (!g_file_set_contents_full(path, (const char *)key, sizeof(key),
                                  G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE, 0600, &failure))
        return vp_error_new(VP_INTERNAL, "STATE_DIR", "cannot make the key of saved domains: %s", failure->message);
    return NULL;
}

VpError *vp_save_key(const char *state_dir, guint8 *ret_key)
{
    static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER; /* two threads make one key */
    g_autofree char *path = in_folder(state_dir, KEY);
    g_autofree char *key = NULL;
    gsize length = 0;
    VpError *error = NULL;

    pthread_mutex_lock(&making);
    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        error = make_key(path);
    pthread_mutex_unlock(&making);
    if (error)
        return error;
    if (!g_file_get_contents(path, &key, &length, NULL) || length != VP_SAVE_KEY_BYTES)
        return vp_error_new(VP_INTERNAL, "STATE_DIR", "%s cannot be read or is damaged", path);
    memcpy(ret_key, key, VP_SAVE_KEY_BYTES);
    return NULL;
}

/* ---- the file that the daemon keeps ---- */

char *vp_save_kept_path(const char *dir)
{
    return in_folder(dir, VP_SAVE_FILE);
}

gboolean vp_save_is_used(const char *dir)
{
    g_autofree char *path = in_folder(dir, VP_SAVE_USED);

    return g_file_test(path, G_FILE_TEST_EXISTS);
}

static VpError *rename_in(const char *dir, const char *from, const char *to)
{
    g_autofree char *old = in_folder(dir, from);
    g_autofree char *now = in_folder(dir, to);

    if (rename(old, now) < 0)
        return vp_error_errno(errno, "STATE_DIR", "cannot rename %s to %s", old, to);
    return sync_folder(dir);
}

VpError *vp_save_mark_used(const char *dir)
{
    return rename_in(dir, VP_SAVE_FILE, VP_SAVE_USED);
}

VpError *vp_save_unmark_used(const char *dir)
{
    return rename_in(dir, VP_SAVE_USED, VP_SAVE_FILE);
}

void vp_save_remove_used(const char *dir)
{
    remove_file(dir, VP_SAVE_USED);
}

void vp_save_remove_all(const char *dir)
{
    vp_save_note_drop(dir);
    remove_file(dir, VP_SAVE_FILE);
    remove_file(dir, VP_SAVE_USED);
}

PbSavedState *vp_saved_state_new(const char *path, gboolean managed, const PbSaveFileHead *head, guint64 size_bytes)
{
    PbSavedState *saved = vp_pb_new(&pb_saved_state__descriptor);

    vp_pb_set(&saved->path, path);
    saved->managed = managed;
    saved->paused = head->paused;
    saved->size_bytes = size_bytes;
    if (head->save_time)
        saved->save_time = vp_pb_dup(head->save_time);
    return saved;
}
