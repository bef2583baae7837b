/* Settings, what the host can do, and the plan for a process: see contain.h. */
#include "contain.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/pb.h"
#include "base/thread.h"
#include "confine_filter.h"
#include "contain_user.h"
#include "contain_view.h"

#define PROFILE "virtplane-qemu"
/* A range that Linux distributions, systemd's among them, give to nobody. */
#define FIRST_USER 2000000000U
#define LAST_USER 2001048575U
#define LEAST_USER 1000U
#define MAX_COPY_BYTES (1024L * 1024 * 1024)

typedef enum Mode { BEST_EFFORT, REQUIRE, OFF } Mode;

struct VpContain {
    Mode mode;
    gboolean root;  /* the daemon's */
    VpUsers *users; /* NULL: one for all, the next two */
    uid_t uid;
    gid_t gid;
    char **paths;
    char *state_dir;
    char *place; /* an empty folder, on which root folders are put together */

    pthread_mutex_t mutex; /* guards the probing; what follows stays as it is once probed */
    gboolean probed;
    gboolean can_change_user;
    gboolean can_have_root;
    gboolean can_have_network;
    int namespaces; /* those of a root folder of its own */
    struct sock_fprog *filter;
    char *uid_map;
    char *gid_map;
};

/* ---- settings ---- */

static VpError *bad_setting(const char *key, const char *value, const char *why)
{
    return vp_error_new(VP_INVALID_ARGUMENT, "CONFIG", "[qemu] %s=%s: %s", key, value, why);
}

static VpError *read_mode(VpContain *contain, GKeyFile *config)
{
    g_autofree char *value = g_key_file_get_string(config, "qemu", "containment", NULL);

    if (!value || strcmp(value, "best-effort") == 0)
        contain->mode = BEST_EFFORT;
    else if (strcmp(value, "require") == 0)
        contain->mode = REQUIRE;
    else if (strcmp(value, "off") == 0)
        contain->mode = OFF;
    else
        return bad_setting("containment", value, "best-effort, require or off");
    return NULL;
}

static VpError *read_range(VpContain *contain, GKeyFile *config)
{
    g_autofree char *value = g_key_file_get_string(config, "qemu", "uid_range", NULL);
    guint64 first = FIRST_USER;
    guint64 last = LAST_USER;

    if (value) {
        g_auto(GStrv) parts = g_strsplit(value, "-", 2);

        if (g_strv_length(parts) != 2 ||
            !g_ascii_string_to_unsigned(parts[0], 10, LEAST_USER, G_MAXINT32, &first, NULL) ||
            !g_ascii_string_to_unsigned(parts[1], 10, first, G_MAXINT32, &last, NULL))
            return bad_setting("uid_range", value, "FIRST-LAST, from 1000 to 2147483647");
    }
    contain->users = vp_users_new((uid_t)first, (uid_t)last, contain->state_dir);
    return NULL;
}

/* One user for all domains, instead of the range. */
static VpError *read_user(VpContain *contain, GKeyFile *config)
{
    g_autofree char *value = g_key_file_get_string(config, "qemu", "user", NULL);
    guint64 number = 0;

    if (!value || !*value)
        return read_range(contain, config);
    errno = 0;
    const struct passwd *user =
        g_ascii_string_to_unsigned(value, 10, 0, G_MAXINT32, &number, NULL) ? getpwuid((uid_t)number) : getpwnam(value);
    if (!user && number == 0)
        return bad_setting("user", value, "there is no such user on this host");
    contain->uid = user ? user->pw_uid : (uid_t)number;
    contain->gid = user ? user->pw_gid : (gid_t)number;
    return NULL;
}

static VpError *read_paths(VpContain *contain, GKeyFile *config)
{
    contain->paths = g_key_file_get_string_list(config, "qemu", "paths", NULL, NULL);
    for (char **path = contain->paths; path && *path; path++) {
        if (!g_path_is_absolute(*path))
            return bad_setting("paths", *path, "is no absolute path");
    }
    return NULL;
}

