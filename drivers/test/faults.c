/* Reads the fault labels: see faults.h and docs/test-driver.md. */
#include "faults.h"

#include <string.h>

#define MAX_DELAY_MS 86400000 /* a day */

const char *vp_label(const PbDomain *domain, const char *key)
{
    for (size_t i = 0; i < domain->n_labels; i++) {
        if (strcmp(domain->labels[i]->key, key) == 0)
            return domain->labels[i]->value;
    }
    return NULL;
}

static VpError *not_understood(const char *key, const char *value, const char *wanted)
{
    VpError *error = vp_error_new(VP_INVALID_ARGUMENT, "BAD_FAULT_LABEL", "label %s: '%s' is not understood; use %s",
                                  key, value, wanted);

    return vp_error_with(error, "label", key);
}

static gboolean parse_ms(const char *text, guint64 *ret_ms)
{
    return g_ascii_string_to_unsigned(text, 10, 0, MAX_DELAY_MS, ret_ms, NULL);
}

/* CODE:message */
static gboolean parse_failure(const char *text, VpFault *ret_fault)
{
    const char *colon = strchr(text, ':');

    if (!colon)
        return FALSE;
    for (int code = VP_CANCELLED; code <= VP_UNAUTHENTICATED; code++) {
        const char *name = vp_code_name((VpCode)code);

        if (strlen(name) == (size_t)(colon - text) && strncmp(name, text, strlen(name)) == 0) {
            *ret_fault = (VpFault){.kind = VP_FAULT_FAIL, .code = (VpCode)code, .message = colon + 1};
            return TRUE;
        }
    }
    return FALSE;
}

static gboolean parse_wait(const char *value, const char *prefix, VpFaultKind kind, VpFault *ret_fault)
{
    guint64 ms;

    if (!g_str_has_prefix(value, prefix) || !parse_ms(value + strlen(prefix), &ms))
        return FALSE;
    *ret_fault = (VpFault){.kind = kind, .delay_ms = ms};
    return TRUE;
}

static gboolean parse_delay(const char *value, VpFault *ret_fault)
{
    return parse_wait(value, "delay:", VP_FAULT_DELAY, ret_fault);
}

VpError *vp_fault_of_verb(const PbDomain *domain, const char *verb, VpFault *ret_fault)
{
    g_autofree char *key = g_strdup_printf("test.fault.%s", verb);
    const char *value = vp_label(domain, key);

    if (!value) {
        *ret_fault = (VpFault){.kind = VP_FAULT_NONE};
        return NULL;
    }
    if (strcmp(value, "hang") == 0) {
        *ret_fault = (VpFault){.kind = VP_FAULT_HANG};
        return NULL;
    }
    if (parse_delay(value, ret_fault) || parse_wait(value, "progress:", VP_FAULT_PROGRESS, ret_fault))
        return NULL;
    if (g_str_has_prefix(value, "fail:") && parse_failure(value + strlen("fail:"), ret_fault))
        return NULL;
    return not_understood(key, value, "delay:MILLISECONDS, progress:MILLISECONDS, fail:CODE:message or hang");
}

VpError *vp_fault_of_guest(const PbDomain *domain, const char *what, VpFault *ret_fault)
{
    g_autofree char *key = g_strdup_printf("test.guest.%s", what);
    const char *value = vp_label(domain, key);

    if (!value) {
        *ret_fault = (VpFault){.kind = VP_FAULT_NONE};
        return NULL;
    }
    if (strcmp(value, "ignore") == 0) {
        *ret_fault = (VpFault){.kind = VP_FAULT_IGNORE};
        return NULL;
    }
    if (parse_delay(value, ret_fault))
        return NULL;
    return not_understood(key, value, "ignore or delay:MILLISECONDS");
}

VpError *vp_fault_of_end(const PbDomain *domain, const char *what, VpFault *ret_fault)
{
    g_autofree char *key = g_strdup_printf("test.%s_after", what);
    const char *value = vp_label(domain, key);
    guint64 ms;

    if (!value) {
        *ret_fault = (VpFault){.kind = VP_FAULT_NONE};
        return NULL;
    }
    if (!parse_ms(value, &ms))
        return not_understood(key, value, "a number of milliseconds");
    *ret_fault = (VpFault){.kind = VP_FAULT_DELAY, .delay_ms = ms};
    return NULL;
}
