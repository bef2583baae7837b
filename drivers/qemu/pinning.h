/* Which of the host's CPUs run a domain's threads: sets as they are written in a spec, and what is done with them. */
#pragma once

#include <sched.h>

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* "0-3,8": FALSE if it is not such a set, or empty. Pure. */
gboolean vp_cpu_set_parse(const char *text, cpu_set_t *ret_set);

/* Whether the host has all CPUs that the spec names, for this daemon to use. FAILED_PRECONDITION, reason CPUS_UNAVAILABLE, with violations. */
VpError *vp_pinning_check(const PbDomainSpec *spec);

/* The CPUs of thread number `index` of a kind, in `scratch`; NULL: it has no set of its own, and stays where the process is. */
const cpu_set_t *vp_pinning_of_vcpu(const PbPinning *pinning, guint index, cpu_set_t *scratch);
const cpu_set_t *vp_pinning_of_iothread(const PbPinning *pinning, guint index, cpu_set_t *scratch);

/* Binds a thread, or a process whose threads are still to come. */
VpError *vp_pinning_bind(pid_t thread, const cpu_set_t *set);
