/*
 * Transactions before they are committed: lists of compares, changes and events. What is out of bounds is noted here and told by the
 * commit, so that building one needs no error checks; nothing past the bounds is kept.
 */
#include "server/store/txn.h"

#include <string.h>

#include "base/pb.h"

static void compare_clear(gpointer data)
{
    VpTxnCompare *compare = data;

    g_free(compare->key);
}

static void change_clear(gpointer data)
{
    VpTxnChange *change = data;

    g_free(change->key);
    g_clear_pointer(&change->value, g_bytes_unref);
}

gboolean vp_store_key_valid(const char *key)
{
    const gsize length = key ? strnlen(key, VP_STORE_KEY_MAX + 1) : 0;

    return length > 0 && length <= VP_STORE_KEY_MAX && g_utf8_validate(key, (gssize)length, NULL);
}

VpTxn *vp_txn_new(void)
{
    VpTxn *txn = g_new0(VpTxn, 1);

    txn->compares = g_array_new(FALSE, FALSE, sizeof(VpTxnCompare));
    g_array_set_clear_func(txn->compares, compare_clear);
    txn->changes = g_array_new(FALSE, FALSE, sizeof(VpTxnChange));
    g_array_set_clear_func(txn->changes, change_clear);
    txn->events = g_ptr_array_new_with_free_func(vp_pb_free);
    txn->bytes = sizeof(VpTxn);
    return txn;
}

void vp_txn_free(VpTxn *txn)
{
    if (!txn) {
        return;
    }
    g_array_unref(txn->compares);
    g_array_unref(txn->changes);
    g_ptr_array_unref(txn->events);
    vp_error_free(txn->error);
    g_free(txn);
}

/* Counts another part of `bytes`; FALSE (and the error noted) if the transaction cannot take it. */
static gboolean txn_account(VpTxn *txn, gsize bytes)
{
    if (txn->error) {
        return FALSE;
    }
    if (txn->compares->len + txn->changes->len + txn->events->len >= VP_STORE_TXN_MAX_PARTS ||
        bytes > VP_STORE_TXN_MAX_BYTES - txn->bytes) {
        txn->error = vp_error_new(VP_INVALID_ARGUMENT, "TRANSACTION_TOO_LARGE",
                                  "a transaction has at most %u compares, changes and events, and %u MiB",
                                  VP_STORE_TXN_MAX_PARTS, VP_STORE_TXN_MAX_BYTES >> 20);
        return FALSE;
    }
    txn->bytes += bytes;
    return TRUE;
}

static gboolean txn_check_key(VpTxn *txn, const char *key)
{
    if (!txn->error && !vp_store_key_valid(key)) {
        txn->error = vp_error_new(VP_INVALID_ARGUMENT, "KEY_INVALID", "a key of the store has 1 to %u bytes of UTF-8",
                                  VP_STORE_KEY_MAX);
    }
    return !txn->error;
}

void vp_txn_compare(VpTxn *txn, const char *key, gint64 mod_revision)
{
    if (!txn_check_key(txn, key) || !txn_account(txn, strlen(key) + sizeof(VpTxnCompare))) {
        return;
    }
    const VpTxnCompare compare = {.key = g_strdup(key), .mod_revision = mod_revision};

    g_array_append_val(txn->compares, compare);
}

void vp_txn_put(VpTxn *txn, const char *key, GBytes *value)
{
    if (!txn_check_key(txn, key)) {
        return;
    }
    if (g_bytes_get_size(value) > VP_STORE_VALUE_MAX) {
        txn->error = vp_error_new(VP_INVALID_ARGUMENT, "VALUE_TOO_LARGE",
                                  "'%s' would have %zu bytes; the store keeps at most %u", key, g_bytes_get_size(value),
                                  VP_STORE_VALUE_MAX);
        return;
    }
    if (!txn_account(txn, strlen(key) + g_bytes_get_size(value) + sizeof(VpTxnChange))) {
        return;
    }
    const VpTxnChange change = {.key = g_strdup(key), .value = g_bytes_ref(value)};

    g_array_append_val(txn->changes, change);
}

void vp_txn_delete(VpTxn *txn, const char *key)
{
    if (!txn_check_key(txn, key) || !txn_account(txn, strlen(key) + sizeof(VpTxnChange))) {
        return;
    }
    const VpTxnChange change = {.key = g_strdup(key)};

    g_array_append_val(txn->changes, change);
}

void vp_txn_event(VpTxn *txn, const PbEvent *event)
{
    const gsize size = pb_event__get_packed_size(event);

    if (!txn->error && size > VP_STORE_EVENT_MAX) {
        txn->error = vp_error_new(VP_INVALID_ARGUMENT, "EVENT_TOO_LARGE",
                                  "an event about %s '%.256s' would have %zu bytes; the journal keeps at most %u",
                                  event->resource_type, event->name, size, VP_STORE_EVENT_MAX);
    }
    if (txn_account(txn, size + sizeof(PbEvent))) {
        g_ptr_array_add(txn->events, vp_pb_dup(event));
    }
}
