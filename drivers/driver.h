/*
 * What a hypervisor driver is: a table of operations. An operation that a hypervisor lacks is NULL; its method answers UNIMPLEMENTED with the
 * driver's name, and GetCapabilities says so beforehand. A new hypervisor is a new folder beside this file and one line in drivers/table.c.
 *
 * Operations are called on a worker thread, one at a time for a domain (power_off alone may come while another is under way). They may
 * block on the disk for a moment but never wait for the hypervisor: what waits goes on asynchronously on the host's event loop, and the
 * task is finished from there. Questions change nothing, and may come beside an operation and beside each other. What a driver sees
 * happening, asked for or not, it reports; reports are the only way a domain's state changes.
 */
#pragma once

#include "base/loop.h"
#include "base/pool.h"
#include "drivers/task.h"
#include "storage/chain/policy.h"
#include "virtplane/v1/domain_service.pb-c.h"
#include "virtplane/v1/event.pb-c.h"
#include "virtplane/v1/host.pb-c.h"

typedef struct VpDriver VpDriver;
typedef struct VpDriverOps VpDriverOps;
typedef void (*VpDriverOp)(VpDriver *driver, VpTask *task);

/* What a driver saw: the new state of a domain and the event that tells of it. */
typedef struct VpObservation {
    PbEventType event;
    PbDomainState state;
    const char *reason;      /* UPPER_SNAKE: "REQUESTED", "GUEST_REQUEST", "PROCESS_EXITED", "WHILE_DAEMON_DOWN", ... */
    const char *detail;      /* for a person; NULL: nothing to add */
    gint32 pid;              /* 0: no process */
    guint64 pid_start_ticks; /* proc(5), stat, field 22 */
    PbAccelerator accelerator;
    PbDiskStatus *const
        *disks; /* borrowed; kept in the status. With n_disks 0 the status keeps those it has, unless pid is 0 */
    gsize n_disks;
    gboolean tainted; /* runs with arguments of its user's own; kept in the status as the disks are */
    /* Borrowed; kept in the same way. */
    PbDomainEndpoint *const *endpoints;
    gsize n_endpoints;
    PbFinding *const *findings; /* borrowed; each becomes an event of the same transaction */
    gsize n_findings;
    gboolean devices; /* the next three, and `disks`, are those that there are now, even if there are none */
    const PbDomainSpec *live_spec; /* borrowed: what the domain runs with */
    PbPendingDetach *const *pending_detaches;
    gsize n_pending_detaches;
    gboolean state_stays;            /* nothing but the event and what `devices` and `agent` tell */
    const PbGuestAgentStatus *agent; /* borrowed; kept until another is told, or pid is 0 */
    const PbPendingShutdown
        *shutdown; /* borrowed; what the guest was asked for and has not done: NULL, with a state: nothing */
    const PbContainment *containment; /* borrowed; kept until another is told, or pid is 0 */
    gboolean
        notice; /* the event alone: the domain's state and status stay as they are. Is let go if the store does not take it */
    const PbSavedState *saved; /* borrowed; kept until the domain runs, or is shut off */
    gboolean unless_off; /* puts right what is told wrongly: dropped if the domain is told to be shut off by then */
} VpObservation;

/* Takes the value of a secret. */
typedef VpError *(*VpSecretUse)(void *data, const void *value, gsize length);

/* What the daemon gives to a driver; outlives it. */
typedef struct VpDriverHost {
    VpLoop *loop;
    VpPool *pool;          /* for moments on the daemon's own disk; the operations themselves are called on it */
    VpPool *slow_pool;     /* for what may hang: image files, which can lie on a network. Nobody else waits behind it */
    const char *state_dir; /* the driver's own folder, exists, 0700: survives restarts of the daemon and of the host */
    const char *run_dir;   /* the driver's own folder for sockets and pids, exists, 0700 */
    GKeyFile *config;      /* the daemon's configuration; a driver reads its own group, [qemu] */
    const VpImagePolicy
        *images; /* what holds for every image that a driver opens; NULL: that of a daemon without configuration */
    /* Reports an observation about domain `uid`. Any thread; copies; never blocks. In the order of the calls for one domain. */
    void (*report)(void *data, const char *uid, const VpObservation *observation);
    /* Calls `done(done_data, error)` once all that was reported about `uid` before is on the disk, or with the store's `error` (owned by the callee) if it
     * refuses. A driver makes no process before its STARTING is: a daemon that is killed then leaves none that the next one does not look for. Any thread;
     * never blocks; `done` comes on any thread, also before this returns, and must not block. It always comes, at the daemon's end at the latest. */
    void (*settle)(void *data, const char *uid, void (*done)(void *done_data, VpError *error), void *done_data);
    /* Hands the value of the secret of this name to `use`, and wipes it when that returns: `use` keeps no copy. NOT_FOUND, reason SECRET_NOT_FOUND;
     * FAILED_PRECONDITION, reason SECRET_WITHOUT_VALUE; or what `use` answers. A worker's thread. NULL: there are no secrets. */
    VpError *(*secret)(void *data, const char *name, VpSecretUse use, void *use_data);
    void *data;
} VpDriverHost;

