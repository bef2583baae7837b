/* See known.h. */
#include "known.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/thread.h"
#include "process.h"

#define TIMEOUT_US (10 * G_USEC_PER_SEC)
#define MAX_ANSWER_BYTES (16UL * 1024 * 1024)

static const char *const questions[] = {
    "qmp_capabilities",      "query-version",  "query-machines",
    "query-cpu-definitions", "qom-list-types", "query-qmp-schema",
};

static GHashTable *new_set(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

static void put(GHashTable *set, const char *key, const char *value)
{
    g_hash_table_replace(set, g_strdup(key), g_strdup(value));
}

static VpQemuKnown *known_new(void)
{
    VpQemuKnown *known = g_new0(VpQemuKnown, 1);

    known->refs = 1;
    known->types = new_set();
    known->machines = new_set();
    known->cpus = new_set();
    known->commands = new_set();
    known->aio = new_set();
    known->netdevs = new_set();
    return known;
}

VpQemuKnown *vp_qemu_known_ref(VpQemuKnown *known)
{
    g_atomic_int_inc(&known->refs);
    return known;
}

void vp_qemu_known_unref(VpQemuKnown *known)
{
    if (!known || !g_atomic_int_dec_and_test(&known->refs))
        return;
    g_hash_table_unref(known->types);
    g_hash_table_unref(known->machines);
    g_hash_table_unref(known->cpus);
    g_hash_table_unref(known->commands);
    g_hash_table_unref(known->aio);
    g_hash_table_unref(known->netdevs);
    g_free(known->version);
    g_free(known);
}

/* ---- a file ---- */

static const struct {
    const char *name;
    gsize offset;
} sets[] = {
    {"types", offsetof(VpQemuKnown, types)}, {"machines", offsetof(VpQemuKnown, machines)},
    {"cpus", offsetof(VpQemuKnown, cpus)},   {"commands", offsetof(VpQemuKnown, commands)},
    {"aio", offsetof(VpQemuKnown, aio)},     {"netdevs", offsetof(VpQemuKnown, netdevs)},
};

static GHashTable *set_at(const VpQemuKnown *known, guint number)
{
    return *(GHashTable *const *)(const void *)((const char *)known + sets[number].offset);
}

static json_t *set_to_json(GHashTable *set)
{
    json_t *object = json_object();
    GHashTableIter iter;
    gpointer key;
    gpointer value;

    g_hash_table_iter_init(&iter, set);
    while (g_hash_table_iter_next(&iter, &key, &value))
        json_object_set_new(object, key, json_string(value));
    return object;
}

void vp_qemu_known_save(const VpQemuKnown *known, const char *path, const char *mark)
{
    json_t *root = json_pack("{s:s, s:s}", "mark", mark, "version", known->version);

    for (guint i = 0; i < G_N_ELEMENTS(sets); i++)
        json_object_set_new(root, sets[i].name, set_to_json(set_at(known, i)));
    char *text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);
    /* It only saves time: where it cannot be written it is asked anew. */
    if (text)
        g_file_set_contents_full(path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL);
    free(text);
    json_decref(root);
}

VpQemuKnown *vp_qemu_known_load(const char *path, const char *mark)
{
    json_t *root = json_load_file(path, 0, NULL);
    const char *version = json_string_value(json_object_get(root, "version"));
    VpQemuKnown *known = NULL;
    const char *key;
    json_t *value;

    if (version && g_strcmp0(json_string_value(json_object_get(root, "mark")), mark) == 0) {
        known = known_new();
        known->version = g_strdup(version);
        for (guint i = 0; i < G_N_ELEMENTS(sets); i++) {
            json_object_foreach(json_object_get(root, sets[i].name), key, value)
                put(set_at(known, i), key, json_string_value(value));
        }
    }
    json_decref(root);
    return known;
}

/* ---- the answers ---- */

