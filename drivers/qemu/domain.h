/*
 * A QEMU domain while there is a process, or one is to be made. It comes from a worker thread, which has it for itself until it posts
 * vp_qemu_domain_arrive(); from then on it belongs to the loop's thread, and so do all operations on it.
 */
#pragma once

#include <uv.h>

#include "agent.h"
#include "capabilities.h"
#include "contain.h"
#include "drivers/driver.h"
#include "folder.h"
#include "notices.h"
#include "process.h"
#include "qmp.h"

typedef struct VpQemuDomain VpQemuDomain;
typedef struct VpQemuOp VpQemuOp;
typedef struct VpQemuStart VpQemuStart;
typedef struct VpQemuScreenshot VpQemuScreenshot;
typedef struct VpQemuStats VpQemuStats;
typedef struct VpQemuAsking VpQemuAsking;
typedef struct VpQemuSave VpQemuSave;
typedef struct VpQemuRestore VpQemuRestore;
typedef struct VpQemuGuest VpQemuGuest;
typedef struct VpQemuDevices VpQemuDevices;

typedef struct VpQemuDriver {
    VpDriver base;
    const VpDriverHost *host;
    VpQemuProbe *probe;
    guint64 ping_interval_ms;      /* [qemu] ping_interval_ms= */
    guint64 unresponsive_after_ms; /* [qemu] unresponsive_after_ms= */
    guint64 save_bytes_per_second; /* [qemu] save_bytes_per_second=; 0: no limit */
    gboolean allow_arguments;      /* [qemu] allow_arguments= */
    char *cgroup;                  /* [qemu] cgroup= */
    VpContain *contain;

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    GHashTable *domains; /* uid to VpQemuDomain, each with a reference */
    guint workers;       /* operations that are on a worker thread now */
    guint live;          /* domains, starts and operations that are not freed yet */
    gboolean closing;
} VpQemuDriver;

/* Counts what has to be freed before the driver is. */
void vp_qemu_driver_live(VpQemuDriver *driver, gint change);

/* The domain of this uid, borrowed from the table, or NULL. On the loop's thread, which alone removes domains. */
VpQemuDomain *vp_qemu_driver_find(VpQemuDriver *driver, const char *uid);
/* PERMISSION_DENIED if the spec has arguments of its user's own and the settings do not allow them. */
VpError *vp_qemu_driver_check_arguments(const VpQemuDriver *driver, const PbDomainSpec *spec);

void vp_qemu_driver_remove(VpQemuDriver *driver, VpQemuDomain *domain);

/* ---- operations (op.c) ---- */

typedef enum VpOpKind {
    VP_OP_START,
    VP_OP_ADOPT,
    VP_OP_SHUTDOWN,
    VP_OP_REBOOT,
    VP_OP_POWER_OFF,
    VP_OP_RESET,
    VP_OP_PAUSE,
    VP_OP_RESUME,
    VP_OP_STATS,
    VP_OP_SCREENSHOT,
    VP_OP_SAVE,
    VP_OP_RESTORE,
    VP_OP_GUEST,
    VP_OP_CHANGE,
} VpOpKind;

/* A task in the driver's hands. */
struct VpQemuOp {
    gint refs;
    VpQemuDriver *driver;
    VpOpKind kind;
    VpTask *task;              /* NULL once finished */
    VpQemuDomain *domain;      /* the loop's: where it is listed */
    VpTimer *timer;            /* the loop's: its deadline */
    void (*ended)(void *data); /* or NULL; called once it has, before the task is finished */
    void *ended_data;
};

/* On a worker thread; takes over the task. Its cancellation is watched from now on, and seen once it is attached. */
VpQemuOp *vp_qemu_op_new(VpQemuDriver *driver, VpOpKind kind, VpTask *task);
VpQemuOp *vp_qemu_op_ref(VpQemuOp *op);
void vp_qemu_op_unref(VpQemuOp *op);
/* Lists it with the domain and watches its deadline; the loop's thread. */
void vp_qemu_op_attach(VpQemuOp *op, VpQemuDomain *domain);
/* Ends it (`error` is consumed), if it has not ended, and gives up its first reference. */
void vp_qemu_op_finish(VpQemuOp *op, VpError *error);
const char *vp_qemu_op_verb(const VpQemuOp *op);

/* ---- the domain ---- */

typedef enum VpDomainPhase {
    VP_PHASE_STARTING,
    VP_PHASE_ADOPTING,
    VP_PHASE_UP,
    VP_PHASE_ENDED,
} VpDomainPhase;

struct VpQemuDomain {
    gint refs;
    VpQemuDriver *driver;
    char *uid;
    char *name;
    char *dir;
    VpDomainPhase phase;