VpContain *vp_contain_new(GKeyFile *config, const char *state_dir, const char *run_dir, VpError **error)
{
    g_autoptr(GKeyFile) none = g_key_file_new();
    VpContain *contain = g_new0(VpContain, 1);

    pthread_mutex_init(&contain->mutex, NULL);
    contain->state_dir = g_strdup(state_dir);
    contain->place = g_build_filename(run_dir, "root", NULL);
    contain->root = geteuid() == 0;
    *error = read_mode(contain, config ? config : none);
    if (!*error)
        *error = read_user(contain, config ? config : none);
    if (!*error)
        *error = read_paths(contain, config ? config : none);
    if (!*error && mkdir(contain->place, 0700) < 0 && errno != EEXIST)
        *error = vp_error_errno(errno, "STATE_DIR", "cannot make the folder %s", contain->place);
    if (!*error)
        return contain;
    vp_contain_free(contain);
    return NULL;
}

void vp_contain_free(VpContain *contain)
{
    if (!contain)
        return;
    vp_users_free(contain->users);
    vp_confine_filter_free(contain->filter);
    pthread_mutex_destroy(&contain->mutex);
    g_strfreev(contain->paths);
    g_free(contain->state_dir);
    g_free(contain->place);
    g_free(contain->uid_map);
    g_free(contain->gid_map);
    g_free(contain);
}

void vp_contain_forget(VpContain *contain, const char *uid)
{
    if (contain->users)
        vp_users_release(contain->users, uid);
}

/* ---- what the host can do ---- */

