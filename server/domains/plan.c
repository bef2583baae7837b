/* What a change makes of the stored spec and of the one that runs: see change.h. Both are checked before either is touched. */
#include "base/pb.h"
#include "server/domains/change.h"

void vp_plan_clear(VpPlan *plan)
{
    g_clear_pointer(&plan->stored, vp_pb_free);
    g_clear_pointer(&plan->live, vp_pb_free);
}

static gboolean wants_stored(const VpChange *change)
{
    return change->scope != PB_CHANGE_SCOPE_LIVE;
}

static gboolean wants_live(const VpChange *change, const PbDomain *now)
{
    if (change->scope == PB_CHANGE_SCOPE_UNSPECIFIED)
        return vp_domain_runs(now);
    return change->scope == PB_CHANGE_SCOPE_LIVE || change->scope == PB_CHANGE_SCOPE_BOTH;
}

static VpError *check_scope(const VpChange *change, const PbDomain *now)
{
    if (!protobuf_c_enum_descriptor_get_value(&pb_change_scope__descriptor, (int)change->scope))
        return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                               "scope: is no value that is known"),
                                  "scope", "is no value that is known");
    if (!wants_live(change, now) || vp_domain_runs(now))
        return NULL;
    return vp_error_new(VP_FAILED_PRECONDITION, "DOMAIN_NOT_RUNNING",
                        "the domain %s does not run: only what is stored of it can be changed (CHANGE_SCOPE_STORED)",
                        now->name);
}

/* The driver's part of the check. `live` becomes NULL if the domain is to run on as it is. */
static VpError *check_live(const VpChange *change, const PbDomain *now, PbDomainSpec **live)
{
    VpDriver *driver = change->record->driver;
    const PbDomainSpec *runs_with = vp_domain_live_spec(now);

    /* The note is nothing that runs. */
    vp_pb_set(&(*live)->description, runs_with->description);
    if (vp_pb_equal(*live, runs_with)) {
        g_clear_pointer(live, vp_pb_free);
        return NULL;
    }
    if (!driver->ops->change)
        return vp_domain_cannot(driver, "change of a running domain");
    return driver->ops->check_change ? driver->ops->check_change(driver, now->status, runs_with, *live) : NULL;
}

VpError *vp_change_plan(const VpChange *change, const PbDomain *now, VpPlan *ret_plan)
{
    g_auto(VpPlan) plan = {0};
    gboolean spec_changed = FALSE;
    vp_pb_auto PbDomain *live = NULL;
    VpError *error = check_scope(change, now);

    if (error)
        return error;
    if (wants_stored(change))
        plan.stored = vp_pb_dup(now);
    if (wants_live(change, now)) {
        live = vp_pb_dup(now);
        vp_pb_free(live->spec);
        live->spec = vp_pb_dup(vp_domain_live_spec(now));
    }
    error = change->edit(change, plan.stored, live, &spec_changed);
    if (!error && plan.stored)
        error = vp_domain_validate(change->domains, plan.stored, NULL);
    if (!error && plan.stored && spec_changed && vp_screens_differ(now->spec, plan.stored->spec))
        error = vp_screens_check(change->domains, plan.stored);
    if (!error && live && spec_changed) {
        error = vp_domain_validate(change->domains, live, NULL);
        plan.live = g_steal_pointer(&live->spec);
        if (!error)
            error = check_live(change, now, &plan.live);
    }
    if (!error) {
        *ret_plan = plan;
        plan = (VpPlan){0};
    }
    return error;
}
