/*
 * See screenshot.h. QEMU writes the picture through a set of descriptors, so that it opens no path. The set stays: one that is removed while the guest is
 * paused is not let go of by QEMU. It is asked for a PPM, which every QEMU can write and which it only copies: while it compresses a PNG, as newer ones can,
 * the guest's disks and network stand still.
 */
#include "screenshot.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/pb.h"
#include "drivers/screen.h"
#include "ids.h"
#include "virtplane/v1/domain_console.pb-c.h"

/* The sets have numbers of their own, far above those of the images. */
#define FIRST_FDSET (1 << 20)
#define COPY_BYTES (1024 * 1024)
/* More is no picture. */
#define MAX_BYTES (128UL * 1024 * 1024)

struct VpQemuScreenshot {
    int fd;           /* the file; -1: QEMU has none */
    int writing_fd;   /* what QEMU has a copy of, for writing alone: where it writes is set here */
    int set;          /* its set's number in QEMU */
    int sets;         /* how many there were: each connection has its own */
    GPtrArray *round; /* of VpQemuOp, with references: for whom a picture is being taken; NULL: it is not */
};

/* A picture on its way to those who asked: on a worker, which has it for itself. */
typedef struct Copy {
    VpQemuDomain *domain;
    int fd;
    GPtrArray *tasks; /* of VpTask, by the round's places; NULL: that one has ended */
    VpError *error;
} Copy;

static void take_next(VpQemuDomain *domain);

static void drop_file(VpQemuScreenshot *screenshot)
{
    if (screenshot->fd < 0)
        return;
    close(screenshot->fd);
    close(screenshot->writing_fd);
    screenshot->fd = screenshot->writing_fd = -1;
}

void vp_qemu_screenshot_free(VpQemuScreenshot *screenshot)
{
    if (!screenshot)
        return;
    drop_file(screenshot);
    g_free(screenshot);
}

/* ---- to those who asked ---- */

static void finish_op(VpQemuDomain *domain, VpQemuOp *op, const VpError *error)
{
    if (!op->task)
        return;
    if (!error) {
        PbScreenshotHeader *header = vp_pb_new(&pb_screenshot_header__descriptor);

        header->format = PB_SCREENSHOT_FORMAT_PPM;
        vp_task_set_answer(op->task, header);
    }
    vp_qemu_op_finish(op,
                      error ? vp_error_prefix(vp_error_copy(error), "domain %s: %s", domain->name, vp_qemu_op_verb(op))
                            : NULL);
}

static void end_round(VpQemuDomain *domain, const VpError *error)
{
    g_autoptr(GPtrArray) round = g_steal_pointer(&domain->screenshot->round);

    /* On the heels of a lost connection comes the end of the process, and tells more; else their deadlines end them, or a picture of the next one's. */
    if (error && error->code == VP_UNAVAILABLE)
        return;
    for (guint i = 0; i < round->len; i++)
        finish_op(domain, round->pdata[i], error);
    take_next(domain);
}

static VpError *copy_file(int from, int to)
{
    g_autofree guint8 *bytes = g_malloc(COPY_BYTES);
    off_t at = 0;
    ssize_t n;

    while ((n = pread(from, bytes, COPY_BYTES, at)) > 0) {
        if ((gsize)at + (gsize)n > MAX_BYTES)
            return vp_error_new(VP_RESOURCE_EXHAUSTED, "PICTURE_TOO_LARGE", "QEMU wrote more than a picture can have");
        if (pwrite(to, bytes, (size_t)n, at) != n)
            return vp_error_errno(errno, "SCREENSHOT_FAILED", "cannot copy the picture");
        at += n;
    }
    return n < 0 ? vp_error_errno(errno, "SCREENSHOT_FAILED", "cannot read the picture") : NULL;
}

static void copied(void *data)
{
    Copy *copy = data;
    g_autoptr(VpError) error = g_steal_pointer(&copy->error);

    end_round(copy->domain, error);
    close(copy->fd);
    g_ptr_array_unref(copy->tasks);
    vp_qemu_domain_unref(copy->domain);
    g_free(copy);
}

static void run_copy(void *data)
{
    Copy *copy = data;

    for (guint i = 0; i < copy->tasks->len && !copy->error; i++)
        copy->error = copy_file(copy->fd, vp_task_output(copy->tasks->pdata[i]));
    /* Its memory is free until the next one. */
    if (ftruncate(copy->fd, 0) < 0 && !copy->error)
        copy->error = vp_error_errno(errno, "SCREENSHOT_FAILED", "cannot empty the picture's file");
    vp_loop_post(copy->domain->driver->host->loop, copied, copy);
}

/* ---- from QEMU ---- */