static const char *text_of(json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void take_version(VpQemuKnown *known, json_t *answer)
{
    json_t *qemu = json_object_get(answer, "qemu");

    known->version = g_strdup_printf("%d.%d.%d", (int)json_integer_value(json_object_get(qemu, "major")),
                                     (int)json_integer_value(json_object_get(qemu, "minor")),
                                     (int)json_integer_value(json_object_get(qemu, "micro")));
}

static void take_names(GHashTable *set, json_t *answer)
{
    size_t i;
    json_t *item;

    json_array_foreach(answer, i, item)
    {
        const char *name = text_of(item, "name");

        if (name)
            put(set, name, name);
        if (name && text_of(item, "alias"))
            put(set, text_of(item, "alias"), name);
    }
}

static gboolean has_value(json_t *values, const char *wanted)
{
    size_t i;
    json_t *value;

    json_array_foreach(values, i, value)
    {
        if (g_strcmp0(json_string_value(value), wanted) == 0)
            return TRUE;
    }
    return FALSE;
}

/* The schema's types have numbers for names: an enumeration is known by two values that it alone has. */
static void take_enum(VpQemuKnown *known, json_t *values)
{
    GHashTable *set = has_value(values, "threads") && has_value(values, "native") ? known->aio
                      : has_value(values, "hubport") && has_value(values, "tap")  ? known->netdevs
                                                                                  : NULL;
    size_t i;
    json_t *value;

    if (!set)
        return;
    json_array_foreach(values, i, value) put(set, json_string_value(value), "");
}

static void take_schema(VpQemuKnown *known, json_t *answer)
{
    size_t i;
    json_t *entry;

    json_array_foreach(answer, i, entry)
    {
        const char *kind = text_of(entry, "meta-type");

        if (g_strcmp0(kind, "command") == 0 && text_of(entry, "name"))
            put(known->commands, text_of(entry, "name"), "");
        else if (g_strcmp0(kind, "enum") == 0)
            take_enum(known, json_object_get(entry, "values"));
    }
}

static void take_answer(VpQemuKnown *known, const char *question, json_t *answer)
{
    if (strcmp(question, "query-version") == 0)
        take_version(known, answer);
    else if (strcmp(question, "query-machines") == 0)
        take_names(known->machines, answer);
    else if (strcmp(question, "query-cpu-definitions") == 0)
        take_names(known->cpus, answer);
    else if (strcmp(question, "qom-list-types") == 0)
        take_names(known->types, answer);
    else if (strcmp(question, "query-qmp-schema") == 0)
        take_schema(known, answer);
}

/* ---- the conversation ---- */

static VpError *unusable(const char *binary, const char *what)
{
    return vp_error_new(VP_FAILED_PRECONDITION, "QEMU_UNUSABLE", "%s %s; is it QEMU?", binary, what);
}

static VpError *ask_all(int fd, const char *binary)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (guint i = 0; i < G_N_ELEMENTS(questions); i++)
        g_string_append_printf(text, "{\"execute\":\"%s\",\"id\":%u}\n", questions[i], i);
    /* So that it ends by itself, should we end first. */
    g_string_append(text, "{\"execute\":\"quit\"}\n");
    if (send(fd, text->str, text->len, MSG_NOSIGNAL) != (ssize_t)text->len)
        return unusable(binary, "ended before it was asked what it can do");
    return NULL;
}

/* FALSE: this was the last. */
static gboolean take_line(VpQemuKnown *known, const char *line, gsize length)
{
    json_t *message = json_loadb(line, length, 0, NULL);
    json_t *id = json_object_get(message, "id");
    const guint number = (guint)json_integer_value(id);

    if (json_is_integer(id) && number < G_N_ELEMENTS(questions))
        take_answer(known, questions[number], json_object_get(message, "return"));
    const gboolean last = json_is_integer(id) && number + 1 == G_N_ELEMENTS(questions);
    json_decref(message);
    return !last;
}

static VpError *read_answers(int fd, const char *binary, VpQemuKnown *known)
{
    const gint64 deadline_us = vp_now_us() + TIMEOUT_US;
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    g_autoptr(GString) text = g_string_new(NULL);
    char buffer[65536];
    gsize scanned = 0;

    for (;;) {
        const char *end = memchr(text->str + scanned, '\n', text->len - scanned);

        if (end) {
            const gsize length = (gsize)(end - text->str);

            if (!take_line(known, text->str, length))
                return NULL;
            g_string_erase(text, 0, (gssize)length + 1);
            scanned = 0;
            continue;
        }
        scanned = text->len;
        const gint64 left_ms = (deadline_us - vp_now_us()) / 1000;
        if (left_ms <= 0 || text->len > MAX_ANSWER_BYTES)
            return unusable(binary, "does not tell what it can do");
        if (poll(&poll_fd, 1, (int)left_ms) <= 0)
            continue;
        const ssize_t n = read(fd, buffer, sizeof(buffer));
        if (n <= 0)
            return unusable(binary, "ended before it told what it can do");
        g_string_append_len(text, buffer, n);
    }
}

static VpError *talk(const char *binary, int sockets[2], VpQemuKnown *known)
{
    const char *const argv[] = {
        binary,
        "-machine",
        "none",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-S",
        "-chardev",
        "socket,id=qmp,fd=3",
        "-mon",
        "chardev=qmp,mode=control",
        NULL,
    };
    const VpProcessSpec spec = {.argv = argv, .fds = &sockets[1], .n_fds = 1, .output_fd = sockets[1]};
    VpProcess process;
    VpError *error = vp_process_spawn(&spec, &process);

    if (error)
        return error;
    /* Were our copy of its end open, we would not see it end. */
    close(sockets[1]);
    sockets[1] = -1;
    error = ask_all(sockets[0], binary);
    if (!error)
        error = read_answers(sockets[0], binary, known);
    struct pollfd ended = {.fd = process.pidfd, .events = POLLIN};
    vp_error_free(vp_process_kill(&process, SIGKILL));
    poll(&ended, 1, 1000);
    g_free(vp_process_reap(&process));
    vp_process_clear(&process);
    return error;
}

VpError *vp_qemu_ask(const char *binary, VpQemuKnown **ret_known)
{
    g_autoptr(VpQemuKnown) known = known_new();
    int sockets[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0)
        return vp_error_errno(errno, "SPAWN_FAILED", "cannot ask %s", binary);
    VpError *error = talk(binary, sockets, known);
    close(sockets[0]);
    if (sockets[1] >= 0)
        close(sockets[1]);
    if (!error && (!known->version || g_hash_table_size(known->types) == 0))
        error = unusable(binary, "does not tell what it can do");
    if (!error)
        *ret_known = g_steal_pointer(&known);
    return error;
}