struct VpDriverOps {
    const char *name; /* as in DomainSpec.driver */

    /* Makes the driver; succeeds also where the hypervisor is missing (capabilities says so then). */
    VpDriver *(*open)(const VpDriverHost *host, VpError **error);
    /* Lets go of all domains, which run on; nothing is reported any more once this returns. Not called on the loop's thread. */
    void (*close)(VpDriver *driver);

    /* Fills in what can be done here now, but for `name` and `methods`, which come from this table. May block for a moment. */
    void (*capabilities)(VpDriver *driver, PbDriverCapabilities *capabilities);

    /* Fills in what a spec leaves to the driver and what must stay as it is from now on (the machine's version, addresses). May block for a moment.
     * May be NULL. */
    void (*complete)(VpDriver *driver, PbDomainSpec *spec);

    /* Checks a spec that is to be created or changed: INVALID_ARGUMENT with violations, paths from "domain.spec". Never blocks. */
    VpError *(*validate)(VpDriver *driver, const PbDomainSpec *spec);

    /* Whether a domain that runs with `live` could be made to run with `wanted`, as far as can be told without asking it: FAILED_PRECONDITION, reason
     * DOMAIN_RUNNING, with a violation for each field that cannot change. `status` is the domain's, or NULL. Never blocks. NULL where there is no `change`. */
    VpError *(*check_change)(VpDriver *driver, const PbDomainStatus *status, const PbDomainSpec *live,
                             const PbDomainSpec *wanted);

    /* Calls `found` for each domain of which something runs, as the driver's own folders tell, whatever is stored about it. Called once, before anything
     * else is asked; blocks on the disk for a moment. May be NULL. */
    void (*find_running)(VpDriver *driver, void (*found)(void *data, const char *uid, gint32 pid), void *data);

    /* Takes up a domain that was not shut off when the daemon ended, or that find_running() named: by its status' pid and pid_start_ticks, and what the
     * driver itself keeps in its folders. Reports ADOPTED with the present state, or what became of it with reason WHILE_DAEMON_DOWN. */
    void (*adopt)(VpDriver *driver, VpTask *task);

    /* The task's request is a PbStartDomainRequest (NULL: an empty one), of which `discard_saved` counts. A domain that is saved is restored. */
    void (*start)(VpDriver *driver, VpTask *task);
    /* Asks the guest, as the task's request says (a PbShutdownDomainRequest; NULL: with its defaults), and sees to the fallback. */
    void (*shutdown)(VpDriver *driver, VpTask *task);
    /* Ends the domain whatever state it is in and whatever is stored about it; a start under way ends with CANCELLED. Finished when the process is gone;
     * nothing to end is no error. */
    void (*power_off)(VpDriver *driver, VpTask *task);
    /* The same with a PbRebootDomainRequest. */
    void (*reboot)(VpDriver *driver, VpTask *task);
    void (*reset)(VpDriver *driver, VpTask *task);
    void (*pause)(VpDriver *driver, VpTask *task);
    void (*resume)(VpDriver *driver, VpTask *task);

    /* Writes what runs to a file, and ends it; the request is a PbSaveDomainRequest. Until that is done the domain goes on if it fails. */
    VpDriverOp save;
    /* The way back: a start, with status.saved or the file of the PbRestoreDomainRequest. */
    VpDriverOp restore;
    /* Gives up what status.saved tells of. Nothing to give up is no error. */
    VpDriverOp discard;

    /* The domain is being deleted: removes what the driver keeps for it. Called when it is shut off or saved; FAILED_PRECONDITION if something of it runs all
     * the same. */
    VpError *(*forget)(VpDriver *driver, const char *uid);

    /* ---- questions: about a domain that runs as far as is known; the task takes the answer, a message (vp_task_set_answer()) ---- */

    /* PbDomainStats: the counters now; name, uid, time and state are filled in by the caller. */
    VpDriverOp stats;

    /* PbScreenshotHeader: the format of the picture that is in the task's output by then; its size is read there. The request is a
     * PbTakeScreenshotRequest, of which `screen` counts. */
    VpDriverOp screenshot;

    /* What its guest's agent does: the request is one of GuestService, or PbRunGuestCommandRequest, and the answer its response. Those that stream
     * (vp_task_stream()) emit their responses; of a client that streams the task's request is the first message. */
    VpDriverOp guest;

    /* ---- changes of what runs ---- */

    /* Makes the domain run with another spec: the task's request is a PbUpdateDomainRequest, whose domain.spec (complete, checked) is what is wanted, whose
     * scope goes into pending detaches (stored: CHANGE_SCOPE_BOTH), and of which `force` counts. Each step that is done is reported. Ends well once all are. A
     * guest that does not let go of a device in time leaves that pending, which is reported, and reported again when it has. */
    VpDriverOp change;
};

/* Every driver embeds this as its first member. */
struct VpDriver {
    const VpDriverOps *ops;
};

/* The drivers that are built in, NULL at the end (drivers/table.c). */
extern const VpDriverOps *const vp_driver_table[];
