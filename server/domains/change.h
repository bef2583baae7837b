/*
 * Between the files that change what clients want of domains: change.c (create, update, delete), devices.c (attach, detach), plan.c (what a change makes of the
 * stored spec and of the one that runs) and live.c (the part that a driver has to do).
 */
#pragma once

#include "server/domains/internal.h"

typedef struct VpChange VpChange;

/* Makes the change in the stored domain and in the one that runs, of which one is NULL if it is not to change. `ret_spec_changed`: more than labels and the
 * description. */
typedef VpError *(*VpEdit)(const VpChange *change, PbDomain *stored, PbDomain *live, gboolean *ret_spec_changed);

/* One change under way: what it needs and whom it tells. */
struct VpChange {
    VpDomains *domains;
    VpRecord *record;
    const char *type; /* of its job */
    VpEdit edit;
    char *identity;
    char *caller;
    char *request_id;
    char *fingerprint;
    PbDomain *wanted; /* of a create or an update */
    Google__Protobuf__FieldMask *mask;
    PbDevice *device; /* of an attach */
    char *target;     /* of a detach: one of these two is set */
    char *mac;
    gint64 expected_revision;
    gboolean deletes;
    gboolean discard_saved; /* of a delete */
    PbChangeScope scope;
    gboolean force;
    guint64 timeout_ms; /* 0: the default */
    VpDomainDone done;  /* NULL: has been told */
    void *data;
    gint64 revision; /* of the change */

    /* Of its job. */
    VpJob *job;
    PbDomain *planned; /* what is to be stored once the driver is through; NULL: the domain stays as it is */
    VpError *task_error;
    VpProgress progress;
    gboolean begun;        /* the driver had a task */
    pthread_mutex_t mutex; /* guards the task */
    VpTask *task;
};

/* ---- change.c ---- */

VpChange *vp_change_new(VpDomains *domains, const void *request, const VpDomainCaller *caller, VpDomainDone done,
                        void *data);
void vp_change_free(void *data);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpChange, vp_change_free)
void vp_change_fail(VpChange *change, const VpError *error);
/* Whether the request was made before: then it is answered as then. */
gboolean vp_change_answered_before(VpChange *change);
/* Tells what the change would give. */
void vp_change_try(VpChange *change);
/* Makes it, as a job; `no_wait`: `done` is called once that is taken. Takes the change over. */
void vp_change_submit(VpChange *change, gboolean no_wait);
/* Within its job: stores it, and ends the job. With a plan it is that that is stored, else it is made now. */
void vp_change_store(VpChange *change);

/* Completes a domain and checks it, also by its driver, which is returned. */
VpError *vp_domain_validate(VpDomains *domains, PbDomain *domain, VpDriver **ret_driver);

/* ---- plan.c ---- */

/* What a change makes of a domain. */
typedef struct VpPlan {
    PbDomain *stored;   /* as it is to be stored; NULL: stays */
    PbDomainSpec *live; /* with which it is to run; NULL: stays */
} VpPlan;

/* Works out and checks both; the caller clears what it gets. */
VpError *vp_change_plan(const VpChange *change, const PbDomain *now, VpPlan *ret_plan);
void vp_plan_clear(VpPlan *plan);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VpPlan, vp_plan_clear)

/* ---- live.c ---- */

/* Within its job: has the driver make the domain run with `wanted`, then goes on with vp_change_store(). */
void vp_change_live(VpChange *change, const PbDomain *now, const PbDomainSpec *wanted, PbChangeScope scope);
void vp_change_live_cancel(VpChange *change);
