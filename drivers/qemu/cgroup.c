/* See cgroup.h. */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Where a domain's folder says what groups there are. */
#define RECORD "cgroups"
#define PERIOD_US 100000
#define REMOVE_TRIES 40
#define REMOVE_WAIT_US 5000

/* ---- the host ---- */

static char *unescape(const char *path)
{
    return g_strcompress(path);
}

/* One line of /proc/self/mountinfo: ... MOUNTPOINT ... - TYPE SOURCE OPTIONS. */
static void read_mount(const char *line, VpCgroupHost *host)
{
    const char *rest = strstr(line, " - ");
    g_auto(GStrv) left = g_strsplit(line, " ", 6);
    g_auto(GStrv) right = g_strsplit(rest ? rest + 3 : "", " ", 3);

    if (g_strv_length(left) < 6 || g_strv_length(right) < 3)
        return;
    if (strcmp(right[0], "cgroup2") == 0 && !host->unified)
        host->unified = unescape(left[4]);
    if (strcmp(right[0], "cgroup") != 0)
        return;
    g_auto(GStrv) options = g_strsplit(right[2], ",", -1);
    for (char **option = options; *option; option++) {
        if (!g_hash_table_contains(host->legacy, *option))
            g_hash_table_insert(host->legacy, g_strdup(*option), unescape(left[4]));
    }
}

void vp_cgroup_host_read(const char *mountinfo, VpCgroupHost *ret_host)
{
    g_auto(GStrv) lines = g_strsplit(mountinfo, "\n", -1);

    *ret_host = (VpCgroupHost){.legacy = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free)};
    for (char **line = lines; *line; line++)
        read_mount(*line, ret_host);
}

void vp_cgroup_host_clear(VpCgroupHost *host)
{
    g_clear_pointer(&host->unified, g_free);
    g_clear_pointer(&host->legacy, g_hash_table_unref);
}

/* ---- making ---- */

typedef struct Making {
    const VpCgroupHost *host;
    const char *parent;
    const char *uid;
    GPtrArray *folders; /* those that were made */
    VpError *error;
} Making;

static void refuse(Making *making, const char *field, const char *format, ...) G_GNUC_PRINTF(3, 4);
static void refuse(Making *making, const char *field, const char *format, ...)
{
    g_autofree char *path = g_strconcat("domain.spec.limits.", field, NULL);
    va_list args;

    va_start(args, format);
    g_autofree char *why = g_strdup_vprintf(format, args);
    va_end(args);
    if (!making->error)
        making->error = vp_error_new(VP_FAILED_PRECONDITION, "CGROUP", "%s: %s", path, why);
    vp_error_violation(making->error, path, "%s", why);
}

/* 0, or an errno. */
static int write_file(const char *folder, const char *name, const char *value)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    const int fd = open(path, O_WRONLY | O_CLOEXEC | O_TRUNC);
    int errnum = 0;

    if (fd < 0)
        return errno;
    if (write(fd, value, strlen(value)) < 0)
        errnum = errno;
    close(fd);
    return errnum;
}

static gboolean has_controller(const char *folder, const char *controller)
{
    g_autofree char *path = g_build_filename(folder, "cgroup.controllers", NULL);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return FALSE;
    g_auto(GStrv) words = g_strsplit_set(text, " \n", -1);
    return g_strv_contains((const char *const *)words, controller);
}

/* Makes the parts of `path` below `root` that are not there. In version 2 each hands the controller on to what is below it. */
static int make_folders(const char *root, const char *path, const char *controller)
{
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);
    g_autofree char *hand_on = controller ? g_strconcat("+", controller, NULL) : NULL;
    g_autofree char *folder = g_strdup(root);

    for (char **part = parts; *part; part++) {
        if (!**part)
            continue;
        const int errnum = hand_on ? write_file(folder, "cgroup.subtree_control", hand_on) : 0;
        if (errnum)
            return errnum;
        char *next = g_build_filename(folder, *part, NULL);
        g_free(folder);
        folder = next;
        if (mkdir(folder, 0755) < 0 && errno != EEXIST)
            return errno;
    }
    return 0;
}

static void note_folder(Making *making, const char *folder)
{
    for (guint i = 0; i < making->folders->len; i++) {
        if (g_str_equal(making->folders->pdata[i], folder))
            return;
    }
    g_ptr_array_add(making->folders, g_strdup(folder));
}

