/*
 * Between the files that change what runs: change.c (a change and the order of its steps), change_prepare.c (what may block, before the first step), attach.c,
 * detach.c, medium.c, resize.c, threshold_step.c (the kinds of steps) and look.c (what there is, by QEMU's word). See devices.h. On the loop's thread, but for
 * the preparation.
 */
#pragma once

#include "command_line.h"
#include "devices.h"
#include "proof.h"
#include "script.h"

typedef struct VpQemuChange VpQemuChange;

struct VpQemuDevices {
    GPtrArray *pending;   /* of PbPendingDetach */
    VpQemuChange *change; /* under way; a reference */
    VpQemuOp *next;       /* waits for it, or for the look, to end; borrowed: it is one of the domain's operations */
    guint looks;          /* questions that are under way */
    PbDomain *intent;     /* what an earlier daemon was about to make of it; NULL: nothing */
    GHashTable
        *sides; /* of the cd-rom drives, by target: that of the medium in it (ids.h); 0 for those that are not there */
    char *swapping; /* the drive whose medium is being changed, by its device's name */
};

typedef enum VpStepKind {
    VP_STEP_ATTACH_DISK,
    VP_STEP_ATTACH_INTERFACE,
    VP_STEP_MEDIUM,
    VP_STEP_THROTTLE,
    VP_STEP_THRESHOLD,
    VP_STEP_MEMORY,
    VP_STEP_VCPUS,
    VP_STEP_DETACH_DISK,
    VP_STEP_DETACH_INTERFACE,
} VpStepKind;

typedef struct VpStep {
    VpStepKind kind;
    guint index; /* in what is wanted; of a detach in what there was when the change was planned */
    guint side;  /* that a medium comes to */
} VpStep;

/* What was opened for it, by the places in the wanted spec. */
typedef struct VpPrepared {
    VpProof proof;
    VpDiskFds *disks;
    int *chains; /* the number of each disk's chain in the proof; -1: it has none */
    int *secret_fds;
    VpNicFds *nics;
    GArray *fds; /* of int; owned: of secrets and interfaces */
    GArray *helpers;
    GPtrArray *layers; /* owned */
    VpContainment *containment;
} VpPrepared;

struct VpQemuChange {
    gint refs;
    VpQemuDriver *driver;
    VpQemuDomain *domain;             /* a reference */
    VpQemuOp *op;                     /* a reference; its task is gone once whoever asked has been told */
    PbDomainSpec *wanted;             /* complete */
    const PbDomainSpec *planned_from; /* the task's */
    VpTask *task;                     /* a reference */
    gboolean stored;
    gboolean force;
    gint abort;    /* atomic: nobody waits for it any more */
    GArray *steps; /* of VpStep */
    guint next;
    VpPrepared prepared; /* while `preparing` the worker's */
    VpError *error; /* of the preparation, or of what the guest refused before all steps were made; told at the end */
    gboolean preparing;
    VpScript *script;   /* under way */
    GPtrArray *awaited; /* of char: what the guest is to let go of before it ends, as in names of events */
    gboolean waiting;   /* for that alone */
    json_t *fdsets;     /* QEMU's, before a step */
};

/* ---- change.c ---- */

VpQemuChange *vp_qemu_change_ref(VpQemuChange *change);
void vp_qemu_change_unref(VpQemuChange *change);
/* The step under way is through. `error` is consumed; with one the change ends. */
void vp_qemu_change_step_done(VpQemuChange *change, VpError *error);
/* Whether it is to do no more. */
gboolean vp_qemu_change_is_over(const VpQemuChange *change);
/* Begins what has waited, if nothing is under way. */
void vp_qemu_devices_go_on(VpQemuDomain *domain);

/* Reports an event with the devices as they are. `findings` may be NULL. */
void vp_qemu_devices_report(VpQemuDomain *domain, PbEventType event, const char *reason, const char *detail,
                            GPtrArray *findings);
PbDiskStatus *vp_qemu_devices_find_status(const VpQemuDomain *domain, const char *target);
/* Puts it in the place of the disk's; NULL: the disk has none. Takes it over. */
void vp_qemu_devices_set_status(VpQemuDomain *domain, const char *target, PbDiskStatus *status);

/* ---- change_prepare.c ---- */

void vp_prepared_init(VpPrepared *prepared, VpQemuChange *change);
void vp_prepared_clear(VpPrepared *prepared, const VpDriverHost *host, const PbDomainSpec *wanted);
/* On a thread of the slow pool: opens what the steps need, and writes down what is about to be done. */
VpError *vp_prepare(VpQemuChange *change);

/* ---- attach.c ---- */

void vp_step_attach_disk(VpQemuChange *change, guint index);
void vp_step_attach_interface(VpQemuChange *change, guint index);

/* ---- medium.c ---- */

void vp_step_medium(VpQemuChange *change, guint index, guint side);
guint vp_medium_side(const VpQemuDomain *domain, const char *target);
void vp_medium_set_side(VpQemuDomain *domain, const char *target, guint side);

/* ---- resize.c ---- */

void vp_step_throttle(VpQemuChange *change, guint index);
void vp_step_vcpus(VpQemuChange *change);
void vp_step_memory(VpQemuChange *change);
/* So many there are; ends what is pending of them, and tells of it with this reason. `dimms`: the answer to query-memory-devices. */
void vp_resize_vcpus_are(VpQemuDomain *domain, guint vcpus, const char *reason);
void vp_resize_memory_is(VpQemuDomain *domain, guint64 bytes, json_t *dimms, const char *reason);
/* The guest has let go of memory, by the device's name, or (NULL) of a virtual CPU: QEMU is asked for how many there are. */
void vp_resize_recount(VpQemuDomain *domain, const char *dimm);
/* 0 stands for a default. */
guint32 vp_resize_vcpus_of(const PbDomainSpec *spec);
guint64 vp_resize_memory_of(const PbDomainSpec *spec);

/* ---- threshold_step.c ---- */

void vp_step_threshold(VpQemuChange *change, guint index);

/* ---- detach.c ---- */

void vp_step_detach_disk(VpQemuChange *change, const char *target);
void vp_step_detach_interface(VpQemuChange *change, const char *mac);
/* Asks the guest to let go of what QEMU knows by these ids or paths, which is told as `detach` (taken over), and ends the step. */
void vp_detach_ask(VpQemuChange *change, const char *const *ids, guint n, PbPendingDetach *detach);
/* What there is, by QEMU's answers to qom-list of /machine/peripheral, query-hotpluggable-cpus, query-memory-devices and query-memory-size-summary; NULL: it
 * gave none. */
typedef struct VpPresent {
    json_t *peripherals;
    json_t *cpus;
    json_t *dimms;
    json_t *memory;
} VpPresent;

/* The connection is another one, and QEMU drops what it had not read of the one before: asks once more for what is pending and still there. */
void vp_detach_ask_again(VpQemuDomain *domain, const VpPresent *present);
/* What of the change is still pending, for an error; owned by the caller. */
char *vp_detach_names(const GPtrArray *awaited);
/* A device has gone, by its id: what was behind it goes, too, and it is told. FALSE: it is none of the spec's. */
gboolean vp_detach_gone(VpQemuDomain *domain, const char *id, const char *reason);
gboolean vp_detach_refused(VpQemuDomain *domain, const char *id);
/* Something of this name is pending no more: takes it out, and ends who waits for it. `error` is consumed. */
void vp_detach_settle(VpQemuDomain *domain, PbPendingDetach__DeviceCase kind, const char *name, VpError *error);
