/* See contain_user.h. */
#include "contain_user.h"

#include <errno.h>
#include <stdlib.h>

#include "base/thread.h"

#define FILE_NAME "user"

struct VpUsers {
    uid_t first;
    uid_t last;
    char *state_dir;

    pthread_mutex_t mutex; /* guards what follows */
    gboolean read;
    GHashTable *by_domain; /* uid to number */
    GHashTable *taken;     /* numbers */
};

VpUsers *vp_users_new(uid_t first, uid_t last, const char *state_dir)
{
    VpUsers *users = g_new0(VpUsers, 1);

    users->first = first;
    users->last = last;
    users->state_dir = g_strdup(state_dir);
    pthread_mutex_init(&users->mutex, NULL);
    users->by_domain = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    users->taken = g_hash_table_new(NULL, NULL);
    return users;
}

void vp_users_free(VpUsers *users)
{
    if (!users)
        return;
    g_hash_table_unref(users->by_domain);
    g_hash_table_unref(users->taken);
    pthread_mutex_destroy(&users->mutex);
    g_free(users->state_dir);
    g_free(users);
}

/* ---- the folders ---- */

static char *path_of(const VpUsers *users, const char *uid)
{
    return g_build_filename(users->state_dir, uid, FILE_NAME, NULL);
}

/* 0: none that is in the range. */
static uid_t read_user(const VpUsers *users, const char *uid)
{
    g_autofree char *path = path_of(users, uid);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return 0;
    const guint64 number = g_ascii_strtoull(text, NULL, 10);
    return number >= users->first && number <= users->last ? (uid_t)number : 0;
}

static void note(VpUsers *users, const char *uid, uid_t user)
{
    g_hash_table_replace(users->by_domain, g_strdup(uid), GUINT_TO_POINTER(user));
    g_hash_table_add(users->taken, GUINT_TO_POINTER(user));
}

/* Once: those that domains have from earlier daemons, whether they run or not. */
static void read_all(VpUsers *users)
{
    g_autoptr(GDir) entries = g_dir_open(users->state_dir, 0, NULL);

    users->read = TRUE;
    for (const char *uid = entries ? g_dir_read_name(entries) : NULL; uid; uid = g_dir_read_name(entries)) {
        const uid_t user = read_user(users, uid);

        if (user)
            note(users, uid, user);
    }
}

/* ---- numbers ---- */

/* By chance, so that another daemon on this host, and the next one in this folder, is unlikely to give the same. */
static uid_t pick(const VpUsers *users)
{
    const guint64 size = (guint64)users->last - users->first + 1;
    const guint64 from = g_random_int() % size;

    for (guint64 i = 0; i < size; i++) {
        const uid_t user = users->first + (uid_t)((from + i) % size);

        if (!g_hash_table_contains(users->taken, GUINT_TO_POINTER(user)))
            return user;
    }
    return 0;
}

VpError *vp_users_take(VpUsers *users, const char *uid, uid_t *ret_user)
{
    VP_LOCK(&users->mutex);
    if (!users->read)
        read_all(users);
    uid_t user = GPOINTER_TO_UINT(g_hash_table_lookup(users->by_domain, uid));
    if (!user) {
        g_autofree char *path = path_of(users, uid);
        g_autoptr(GError) failure = NULL;

        user = pick(users);
        if (!user)
            return vp_error_new(VP_RESOURCE_EXHAUSTED, "NO_USER_LEFT",
                                "all users from %u to %u are taken; uid_range= in the daemon's [qemu] settings says "
                                "how many there are",
                                users->first, users->last);
        g_autofree char *text = g_strdup_printf("%u\n", user);
        if (!g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &failure))
            return vp_error_new(failure->code == G_FILE_ERROR_NOSPC ? VP_RESOURCE_EXHAUSTED : VP_INTERNAL, "STATE_DIR",
                                "cannot write %s: %s", path, failure->message);
        note(users, uid, user);
    }
    *ret_user = user;
    return NULL;
}

void vp_users_release(VpUsers *users, const char *uid)
{
    VP_LOCK(&users->mutex);
    const guint user = GPOINTER_TO_UINT(g_hash_table_lookup(users->by_domain, uid));
    if (user)
        g_hash_table_remove(users->taken, GUINT_TO_POINTER(user));
    g_hash_table_remove(users->by_domain, uid);
}