/* The group that has the controller, made if need be: version 1 where the controller is there, else 2. NULL: refused. Owned by the caller. */
static char *group_of(Making *making, const char *field, const char *old, const char *new, gboolean *ret_unified)
{
    const char *legacy = g_hash_table_lookup(making->host->legacy, old);
    const char *unified = making->host->unified;
    const char *root = legacy ? legacy : unified;

    if (!legacy && (!unified || !has_controller(unified, new))) {
        refuse(making, field, "this host has no control groups with the controller \"%s\"", new);
        return NULL;
    }
    g_autofree char *path = g_strdup_printf("%s/virtplane-%s", making->parent, making->uid);
    g_autofree char *folder = g_build_filename(root, path, NULL);
    const int errnum = make_folders(root, path, legacy ? NULL : new);
    if (errnum) {
        refuse(making, field,
               "the control group %s cannot be made: %s; [qemu] cgroup= in the daemon's settings names one that it "
               "may use",
               folder, g_strerror(errnum));
        return NULL;
    }
    note_folder(making, folder);
    *ret_unified = !legacy;
    return g_steal_pointer(&folder);
}

static void set(Making *making, const char *field, const char *folder, const char *file, const char *value)
{
    const int errnum = write_file(folder, file, value);

    if (errnum)
        refuse(making, field, "cannot write \"%s\" to %s/%s: %s", value, folder, file, g_strerror(errnum));
}

static void limit_cpu(Making *making, const PbResourceLimits *limits)
{
    const char *field = limits->cpu_weight ? "cpu_weight" : "cpu_millis";
    const guint64 quota = (guint64)limits->cpu_millis * PERIOD_US / 1000;
    g_autofree char *shares = g_strdup_printf("%u", MAX(2, limits->cpu_weight * 1024 / 100));
    g_autofree char *weight = g_strdup_printf("%u", limits->cpu_weight);
    g_autofree char *most = g_strdup_printf("%" G_GUINT64_FORMAT " %d", quota, PERIOD_US);
    g_autofree char *most_v1 = g_strdup_printf("%" G_GUINT64_FORMAT, quota);
    gboolean unified = FALSE;

    if (!limits->cpu_weight && !limits->cpu_millis)
        return;
    g_autofree char *folder = group_of(making, field, "cpu", "cpu", &unified);
    if (!folder)
        return;
    if (limits->cpu_weight)
        set(making, "cpu_weight", folder, unified ? "cpu.weight" : "cpu.shares", unified ? weight : shares);
    if (limits->cpu_millis && unified)
        set(making, "cpu_millis", folder, "cpu.max", most);
    if (limits->cpu_millis && !unified) {
        set(making, "cpu_millis", folder, "cpu.cfs_period_us", G_STRINGIFY(PERIOD_US));
        set(making, "cpu_millis", folder, "cpu.cfs_quota_us", most_v1);
    }
}

static void limit_memory(Making *making, const PbResourceLimits *limits)
{
    g_autofree char *bytes = g_strdup_printf("%" G_GUINT64_FORMAT, limits->memory_bytes);
    gboolean unified = FALSE;

    if (!limits->memory_bytes)
        return;
    g_autofree char *folder = group_of(making, "memory_bytes", "memory", "memory", &unified);
    if (folder)
        set(making, "memory_bytes", folder, unified ? "memory.max" : "memory.limit_in_bytes", bytes);
}

static void limit_processes(Making *making, const PbResourceLimits *limits)
{
    g_autofree char *most = g_strdup_printf("%u", limits->processes);
    gboolean unified = FALSE;

    if (!limits->processes)
        return;
    g_autofree char *folder = group_of(making, "processes", "pids", "pids", &unified);
    if (folder)
        set(making, "processes", folder, "pids.max", most);
}

/* BFQ has a file of its own; the old scheduler's had the plain name. */
static const char *weight_file(const char *folder, gboolean unified)
{
    const char *bfq = unified ? "io.bfq.weight" : "blkio.bfq.weight";
    const char *plain = unified ? "io.weight" : "blkio.weight";
    g_autofree char *path = g_build_filename(folder, plain, NULL);

    return access(path, F_OK) == 0 ? plain : bfq;
}

