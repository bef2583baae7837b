/* The error type: see error.h. */
#include "base/error.h"

#include <errno.h>
#include <string.h>

static void pair_clear(gpointer data)
{
    VpErrorPair *pair = data;

    g_free(pair->key);
    g_free(pair->value);
}

static GArray *pairs_add(GArray *pairs, char *key, char *value)
{
    const VpErrorPair pair = {.key = key, .value = value};

    if (!pairs) {
        pairs = g_array_new(FALSE, FALSE, sizeof(VpErrorPair));
        g_array_set_clear_func(pairs, pair_clear);
    }
    g_array_append_val(pairs, pair);
    return pairs;
}

static GArray *pairs_copy(const GArray *pairs)
{
    GArray *copy = NULL;

    for (guint i = 0; pairs && i < pairs->len; i++) {
        const VpErrorPair *pair = &g_array_index(pairs, VpErrorPair, i);

        copy = pairs_add(copy, g_strdup(pair->key), g_strdup(pair->value));
    }
    return copy;
}

static VpError *error_take(VpCode code, const char *reason, char *message)
{
    VpError *error = g_new0(VpError, 1);

    error->code = code;
    error->reason = g_strdup(reason);
    error->message = message;
    return error;
}

VpError *vp_error_new(VpCode code, const char *reason, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *message = g_strdup_vprintf(format, args);
    va_end(args);
    return error_take(code, reason, message);
}

static VpCode code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
        return VP_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return VP_PERMISSION_DENIED;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return VP_RESOURCE_EXHAUSTED;
    default:
        return VP_INTERNAL;
    }
}

VpError *vp_error_errno(int errnum, const char *reason, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    return error_take(code_of_errno(errnum), reason, g_strdup_printf("%s: %s", what, g_strerror(errnum)));
}

VpError *vp_error_with(VpError *error, const char *key, const char *value)
{
    error->metadata = pairs_add(error->metadata, g_strdup(key), g_strdup(value));
    return error;
}

VpError *vp_error_violation(VpError *error, const char *field, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *description = g_strdup_vprintf(format, args);
    va_end(args);
    error->violations = pairs_add(error->violations, g_strdup(field), description);
    return error;
}

VpError *vp_error_retry(VpError *error, gint64 delay_ms)
{
    error->retry_after_ms = delay_ms;
    return error;
}

VpError *vp_error_prefix(VpError *error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *prefix = g_strdup_vprintf(format, args);
    va_end(args);

    char *message = g_strdup_printf("%s: %s", prefix, error->message);
    g_free(error->message);
    error->message = message;
    return error;
}

VpError *vp_error_copy(const VpError *error)
{
    if (!error)
        return NULL;

    VpError *copy = error_take(error->code, error->reason, g_strdup(error->message));
    copy->metadata = pairs_copy(error->metadata);
    copy->violations = pairs_copy(error->violations);
    copy->retry_after_ms = error->retry_after_ms;
    return copy;
}

const char *vp_error_get(const VpError *error, const char *key)
{
    for (guint i = 0; error->metadata && i < error->metadata->len; i++) {
        const VpErrorPair *pair = &g_array_index(error->metadata, VpErrorPair, i);

        if (g_str_equal(pair->key, key))
            return pair->value;
    }
    return NULL;
}

const char *vp_code_name(VpCode code)
{
    static const char *const names[] = {
        "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED",
    };

    return (guint)code < G_N_ELEMENTS(names) ? names[code] : "UNKNOWN";
}

void vp_error_free(VpError *error)
{
    if (!error)
        return;
    g_free(error->message);
    g_free(error->reason);
    if (error->metadata)
        g_array_unref(error->metadata);
    if (error->violations)
        g_array_unref(error->violations);
    g_free(error);
}
