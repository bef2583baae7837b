/*
 * The one error type of the project: a canonical status code, a message for people, a stable reason for programs.
 *
 * Every function that can fail returns it (NULL: done) or takes a `VpError **error` out-parameter. Errors travel up
 * and are told once, where they end: the RPC runtime turns one into google.rpc.Status, vpctl prints it.
 */
#pragma once

#include <glib.h>

/* The canonical gRPC codes, by the same numbers (https://grpc.github.io/grpc/core/md_doc_statuscodes.html). */
typedef enum VpCode {
    VP_OK = 0,
    VP_CANCELLED = 1,
    VP_UNKNOWN = 2,
    VP_INVALID_ARGUMENT = 3,
    VP_DEADLINE_EXCEEDED = 4,
    VP_NOT_FOUND = 5,
    VP_ALREADY_EXISTS = 6,
    VP_PERMISSION_DENIED = 7,
    VP_RESOURCE_EXHAUSTED = 8,
    VP_FAILED_PRECONDITION = 9,
    VP_ABORTED = 10,
    VP_OUT_OF_RANGE = 11,
    VP_UNIMPLEMENTED = 12,
    VP_INTERNAL = 13,
    VP_UNAVAILABLE = 14,
    VP_DATA_LOSS = 15,
    VP_UNAUTHENTICATED = 16,
} VpCode;

/* One `key: value` of an error's metadata, or one `field path: description` of its violations. */
typedef struct VpErrorPair {
    char *key;
    char *value;
} VpErrorPair;

typedef struct VpError {
    VpCode code;
    char *message;         /* what failed, on which object, why, and what to do */
    char *reason;          /* UPPER_SNAKE, stable (google.rpc.ErrorInfo.reason) */
    GArray *metadata;      /* of VpErrorPair, or NULL (ErrorInfo.metadata) */
    GArray *violations;    /* of VpErrorPair, or NULL (BadRequest.field_violations) */
    gint64 retry_after_ms; /* 0: no advice (RetryInfo) */
} VpError;

/* A new error, owned by the caller. `reason` is UPPER_SNAKE and never changes once released; `format` is printf's. */
VpError *vp_error_new(VpCode code, const char *reason, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* The same with the words of `errnum` (an errno value) appended, and the code that fits it: ENOENT is NOT_FOUND,
 * EACCES and EPERM PERMISSION_DENIED, ENOSPC, EDQUOT, EMFILE, ENFILE and ENOMEM RESOURCE_EXHAUSTED, else INTERNAL. */
VpError *vp_error_errno(int errnum, const char *reason, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Adds a `key: value` that programs can read. Copies both; returns `error`, so that calls can be chained. */
VpError *vp_error_with(VpError *error, const char *key, const char *value);

/* Adds a violated request field, by its path as in `domain.spec.disks[0].path`. Returns `error`. */
VpError *vp_error_violation(VpError *error, const char *field, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Says that the same call may succeed after `delay_ms`. Returns `error`. */
VpError *vp_error_retry(VpError *error, gint64 delay_ms);

/* Puts "TEXT: " before the message, to name the object as the error travels up. Returns `error`. */
VpError *vp_error_prefix(VpError *error, const char *format, ...) G_GNUC_PRINTF(2, 3);

VpError *vp_error_copy(const VpError *error);

/* The value of metadata `key`, borrowed, or NULL. */
const char *vp_error_get(const VpError *error, const char *key);

/* The canonical name of a code: "FAILED_PRECONDITION". */
const char *vp_code_name(VpCode code);

/* Frees an error; NULL is let pass. */
void vp_error_free(VpError *error);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpError, vp_error_free)