/* Whether a child can be confined so. */
static gboolean try(const VpConfine *confine)
{
    int status = 0;
    const pid_t pid = fork();

    if (pid < 0)
        return FALSE;
    if (pid == 0)
        _exit(vp_confine_separate(confine) || vp_confine_drop(confine) ? 1 : 0);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void probe(VpContain *contain)
{
    g_autoptr(GArray) view = vp_view_new();
    const uid_t user = contain->users ? FIRST_USER : contain->uid;
    const VpConfine change = {.change_user = TRUE, .uid = user, .gid = user};

    contain->uid_map = g_strdup_printf("%u %u 1", geteuid(), geteuid());
    contain->gid_map = g_strdup_printf("%u %u 1", getegid(), getegid());
    contain->namespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (contain->root ? 0 : CLONE_NEWUSER);
    contain->can_change_user = contain->root && try(&change);
    vp_view_system(view);
    VpConfine separate = {
        .namespaces = contain->namespaces,
        .uid_map = contain->uid_map,
        .gid_map = contain->gid_map,
        .root = contain->place,
        .view = (const VpViewEntry *)view->data,
        .n_view = view->len,
        .drop_capabilities = TRUE,
    };
    contain->can_have_root = try(&separate);
    separate.root = NULL;
    separate.namespaces = CLONE_NEWNET | (contain->root ? 0 : CLONE_NEWUSER);
    contain->can_have_network = try(&separate);

    g_autoptr(VpError) error = vp_confine_filter_new(&contain->filter);
    const VpConfine filtered = {.filter = contain->filter};
    if (error || !try(&filtered))
        g_clear_pointer(&contain->filter, vp_confine_filter_free);
}

static void need_probe(VpContain *contain)
{
    VP_LOCK(&contain->mutex);
    if (!contain->probed)
        probe(contain);
    contain->probed = TRUE;
}

/* NULL: the profile is there; else why not. */
static const char *profile_obstacle(gboolean *ret_wanted)
{
    g_autofree char *enabled = NULL;
    g_autofree char *profiles = NULL;

    *ret_wanted = FALSE;
    g_file_get_contents("/sys/module/apparmor/parameters/enabled", &enabled, NULL, NULL);
    if (!enabled || enabled[0] != 'Y')
        return "an AppArmor profile: this host has no AppArmor";
    *ret_wanted = TRUE;
    if (!g_file_get_contents("/sys/kernel/security/apparmor/profiles", &profiles, NULL, NULL))
        return "an AppArmor profile: the daemon may not see which are loaded";
    return strstr(profiles, PROFILE " (") ? NULL
                                          : "an AppArmor profile: " PROFILE " is not loaded; load it: apparmor_parser "
                                            "-r /etc/apparmor.d/" PROFILE;
}

/* Adds what is wanted and is not had. Answers whether that is to count under containment=require. */
static gboolean note_missing(const VpContain *contain, GPtrArray *missing)
{
    gboolean profile_wanted;
    const char *obstacle = profile_obstacle(&profile_wanted);
    const guint before = missing->len;

    if (contain->root && !contain->can_change_user)
        g_ptr_array_add(missing, g_strdup("a user of its own: the daemon may not change users"));
    if (!contain->can_have_root)
        g_ptr_array_add(missing, g_strdup("a root folder of its own: this host lets the daemon make no namespaces"));
    if (!contain->can_have_network)
        g_ptr_array_add(missing, g_strdup("a network of its own: this host lets the daemon make no namespaces"));
    if (!contain->filter)
        g_ptr_array_add(missing, g_strdup("a filter of system calls: this host has none"));
    /* An unprivileged daemon's host is not its to prepare. */
    if (obstacle && contain->root) {
        g_ptr_array_add(missing, g_strdup(obstacle));
        return profile_wanted || missing->len - before > 1;
    }
    return missing->len > before;
}

void vp_contain_capabilities(VpContain *contain, PbDriverCapabilities *capabilities)
{
    g_autoptr(GPtrArray) missing = g_ptr_array_new_with_free_func(g_free);

    need_probe(contain);
    if (contain->mode == OFF)
        g_ptr_array_add(missing, g_strdup("all of it: containment=off in the daemon's [qemu] settings"));
    else
        note_missing(contain, missing);
    for (guint i = 0; i < missing->len; i++)
        vp_pb_append(&capabilities->n_containment_missing, &capabilities->containment_missing,
                     g_strdup(missing->pdata[i]));
}

/* ---- a domain ---- */

static gboolean is_kvm(PbAccelerator accelerator)
{
    return accelerator == PB_ACCELERATOR_KVM;
}

/* Without a node of its own, /dev/kvm is opened by the host's rights: everybody's, or those of its group. */
static gboolean may_open_kvm(gid_t *ret_group)
{
    struct stat status;

    if (stat("/dev/kvm", &status) < 0)
        return FALSE;
    *ret_group = (status.st_mode & 0060) == 0060 ? status.st_gid : 0;
    return (status.st_mode & 0006) == 0006 || *ret_group != 0;
}

static VpError *choose_user(VpContain *contain, VpContainment *containment, const char *uid, PbAccelerator accelerator)
{
    gid_t group = 0;

    containment->uid = geteuid();
    containment->gid = getegid();
    if (contain->mode == OFF || !contain->can_change_user || (!contain->users && contain->uid == 0))
        return NULL;
    if (!contain->can_have_root && is_kvm(accelerator) && !may_open_kvm(&group)) {
        g_ptr_array_add(containment->missing, g_strdup("a user of its own: /dev/kvm is the daemon's alone"));
        return NULL;
    }
    if (contain->users) {
        VpError *error = vp_users_take(contain->users, uid, &containment->uid);

        if (error)
            return error;
        containment->gid = (gid_t)containment->uid;
    } else {
        containment->uid = contain->uid;
        containment->gid = contain->gid;
    }
    containment->change_user = TRUE;
    return NULL;
}

VpError *vp_contain_domain(VpContain *contain, const char *uid, const char *dir, PbAccelerator accelerator,
                           gboolean needs_network, VpContainment **ret_containment)
{
    g_autoptr(VpContainment) containment = g_new0(VpContainment, 1);

    need_probe(contain);
    containment->contain = contain;
    containment->dir = g_strdup(dir);
    containment->missing = g_ptr_array_new_with_free_func(g_free);
    const gboolean lacking = contain->mode != OFF && note_missing(contain, containment->missing);
    VpError *error = choose_user(contain, containment, uid, accelerator);
    if (error)
        return error;
    if (lacking && contain->mode == REQUIRE) {
        g_ptr_array_add(containment->missing, NULL);
        g_autofree char *what = g_strjoinv("; ", (char **)containment->missing->pdata);

        return vp_error_new(VP_FAILED_PRECONDITION, "CONTAINMENT",
                            "containment=require in the daemon's [qemu] settings, and this host lacks: %s", what);
    }
    containment->own_root = contain->mode != OFF && contain->can_have_root;
    containment->own_network = contain->mode != OFF && contain->can_have_network && !needs_network;
    *ret_containment = g_steal_pointer(&containment);
    return NULL;
}

VpContainment *vp_containment_of(const VpContain *contain, const PbContainment *contained, const char *dir)
{
    VpContainment *containment = g_new0(VpContainment, 1);

    *containment = (VpContainment){
        .uid = contained ? contained->uid : geteuid(),
        .gid = contained ? contained->gid : getegid(),
        .own_root = contained && contained->own_root,
        .missing = g_ptr_array_new_with_free_func(g_free),
        .contain = contain,
        .dir = g_strdup(dir),
    };
    containment->change_user = containment->uid != geteuid();
    return containment;
}

void vp_containment_free(VpContainment *containment)
{
    if (!containment)
        return;
    g_ptr_array_unref(containment->missing);
    g_free(containment->dir);
    g_free(containment);
}

char *vp_containment_path(const VpContainment *containment, const char *name)
{
    return g_build_filename(containment->own_root ? "/" : containment->dir, name, NULL);
}

/* Of what an earlier user, or root, has made there. */
static int give_files(int dir_fd, uid_t uid, gid_t gid)
{
    const int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    int r = entries ? 0 : -1;

    if (!entries && fd >= 0)
        close(fd);
    for (struct dirent *entry = entries ? readdir(entries) : NULL; entry && r == 0; entry = readdir(entries)) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = fchownat(dir_fd, entry->d_name, uid, gid, AT_SYMLINK_NOFOLLOW);
    }
    if (entries)
        closedir(entries);
    return r;
}

