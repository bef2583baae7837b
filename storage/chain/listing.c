/* See listing.h. Links to folders are not followed, so that there is no loop; folders are opened as images are, O_PATH first. */
#include "storage/chain/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "storage/chain/text.h"

#define MAX_PENDING 65536 /* folders seen and not read yet */

static void handle_unref(VpFolderHandle *handle)
{
    if (handle && g_atomic_int_dec_and_test(&handle->refs)) {
        close(handle->fd);
        g_free(handle);
    }
}

static void listed_clear(gpointer data)
{
    VpListed *listed = data;
    handle_unref(listed->folder);
    g_free(listed->path);
}

GArray *vp_listed_array(guint room)
{
    GArray *files = g_array_sized_new(FALSE, FALSE, sizeof(VpListed), room);
    g_array_set_clear_func(files, listed_clear);
    return files;
}

struct VpListing {
    VpOpener opener;
    GPtrArray *pending; /* of char *, paths of folders */
    DIR *dir;           /* being read */
    VpFolderHandle *handle;
    char *path; /* its path, with a slash at its end */
    gboolean flat;
};

static VpError *no_descriptor(int fd)
{
    int errnum = errno;
    close(fd);
    return vp_error_errno(errnum, "OUT_OF_DESCRIPTORS", "cannot read a folder");
}

/* Opens a folder for reading; `refusal` as vp_opener_open() has it. */
static VpError *open_folder(VpListing *listing, const char *path, VpOpenRefusal *refusal)
{
    int fd = -1;
    VpError *error = vp_opener_open_folder(&listing->opener, path, &fd, refusal);
    if (error || fd < 0) {
        return error;
    }
    /* The files keep a descriptor of their own: the listing goes on while they are opened. */
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) {
        return no_descriptor(fd);
    }
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(own);
        return no_descriptor(fd);
    }
    listing->dir = dir;
    listing->handle = g_new(VpFolderHandle, 1);
    *listing->handle = (VpFolderHandle){1, own};
    gsize length = strlen(path);
    g_free(listing->path);
    listing->path = length > 0 && path[length - 1] == '/' ? g_strdup(path) : g_strconcat(path, "/", NULL);
    return NULL;
}

static void close_folder(VpListing *listing)
{
    g_clear_pointer(&listing->dir, closedir);
    g_clear_pointer(&listing->handle, handle_unref);
}

static VpError *no_folder(const char *path, const VpOpenRefusal *refusal)
{
    g_autofree char *shown = vp_text_escape(path, -1);
    VpCode code = refusal->code == PB_FINDING_CODE_FILE_MISSING            ? VP_NOT_FOUND
                  : refusal->code == PB_FINDING_CODE_PERMISSION_DENIED     ? VP_PERMISSION_DENIED
                  : refusal->code == PB_FINDING_CODE_OUTSIDE_ALLOWED_ROOTS ? VP_PERMISSION_DENIED
                                                                           : VP_FAILED_PRECONDITION;
    const char *reason = code == VP_NOT_FOUND           ? "FILE_MISSING"
                         : code == VP_PERMISSION_DENIED ? "PERMISSION_DENIED"
                                                        : "NOT_A_FOLDER";
    return vp_error_with(vp_error_new(code, reason, "%s: %s", shown, refusal->why), "path", shown);
}

VpError *vp_listing_new(const char *path, const VpImagePolicy *policy, gboolean flat, VpListing **ret)
{
    g_autoptr(VpListing) listing = g_new0(VpListing, 1);
    VpOpenRefusal refusal;

    if (path[0] != '/') {
        return vp_error_new(VP_INVALID_ARGUMENT, "PATH_NOT_ABSOLUTE", "the path of a folder has to be absolute");
    }
    listing->flat = flat;
    listing->pending = g_ptr_array_new_with_free_func(g_free);
    vp_opener_init(&listing->opener, policy);
    VpError *error = open_folder(listing, path, &refusal);
    if (!error && !listing->dir) {
        error = no_folder(path, &refusal);
        g_free(refusal.why);
    }
    if (error) {
        return error;
    }
    *ret = g_steal_pointer(&listing);
    return NULL;
}

void vp_listing_free(VpListing *listing)
{
    if (!listing) {
        return;
    }
    close_folder(listing);
    g_clear_pointer(&listing->pending, g_ptr_array_unref);
    vp_opener_clear(&listing->opener);
    g_free(listing->path);
    g_free(listing);
}

static void note_unread(GArray *unread, const char *path, PbFindingCode code, char *why)
{
    VpUnread entry = {.path = g_strdup(path), .code = code, .why = why};
    g_array_append_val(unread, entry);
}

/* Goes on to the next folder that can be read. FALSE: there is none. */
static gboolean next_folder(VpListing *listing, GArray *unread)
{
    while (listing->pending->len > 0) {
        g_autofree char *path = g_ptr_array_steal_index_fast(listing->pending, listing->pending->len - 1);
        VpOpenRefusal refusal = {0};
        g_autoptr(VpError) error = open_folder(listing, path, &refusal);
        if (listing->dir) {
            return TRUE;
        }
        note_unread(unread, path, error ? PB_FINDING_CODE_IO_ERROR : refusal.code,
                    error ? g_strdup(error->message) : refusal.why);
    }
    return FALSE;
}

static gboolean is_folder(const VpListing *listing, const struct dirent *entry)
{
    struct stat st;
    if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK) {
        return entry->d_type == DT_DIR;
    }
    return fstatat(dirfd(listing->dir), entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

/* A link to a folder is let be: what is there has a place of its own. */
static gboolean is_link(const VpListing *listing, const struct dirent *entry)
{
    struct stat st;
    if (entry->d_type != DT_UNKNOWN) {
        return entry->d_type == DT_LNK;
    }
    return fstatat(dirfd(listing->dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

static void take_entry(VpListing *listing, const struct dirent *entry, GArray *files, GArray *unread)
{
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
        return;
    }
    g_autofree char *path = g_strconcat(listing->path, entry->d_name, NULL);
    if (!is_folder(listing, entry)) {
        VpListed listed = {
            .path = path,
            .name = path + strlen(listing->path),
            .folder = listing->handle,
            .is_regular = entry->d_type == DT_REG,
        };
        g_atomic_int_inc(&listing->handle->refs);
        g_array_append_val(files, listed);
        path = NULL;
        return;
    }
    if (listing->flat || is_link(listing, entry)) {
        return;
    }
    if (listing->pending->len >= MAX_PENDING) {
        note_unread(unread, path, PB_FINDING_CODE_IO_ERROR, g_strdup("is left out: there are too many folders"));
        return;
    }
    g_ptr_array_add(listing->pending, g_steal_pointer(&path));
}

gboolean vp_listing_next(VpListing *listing, guint most, GArray *files, GArray *unread)
{
    while (files->len < most) {
        errno = 0;
        const struct dirent *entry = listing->dir ? readdir(listing->dir) : NULL;
        if (entry) {
            take_entry(listing, entry, files, unread);
            continue;
        }
        if (listing->dir && errno) {
            note_unread(unread, listing->path, PB_FINDING_CODE_IO_ERROR,
                        g_strdup_printf("cannot be read to its end: %s", g_strerror(errno)));
        }
        close_folder(listing);
        if (!next_folder(listing, unread)) {
            return FALSE;
        }
    }
    return TRUE;
}