    /* Set before it arrives. */
    VpProcess process; /* of an adoption; a start makes it later */
    gboolean has_process;
    gboolean paused;
    PbAccelerator accelerator;
    PbDomainState state; /* of the guest, whether QEMU answers or not */
    PbDomainSpec *live;  /* what runs, or is to; complete (spec.h). The loop's once it has arrived */
    PbPinning *pinning;  /* NULL: none */
    GArray *helpers;     /* of VpProcess: programs that serve QEMU and end with it; of this daemon's children alone */
    json_t *before_run;  /* what QEMU is told before the guest runs; see command_line.h */
    gboolean tainted;
    PbContainment *contained; /* as the kernel tells it; NULL: not known */
    VpQemuOp *first_op;       /* the start or the adoption, or the power off of a process that nobody has taken up */
    VpError *look_error;      /* NOT_FOUND: there is no process to take up */
    char *exit_log;           /* the last lines of stderr */
    VpQemuSave *save;         /* NULL: none is under way */
    VpQemuRestore *restore;   /* NULL: it is no restore */
    /* Of an adoption (recover.h). */
    gboolean half_restored;    /* a restore whose CPUs never ran */
    gboolean was_saved;        /* the domain, before that */
    gboolean lets_run;         /* one that has only to be let run */
    gboolean found_used;       /* the file of a restore is there, put aside */
    PbSavedState *found_saved; /* a save was done, and QEMU is gone; NULL: not so */

    /* The loop's. */
    gboolean arrived;
    VpQemuStart *start; /* NULL: no process is to be made */
    gboolean watched;   /* the handles below are open */
    gboolean responsive;
    GPtrArray *disks;     /* of PbDiskStatus: as they were opened */
    GPtrArray *findings;  /* of PbFinding */
    GPtrArray *endpoints; /* of PbDomainEndpoint; the same */
    GPtrArray *ops;
    VpQmp *qmp;
    uv_poll_t exit_poll;
    uv_timer_t ping_timer;
    guint ticks;
    gboolean ping_pending;
    gint64 silent_since_us; /* a ping is unanswered, or there is no connection, since then; 0: all is well */
    gboolean killed;        /* a power off was asked for */
    gboolean pause_asked;
    gboolean resume_asked;
    VpQemuDevices *devices;
    VpQemuStats *stats;           /* NULL: nobody has asked for counters yet */
    VpQemuScreenshot *screenshot; /* the same for pictures */
    char *io_error;               /* the device whose error will stop the guest */
    VpNoticeLimit notices[VP_NOTICE_KINDS];
    VpAgent *agent;                /* while the handles are open; without a port in the spec it never connects */
    PbGuestAgentStatus agent_told; /* with its thaw_time */
    VpQemuGuest *guest;            /* as the agent: what is under way in the guest (guest.h) */
    char *shutdown_reason;         /* of QEMU's SHUTDOWN event */
    VpError *start_error;          /* why a start is being given up */
    char *exit_how;                /* "exited with status 1" */

    /* Of shutdown.c. */
    VpQemuAsking *asking;     /* the guest is being asked */
    PbPendingShutdown *asked; /* what it was asked for and has not done */
    VpTimer *fallback;
    gboolean fell_back;       /* it is being powered off since it did not */
    const char *reset_reason; /* of the reset that was sent; static */
    gboolean panicked;        /* and QEMU is going to halt it for that */
    const char *watchdog;     /* what the watchdog has done last, and is still to be told as a reason; static */
};

VpQemuDomain *vp_qemu_domain_new(VpQemuDriver *driver, const PbDomain *model, VpDomainPhase phase);
VpQemuDomain *vp_qemu_domain_ref(VpQemuDomain *domain);
void vp_qemu_domain_unref(VpQemuDomain *domain);

/* Posted by the worker thread: hands the domain to the loop. `data` is the domain, with its first_op. */
void vp_qemu_domain_arrive(void *data);

/* A start has come to its process, or to `error` (consumed). */
void vp_qemu_domain_made(VpQemuDomain *domain, VpError *error);

/* Begins an operation on a domain that is up, starting or ending. The loop's thread. */
void vp_qemu_domain_begin(VpQemuDomain *domain, VpQemuOp *op);

/* Ends an operation early: its deadline has passed, or it was cancelled. `error` is consumed. */
void vp_qemu_domain_end_early(VpQemuDomain *domain, VpQemuOp *op, VpError *error);

/* The daemon stops: lets the process run on, ends the operations, reports nothing. */
void vp_qemu_domain_let_go(VpQemuDomain *domain);

/* ---- domain_agent.c: the agent in the guest; the loop's thread ---- */

/* As vp_agent_execute(). */
void vp_qemu_agent_execute(VpQemuDomain *domain, const char *command, json_t *arguments, gint64 deadline_us,
                           VpAgentDone done, void *data);

/* Reports what is known of it, domain->agent_told. */
void vp_qemu_agent_tell(VpQemuDomain *domain, PbEventType event, const char *reason);

/* Reports an observation about it. */
void vp_qemu_domain_report(VpQemuDomain *domain, PbEventType event, PbDomainState state, const char *reason,
                           const char *detail);