static void limit_device(Making *making, const char *folder, gboolean unified, const PbDeviceLimit *limit, guint index)
{
    const struct {
        const char *field;
        const char *word;
        const char *file;
        guint64 value;
    } limits[] = {
        {"read_bytes_per_second", "rbps", "blkio.throttle.read_bps_device", limit->read_bytes_per_second},
        {"write_bytes_per_second", "wbps", "blkio.throttle.write_bps_device", limit->write_bytes_per_second},
        {"read_requests_per_second", "riops", "blkio.throttle.read_iops_device", limit->read_requests_per_second},
        {"write_requests_per_second", "wiops", "blkio.throttle.write_iops_device", limit->write_requests_per_second},
    };
    g_autofree char *path_field = g_strdup_printf("devices[%u].path", index);
    struct stat status;

    if (stat(limit->path, &status) < 0 || !S_ISBLK(status.st_mode)) {
        refuse(making, path_field, "%s is no block device of this host", limit->path);
        return;
    }
    for (gsize i = 0; i < G_N_ELEMENTS(limits); i++) {
        g_autofree char *field = g_strdup_printf("devices[%u].%s", index, limits[i].field);
        g_autofree char *value =
            g_strdup_printf("%u:%u %s%s%" G_GUINT64_FORMAT, major(status.st_rdev), minor(status.st_rdev),
                            unified ? limits[i].word : "", unified ? "=" : "", limits[i].value);

        if (limits[i].value)
            set(making, field, folder, unified ? "io.max" : limits[i].file, value);
    }
}

static void limit_io(Making *making, const PbResourceLimits *limits)
{
    g_autofree char *weight = g_strdup_printf("%u", limits->io_weight);
    gboolean unified = FALSE;

    if (!limits->io_weight && limits->n_devices == 0)
        return;
    g_autofree char *folder = group_of(making, limits->io_weight ? "io_weight" : "devices", "blkio", "io", &unified);
    if (!folder)
        return;
    if (limits->io_weight)
        set(making, "io_weight", folder, weight_file(folder, unified), weight);
    for (size_t i = 0; i < limits->n_devices; i++)
        limit_device(making, folder, unified, limits->devices[i], (guint)i);
}

/* ---- the record ---- */

static char *record_path(const char *dir)
{
    return g_build_filename(dir, RECORD, NULL);
}

static VpError *write_record(const char *dir, const GPtrArray *folders)
{
    g_autofree char *path = record_path(dir);
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GError) failure = NULL;

    for (guint i = 0; i < folders->len; i++)
        g_string_append_printf(text, "%s\n", (const char *)folders->pdata[i]);
    if (!g_file_set_contents_full(path, text->str, (gssize)text->len, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &failure))
        return vp_error_new(failure->code == G_FILE_ERROR_NOSPC ? VP_RESOURCE_EXHAUSTED : VP_INTERNAL, "STATE_DIR",
                            "cannot write %s: %s", path, failure->message);
    return NULL;
}

/* Those that were made; none if there is no record. g_strfreev. */
static char **read_record(const char *dir)
{
    g_autofree char *path = record_path(dir);
    g_autofree char *text = NULL;

    g_file_get_contents(path, &text, NULL, NULL);
    return g_strsplit(text ? text : "", "\n", -1);
}

static void remove_group(const char *folder)
{
    for (guint i = 0; i < REMOVE_TRIES; i++) {
        if (rmdir(folder) == 0 || errno != EBUSY)
            return;
        g_usleep(REMOVE_WAIT_US);
    }
}

/* ---- all together ---- */

VpError *vp_cgroup_make(const VpCgroupHost *host, const char *parent, const char *uid, const PbResourceLimits *limits,
                        const char *dir)
{
    g_autoptr(GPtrArray) folders = g_ptr_array_new_with_free_func(g_free);
    Making making = {.host = host, .parent = parent, .uid = uid, .folders = folders};

    limit_cpu(&making, limits);
    limit_memory(&making, limits);
    limit_io(&making, limits);
    limit_processes(&making, limits);
    VpError *error = folders->len > 0 ? write_record(dir, folders) : NULL;
    if (!making.error && !error)
        return NULL;
    for (guint i = 0; i < folders->len; i++)
        remove_group(folders->pdata[i]);
    vp_cgroup_remove(dir);
    if (!making.error)
        return error;
    vp_error_free(error);
    return making.error;
}

VpError *vp_cgroup_enter(const char *dir, pid_t pid)
{
    g_auto(GStrv) folders = read_record(dir);
    g_autofree char *number = g_strdup_printf("%d", pid);

    for (char **folder = folders; *folder; folder++) {
        const int errnum = **folder ? write_file(*folder, "cgroup.procs", number) : 0;

        if (errnum)
            return vp_error_errno(errnum, "CGROUP", "cannot put QEMU into the control group %s", *folder);
    }
    return NULL;
}

void vp_cgroup_remove(const char *dir)
{
    g_auto(GStrv) folders = read_record(dir);
    g_autofree char *path = record_path(dir);

    for (char **folder = folders; *folder; folder++) {
        if (**folder)
            remove_group(*folder);
    }
    unlink(path);
}