static void on_picture(void *data, json_t *result, VpError *error)
{
    VpQemuDomain *domain = data;
    VpQemuScreenshot *screenshot = domain->screenshot;
    g_autoptr(VpError) why = error;

    (void)result;
    if (!why && screenshot->fd < 0)
        why = vp_error_new(VP_UNAVAILABLE, "QMP_CLOSED", "the connection that the picture came by has gone");
    if (why) {
        end_round(domain, why);
        vp_qemu_domain_unref(domain);
        return;
    }
    Copy *copy = g_new0(Copy, 1);
    copy->domain = domain;
    copy->fd = fcntl(screenshot->fd, F_DUPFD_CLOEXEC, 0);
    copy->tasks = g_ptr_array_new_with_free_func((GDestroyNotify)vp_task_unref);
    for (guint i = 0; i < screenshot->round->len; i++) {
        const VpQemuOp *op = screenshot->round->pdata[i];

        if (op->task)
            g_ptr_array_add(copy->tasks, vp_task_ref(op->task));
    }
    if (!vp_pool_submit(domain->driver->host->pool, run_copy, copy)) {
        copy->error =
            vp_error_retry(vp_error_new(VP_RESOURCE_EXHAUSTED, "TOO_BUSY", "the daemon has too much to do"), 1000);
        copied(copy);
    }
}

/* What became of it tells the picture's own command. */
static void on_set(void *data, json_t *result, VpError *error)
{
    (void)data;
    (void)result;
    vp_error_free(error);
}

/* Gives QEMU the file, if it has none. QEMU picks a descriptor of a set by its access mode: one for writing alone. */
static VpError *give_file(VpQemuDomain *domain)
{
    VpQemuScreenshot *screenshot = domain->screenshot;
    char path[64];

    if (screenshot->fd >= 0)
        return NULL;
    const int fd = memfd_create("picture", MFD_CLOEXEC);
    g_snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    const int writing = fd < 0 ? -1 : open(path, O_WRONLY | O_CLOEXEC);
    if (writing < 0) {
        VpError *error = vp_error_errno(errno, "SCREENSHOT_FAILED", "cannot make a file for the picture");

        if (fd >= 0)
            close(fd);
        return error;
    }
    screenshot->fd = fd;
    screenshot->writing_fd = writing;
    screenshot->set = FIRST_FDSET + screenshot->sets++;
    vp_qmp_execute_with_fd(domain->qmp, "add-fd", json_pack("{s:i}", "fdset-id", screenshot->set), writing, 0, on_set,
                           NULL);
    return NULL;
}

/* Begins a picture for all who wait for one. It has no deadline of its own, but they have: QEMU writes into the file until it has answered. */
static void take_next(VpQemuDomain *domain)
{
    VpQemuScreenshot *screenshot = domain->screenshot;
    g_autoptr(GPtrArray) round = g_ptr_array_new_with_free_func((GDestroyNotify)vp_qemu_op_unref);

    for (guint i = 0; i < domain->ops->len; i++) {
        VpQemuOp *op = domain->ops->pdata[i];

        if (op->kind == VP_OP_SCREENSHOT)
            g_ptr_array_add(round, vp_qemu_op_ref(op));
    }
    if (round->len == 0 || !domain->qmp || domain->phase == VP_PHASE_ENDED)
        return;
    g_autoptr(VpError) error = give_file(domain);
    if (error) {
        for (guint i = 0; i < round->len; i++)
            finish_op(domain, round->pdata[i], error);
        return;
    }
    lseek(screenshot->writing_fd, 0, SEEK_SET);
    g_autofree char *path = g_strdup_printf("/dev/fdset/%d", screenshot->set);
    screenshot->round = g_steal_pointer(&round);
    vp_qmp_execute(domain->qmp, "screendump", json_pack("{s:s, s:s}", "filename", path, "device", VP_ID_VIDEO), 0,
                   on_picture, vp_qemu_domain_ref(domain));
}

void vp_qemu_screenshot_begin(VpQemuDomain *domain, VpQemuOp *op)
{
    const PbTakeScreenshotRequest *request = vp_task_request(op->task);
    VpError *error = vp_spec_check_screen(domain->live, domain->name, request->screen);

    if (!error && !domain->qmp)
        error = vp_error_new(VP_UNAVAILABLE, "DOMAIN_UNRESPONSIVE", "domain %s: QEMU does not answer; it may come back",
                             domain->name);
    if (error) {
        vp_qemu_op_finish(op, error);
        return;
    }
    if (!domain->screenshot) {
        domain->screenshot = g_new0(VpQemuScreenshot, 1);
        domain->screenshot->fd = domain->screenshot->writing_fd = -1;
    }
    if (!domain->screenshot->round)
        take_next(domain);
}

void vp_qemu_screenshot_disconnected(VpQemuDomain *domain)
{
    if (domain->screenshot)
        drop_file(domain->screenshot);
}
