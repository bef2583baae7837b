/* See sandbox.h. */
#include "server/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <seccomp.h>

/* Those that root's daemon needs, each for what docs/containment.md says. The rest goes, from the bounding set as well. */
static const unsigned kept[] = {
    CAP_CHOWN,    CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,     CAP_FSETID,           CAP_KILL,
    CAP_SETGID,   CAP_SETUID,       CAP_SETPCAP,         CAP_NET_ADMIN,  CAP_NET_BIND_SERVICE, CAP_SYS_ADMIN,
    CAP_SYS_NICE, CAP_MKNOD,        CAP_SETFCAP,         CAP_SYS_PTRACE, CAP_SYS_RESOURCE,
};

static const int refused[] = {
    /* The kernel's code, and another kernel. */
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(bpf),
    SCMP_SYS(reboot),
    SCMP_SYS(iopl),
    SCMP_SYS(ioperm),
    SCMP_SYS(modify_ldt),
    SCMP_SYS(syslog),
    SCMP_SYS(lookup_dcookie),
    SCMP_SYS(uselib),
    SCMP_SYS(nfsservctl),
/* The leak checker stops its own threads by it. */
#ifndef __SANITIZE_ADDRESS__
    SCMP_SYS(ptrace),
#endif
    /* Other processes: the daemon reads what /proc tells of its domains, and never their memory. */
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(kcmp),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(keyctl),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    /* Files by their numbers, behind the back of every folder's rights. */
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(fanotify_init),
    SCMP_SYS(quotactl),
    /* The host as a whole. */
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(acct),
    SCMP_SYS(setdomainname),
    SCMP_SYS(settimeofday),
    SCMP_SYS(clock_settime),
    SCMP_SYS(clock_adjtime),
    SCMP_SYS(adjtimex),
    SCMP_SYS(stime),
    SCMP_SYS(vhangup),
};

static VpError *drop_capabilities(void)
{
    gboolean has[G_N_ELEMENTS(kept)];

    if (capng_get_caps_process() < 0)
        return vp_error_new(VP_INTERNAL, "SANDBOX", "cannot see which capabilities the daemon has");
    /* A user's daemon, which has none. */
    if (capng_have_capabilities(CAPNG_SELECT_CAPS) <= CAPNG_NONE)
        return NULL;
    for (gsize i = 0; i < G_N_ELEMENTS(kept); i++)
        has[i] = capng_have_capability(CAPNG_PERMITTED, kept[i]) != 0;
    capng_clear(CAPNG_SELECT_BOTH);
    for (gsize i = 0; i < G_N_ELEMENTS(kept); i++) {
        if (has[i])
            capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET, kept[i]);
    }
    const int r = capng_apply(CAPNG_SELECT_BOTH);
    return r < 0
               ? vp_error_new(VP_INTERNAL, "SANDBOX",
                              "the daemon cannot give up capabilities (%d); sandbox=false in [daemon] has it keep them",
                              r)
               : NULL;
}

/* With it goes no_new_privs. */
static int filter_calls(scmp_filter_ctx context)
{
    int r = 0;

    for (gsize i = 0; i < G_N_ELEMENTS(refused) && r >= 0; i++) {
        r = seccomp_rule_add(context, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
        /* This architecture has no such call. */
        if (r == -EDOM)
            r = 0;
    }
    return r < 0 ? r : seccomp_load(context);
}

VpError *vp_sandbox_enter(void)
{
    VpError *error = drop_capabilities();

    if (error)
        return error;
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
    const int r = context ? filter_calls(context) : -ENOMEM;
    if (context)
        seccomp_release(context);
    return r < 0
               ? vp_error_new(VP_INTERNAL, "SANDBOX",
                              "the daemon cannot give up system calls: %s; sandbox=false in [daemon] has it keep them",
                              g_strerror(-r))
               : NULL;
}
