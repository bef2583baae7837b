/*
 * What the agent in a domain's guest is asked by clients: VpDriverOps.guest. A call is a piece of work on the loop's thread: it sends commands one after
 * another, waits, emits, and is finished; whenever it ends, by its deadline and by its client's leaving too, what it had opened or begun in the guest is
 * put away (guest_cleanup.c). The guest is hostile: what it answers goes through guest_read.h.
 *
 * A method is a function of the table in guest.c; guest_query.c has those that ask, guest_set.c those that set, guest_run.c, guest_exec.c, guest_file.c and
 * guest_freeze.c the rest.
 */
#pragma once

#include "domain.h"
#include "virtplane/v1/guest_service.pb-c.h"

typedef struct VpGuestWork VpGuestWork;

/* The answer to a command, borrowed. Not called for a work that has ended. */
typedef void (*VpGuestAnswer)(VpGuestWork *work, json_t *result);
/* The same, or the error, owned by the callee. */
typedef void (*VpGuestEnd)(VpGuestWork *work, json_t *result, VpError *error);
typedef void (*VpGuestStep)(VpGuestWork *work);

/* One call. */
struct VpGuestWork {
    guint refs;
    VpQemuDomain *domain; /* a reference */
    VpQemuOp *op;         /* a reference; NULL once it has ended */
    VpTask *task;         /* a reference; its request and stream */
    const void *request;  /* borrowed from the task */
    void *answer;    /* of a method that asks several things; goes to the task with vp_guest_reply(), or is freed */
    gboolean heard;  /* the agent has answered it: one that is not there any more has gone in the midst */
    GArray *handles; /* of gint64: files that are open in the guest, closed at the end */
    VpTimer *timer;
    VpGuestStep then; /* what the timer, or the program that is waited for, leads to */

    /* The program that is waited for, see vp_guest_await(). */
    gint64 pid; /* 0: none */
    guint poll_ms;
    VpGuestAnswer exited;

    /* The method's own. */
    void *state;
    void (*free_state)(void *state);
    VpGuestStep stirred; /* the stream has room again, or the client's next message */
    VpGuestStep ended;   /* it is ending, well or not */
    /* A command has ended well after the work had. NULL: files are closed, programs are left to end. */
    void (*late)(VpGuestWork *work, const char *command, json_t *result);
};

/* ---- guest.c ---- */

/* Sends a command; an error ends the work. `arguments` (may be NULL) is consumed. */
void vp_guest_send(VpGuestWork *work, const char *command, json_t *arguments, VpGuestAnswer answer);
/* The same, where an error is not the end. */
void vp_guest_try(VpGuestWork *work, const char *command, json_t *arguments, VpGuestEnd end);
/* Goes on with `then` after so long. */
void vp_guest_wait(VpGuestWork *work, guint ms, VpGuestStep then);
/* Ends it; `error` is consumed, NULL: well. */
void vp_guest_finish(VpGuestWork *work, VpError *error);
/* Ends it well with this answer, consumed. */
void vp_guest_reply(VpGuestWork *work, void *answer);
/* Ends it: `command` was answered with something else than the agent's answer to it. */
void vp_guest_garbage(VpGuestWork *work, const char *command);
/* Ends it with what was read of the command's answer (consumed); NULL: that was garbage. */
void vp_guest_reply_read(VpGuestWork *work, void *response, const char *command);
VpError *vp_guest_garbage_error(const char *command);
/* Notes a file that is open in the guest, and forgets it once it is closed. */
void vp_guest_opened(VpGuestWork *work, gint64 handle);
void vp_guest_closed(VpGuestWork *work, gint64 handle);

/* Begins a call; see verbs.c. */
void vp_guest_begin(VpQemuDomain *domain, VpQemuOp *op);

/* domain_agent.c: the handles are being opened, and closed; the agent answers (again); its port was closed in the guest: what was open is not any more. */
void vp_guest_init(VpQemuDomain *domain);
void vp_guest_free(VpQemuDomain *domain);
void vp_guest_answers(VpQemuDomain *domain);
void vp_guest_agent_gone(VpQemuDomain *domain);
/* A domain that is taken up: what was known of its agent. */
void vp_guest_adopt(VpQemuDomain *domain, const PbGuestAgentStatus *status);

/* ---- guest_cleanup.c: what is put away in the guest, in turn, until it is or the agent has gone ---- */

typedef struct VpGuestCleanup VpGuestCleanup;

VpGuestCleanup *vp_guest_cleanup_new(VpQemuDomain *domain);
void vp_guest_cleanup_free(VpGuestCleanup *cleanup);
/* The agent has gone, and with it all that was to be put away. */
void vp_guest_cleanup_forget(VpGuestCleanup *cleanup);
void vp_guest_cleanup_close(VpGuestCleanup *cleanup, gint64 handle);
/* Asks after a program until it has ended, so that the agent forgets it. */
void vp_guest_cleanup_reap(VpGuestCleanup *cleanup, gint64 pid);
/* Runs a program; `arguments` are guest-exec's, consumed. */
void vp_guest_cleanup_run(VpGuestCleanup *cleanup, json_t *arguments);

/* What is under way in a domain's guest, or is known of it. */
struct VpQemuGuest {
    VpGuestCleanup *cleanup;
    VpTimer *thaw_timer;
    gboolean thawing;  /* by ourselves: a command is under way */
    gboolean checking; /* whether it is frozen */
    gboolean settling; /* what is asked of the agent now is about to change agent_told */
};

/* ---- the methods ---- */

/* guest_query.c */
void vp_guest_ping(VpGuestWork *work);
void vp_guest_info(VpGuestWork *work);
void vp_guest_interfaces(VpGuestWork *work);
void vp_guest_users(VpGuestWork *work);
void vp_guest_get_time(VpGuestWork *work);
/* guest_set.c */
void vp_guest_set_time(VpGuestWork *work);
void vp_guest_set_password(VpGuestWork *work);
void vp_guest_trim(VpGuestWork *work);
/* guest_run.c */
void vp_guest_run(VpGuestWork *work);
/* Asks after the program `pid` until it has ended: `exited` gets the answer of guest-exec-status. */
void vp_guest_await(VpGuestWork *work, gint64 pid, VpGuestAnswer exited);
/* The arguments of guest-exec. `environment` may have none. */
json_t *vp_guest_exec_arguments(const char *path, json_t *list, char *const *environment, gsize n_environment,
                                gboolean capture);
/* guest_exec.c */
void vp_guest_exec(VpGuestWork *work);
/* guest_file.c */
void vp_guest_read_file(VpGuestWork *work);
void vp_guest_write_file(VpGuestWork *work);
json_t *vp_guest_read_arguments(gint64 handle, gsize bytes);
json_t *vp_guest_write_arguments(gint64 handle, const guint8 *bytes, gsize size);
/* What one guest-file-read brings, and one guest-file-write takes. */
#define VP_GUEST_CHUNK_BYTES ((gsize)128 * 1024)
/* guest_freeze.c */
void vp_guest_freeze(VpGuestWork *work);
void vp_guest_thaw(VpGuestWork *work);
/* The agent answers: whether what is known of the file systems is so. */
void vp_guest_check_frozen(VpQemuDomain *domain);
/* GUEST_FROZEN, if they are. */
VpError *vp_guest_check_thawed(const VpQemuDomain *domain);