/* What is named by a path can be reached by another user in a root folder of its own alone. */
static gboolean helper_changes_user(const VpContainment *containment)
{
    return containment->own_root && containment->change_user;
}

VpError *vp_containment_make_folder(const VpContainment *containment, const char *name, gboolean for_helper)
{
    const gboolean given = for_helper ? helper_changes_user(containment) : containment->change_user;
    const uid_t uid = given ? containment->uid : geteuid();
    const gid_t gid = given ? containment->gid : getegid();
    g_autofree char *path = g_build_filename(containment->dir, name, NULL);
    struct stat status;
    VpError *error = NULL;

    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return vp_error_errno(errno, "STATE_DIR", "cannot make the folder %s", path);
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return vp_error_errno(errno, "STATE_DIR", "cannot open the folder %s", path);
    if (fstat(fd, &status) < 0)
        error = vp_error_errno(errno, "STATE_DIR", "cannot look at the folder %s", path);
    else if (status.st_uid != uid && (give_files(fd, uid, gid) < 0 || fchown(fd, uid, gid) < 0))
        error = vp_error_errno(errno, "STATE_DIR", "cannot give the folder %s to user %u", path, uid);
    close(fd);
    return error;
}

/* ---- what is opened by its number ---- */

static VpError *copy_into_memory(int fd, off_t size, int *ret_fd)
{
    if (size > MAX_COPY_BYTES)
        return vp_error_new(VP_FAILED_PRECONDITION, "CONTAINMENT",
                            "a file of %" G_GINT64_FORMAT " bytes is too large for a copy in memory; let everybody "
                            "read it",
                            (gint64)size);
    const int copy = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    off_t at = 0;
    if (copy < 0)
        return vp_error_errno(errno, "CONTAINMENT", "cannot make a file in memory");
    while (at < size) {
        const ssize_t n = sendfile(copy, fd, &at, (size_t)(size - at));

        if (n > 0)
            continue;
        VpError *error = vp_error_errno(n < 0 ? errno : EIO, "CONTAINMENT", "cannot copy a file into memory");
        close(copy);
        return error;
    }
    fcntl(copy, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    *ret_fd = copy;
    return NULL;
}

VpError *vp_containment_open_again(const VpContainment *containment, int *fd)
{
    struct stat status;
    int copy = -1;

    if (*fd < 0 || !containment->change_user)
        return NULL;
    if (fstat(*fd, &status) < 0)
        return vp_error_errno(errno, "CONTAINMENT", "cannot look at a descriptor");
    if (S_ISFIFO(status.st_mode))
        return fchown(*fd, containment->uid, containment->gid) < 0
                   ? vp_error_errno(errno, "CONTAINMENT", "cannot give a pipe to user %u", containment->uid)
                   : NULL;
    if (status.st_mode & 0004)
        return NULL;
    VpError *error = copy_into_memory(*fd, status.st_size, &copy);
    if (error)
        return error;
    /* Under its number: others know it by that. */
    if (dup3(copy, *fd, O_CLOEXEC) < 0)
        error = vp_error_errno(errno, "CONTAINMENT", "cannot put a copy in a file's place");
    close(copy);
    return error;
}

/* ---- a process ---- */

static VpConfinement *confinement_new(const VpContainment *containment)
{
    const VpContain *contain = containment->contain;
    VpConfinement *confinement = g_new0(VpConfinement, 1);
    VpConfine *confine = &confinement->confine;
    gboolean profile_wanted;

    confinement->view = vp_view_new();
    if (contain->mode == OFF)
        return confinement;
    *confine = (VpConfine){
        .change_user = containment->change_user,
        .uid = containment->uid,
        .gid = containment->gid,
        .uid_map = contain->uid_map,
        .gid_map = contain->gid_map,
        .filter = contain->filter,
        .drop_capabilities = TRUE,
    };
    if (containment->own_root) {
        confine->namespaces = contain->namespaces;
        confine->root = contain->place;
    } else {
        confine->n_groups = may_open_kvm(&confine->groups[0]) && confine->groups[0] ? 1 : 0;
    }
    if (containment->own_network)
        confine->namespaces |= CLONE_NEWNET | (contain->root ? 0 : CLONE_NEWUSER);
    if (contain->root && !profile_obstacle(&profile_wanted))
        confine->apparmor = PROFILE;
    return confinement;
}

static void show_common(const VpContainment *containment, VpConfinement *confinement, const char *binary)
{
    vp_view_system(confinement->view);
    vp_view_program(confinement->view, binary);
    for (char **path = containment->contain->paths; path && *path; path++)
        vp_view_show(confinement->view, *path, *path, FALSE);
}

static void show_own(const VpContainment *containment, VpConfinement *confinement, const char *name)
{
    g_autofree char *source = g_build_filename(containment->dir, name, NULL);

    vp_view_show(confinement->view, source, name, TRUE);
}

static void finish_view(VpConfinement *confinement)
{
    confinement->confine.view = (const VpViewEntry *)confinement->view->data;
    confinement->confine.n_view = confinement->view->len;
}

/* A device is opened by its group's node; QEMU finds out by way of /sys which that is. */
static void show_host_device(VpConfinement *confinement, const PbHostDevice *device)
{
    g_autofree char *low = g_ascii_strdown(device->address, -1);
    g_autofree char *link = g_build_filename("/sys/bus/pci/devices", low, "iommu_group", NULL);
    g_autofree char *target = g_file_read_link(link, NULL);
    g_autofree char *group = target ? g_path_get_basename(target) : NULL;
    g_autofree char *node = g_build_filename("/dev/vfio", group ? group : "none", NULL);

    vp_view_show(confinement->view, "/sys", "/sys", FALSE);
    vp_view_device(confinement->view, "/dev/vfio/vfio");
    vp_view_device(confinement->view, node);
}

VpConfinement *vp_containment_qemu(const VpContainment *containment, const char *binary, const PbDomainSpec *spec,
                                   PbAccelerator accelerator)
{
    VpConfinement *confinement = confinement_new(containment);

    if (!containment->own_root)
        return confinement;
    show_common(containment, confinement, binary);
    if (!containment->own_network)
        vp_view_network(confinement->view);
    if (is_kvm(accelerator))
        vp_view_device(confinement->view, "/dev/kvm");
    for (size_t i = 0; i < spec->n_host_devices; i++)
        show_host_device(confinement, spec->host_devices[i]);
    if (spec->n_graphics > 0)
        show_own(containment, confinement, "screen");
    finish_view(confinement);
    return confinement;
}

VpConfinement *vp_containment_helper(const VpContainment *containment, const char *binary, const char *name)
{
    VpConfinement *confinement = confinement_new(containment);

    confinement->confine.change_user = helper_changes_user(containment);
    if (!containment->own_root)
        return confinement;
    /* It has nothing to do with networks, whatever QEMU has. */
    if (containment->contain->can_have_network)
        confinement->confine.namespaces |= CLONE_NEWNET;
    show_common(containment, confinement, binary);
    show_own(containment, confinement, name);
    finish_view(confinement);
    return confinement;
}

void vp_confinement_free(VpConfinement *confinement)
{
    if (!confinement)
        return;
    g_array_unref(confinement->view);
    g_free(confinement);
}
