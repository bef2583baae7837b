/* What the kernel tells of a process: see contain.h. */
#include <string.h>
#include <sys/stat.h>

#include "base/pb.h"
#include "contain.h"

/* In a line of /proc/PID/status, behind its name. */
static guint64 number_of(const char *status, const char *name, guint base)
{
    const char *line = strstr(status, name);

    return line ? g_ascii_strtoull(line + strlen(name), NULL, base) : 0;
}

static void read_file(pid_t pid, const char *name, char **ret_text)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", pid, name);

    g_file_get_contents(path, ret_text, NULL, NULL);
}

static char *read_link(pid_t pid, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", pid, name);

    return g_file_read_link(path, NULL);
}

/* A folder that is another than ours. */
static gboolean has_own_root(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/root/.", pid);
    struct stat theirs;
    struct stat ours;

    return stat(path, &theirs) == 0 && stat("/", &ours) == 0 &&
           (theirs.st_dev != ours.st_dev || theirs.st_ino != ours.st_ino);
}

static void look_at_namespaces(pid_t pid, PbContainment *containment)
{
    static const char *const names[] = {"mnt", "net", "ipc", "uts", "pid", "user"};

    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *link = g_strdup_printf("ns/%s", names[i]);
        g_autofree char *own = g_strdup_printf("/proc/self/ns/%s", names[i]);
        g_autofree char *theirs = read_link(pid, link);
        g_autofree char *ours = g_file_read_link(own, NULL);

        if (theirs && ours && strcmp(theirs, ours) != 0)
            vp_pb_append(&containment->n_namespaces, &containment->namespaces, g_strdup(names[i]));
    }
}

/* Its groups below the root, of each hierarchy; those where it is in none of its own are left out. */
static void look_at_cgroups(pid_t pid, PbContainment *containment)
{
    g_autofree char *text = NULL;

    read_file(pid, "cgroup", &text);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);

    for (char **line = lines; *line; line++) {
        const char *path = strchr(*line, '/');

        if (path && strstr(path, "/virtplane-") && containment->n_cgroups < 16)
            vp_pb_append(&containment->n_cgroups, &containment->cgroups, g_strdup(*line));
    }
}

PbContainment *vp_contain_look(pid_t pid, const GPtrArray *missing)
{
    g_autofree char *status = NULL;
    g_autofree char *profile = NULL;

    read_file(pid, "status", &status);
    read_file(pid, "attr/apparmor/current", &profile);
    if (!status)
        return NULL;
    PbContainment *containment = vp_pb_new(&pb_containment__descriptor);
    containment->uid = (guint32)number_of(status, "\nUid:\t", 10);
    containment->gid = (guint32)number_of(status, "\nGid:\t", 10);
    containment->capabilities = number_of(status, "\nCapPrm:\t", 16) | number_of(status, "\nCapBnd:\t", 16);
    containment->no_new_privileges = number_of(status, "\nNoNewPrivs:\t", 10) == 1;
    containment->seccomp = number_of(status, "\nSeccomp:\t", 10) == 2;
    containment->own_root = has_own_root(pid);
    look_at_namespaces(pid, containment);
    look_at_cgroups(pid, containment);
    if (profile && strcmp(g_strchomp(profile), "unconfined") != 0)
        vp_pb_set(&containment->apparmor_profile, profile);
    for (guint i = 0; missing && i < missing->len; i++)
        vp_pb_append(&containment->n_missing, &containment->missing, g_strdup(missing->pdata[i]));
    return containment;
}
