/* Secrets: see secrets.h. "/secrets/UID" has a secret, "/secret-values/UID" its sealed value. Changes are made one after another. */
#include "server/secrets/secrets.h"

#include <pthread.h>
#include <string.h>

#include "base/pb.h"
#include "base/thread.h"
#include "server/domains/requests.h"
#include "server/store/owners.h"

#define PREFIX "/secrets/"
#define VALUES "/secret-values/"
#define DEFAULT_MAX_SECRETS 100000
#define MAX_LABELS_BYTES (16 * 1024)

typedef struct Record {
    PbSecret *secret;
    GBytes *sealed; /* NULL: no value */
} Record;

struct VpSecrets {
    VpStore *store;
    VpVault *vault;
    VpRequests *requests;
    VpOwners *owners;
    pthread_mutex_t changing; /* held over a whole change, the disk's part too */
    VpSecretUser user;        /* NULL: nobody uses any */
    void *user_data;

    pthread_mutex_t mutex; /* guards what follows */
    GTree *by_name;        /* name -> Record, which the table owns */
    GHashTable *by_uid;
};

static void record_free(gpointer data)
{
    Record *record = data;

    vp_pb_free(record->secret);
    if (record->sealed)
        g_bytes_unref(record->sealed);
    g_free(record);
}

static gint compare_names(gconstpointer a, gconstpointer b, gpointer data)
{
    (void)data;
    return strcmp(a, b);
}

/* ---- loading ---- */

static void insert(VpSecrets *secrets, Record *record)
{
    VP_LOCK(&secrets->mutex);
    g_tree_insert(secrets->by_name, record->secret->name, record);
    g_hash_table_insert(secrets->by_uid, record->secret->uid, record);
}

static VpError *load_values(VpSecrets *secrets)
{
    VpError *error = NULL;
    gboolean tried = FALSE;
    g_autoptr(GPtrArray) stored = vp_store_list(secrets->store, VALUES, NULL, 0, &error);

    for (guint i = 0; stored && i < stored->len; i++) {
        const VpKeyValue *kv = stored->pdata[i];
        const char *uid = kv->key + strlen(VALUES);
        Record *record = g_hash_table_lookup(secrets->by_uid, uid);

        if (!record)
            continue;
        record->sealed = g_bytes_ref(kv->value);
        /* With the wrong key nothing would work, and a new value would be sealed with it: better told now. */
        g_autoptr(VpSecretValue) value = tried ? NULL : vp_vault_open(secrets->vault, uid, kv->value, &error);
        tried = TRUE;
        if (error) {
            vp_error_free(error);
            return vp_error_new(VP_FAILED_PRECONDITION, "SECRETS_KEY",
                                "the secrets in the store were sealed with another key than the one that is set; "
                                "put the right one back ([secrets] key_file)");
        }
    }
    return error;
}

static VpError *load(VpSecrets *secrets)
{
    VpError *error = NULL;
    g_autoptr(GPtrArray) stored = vp_store_list(secrets->store, PREFIX, NULL, 0, &error);

    for (guint i = 0; stored && i < stored->len; i++) {
        const VpKeyValue *kv = stored->pdata[i];
        PbSecret *secret = vp_pb_unpack(&pb_secret__descriptor, kv->value);

        if (!secret)
            return vp_error_new(VP_DATA_LOSS, "STORE_CORRUPT",
                                "the stored secret %s cannot be read; restore the store from a backup", kv->key);
        secret->revision = kv->mod_revision;
        Record *record = g_new0(Record, 1);
        record->secret = secret;
        insert(secrets, record);
    }
    return error ? error : load_values(secrets);
}

VpSecrets *vp_secrets_new(const VpSecretsOptions *options, VpError **error)
{
    VpSecrets *secrets = g_new0(VpSecrets, 1);
    VpError *failure = NULL;

    secrets->store = options->store;
    pthread_mutex_init(&secrets->changing, NULL);
    pthread_mutex_init(&secrets->mutex, NULL);
    secrets->by_name = g_tree_new_full(compare_names, NULL, NULL, NULL);
    secrets->by_uid = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, record_free);
    secrets->vault = vp_vault_new(options->key_file, options->state_dir, &failure);
    const VpOwnersOptions owners = {.store = secrets->store,
                                    .prefix = "/secret-owners/",
                                    .reason = "TOO_MANY_SECRETS",
                                    .what = "secrets",
                                    .most = options->max_secrets ? options->max_secrets : DEFAULT_MAX_SECRETS};
    if (!failure)
        secrets->owners = vp_owners_new(&owners, &failure);
    if (!failure)
        secrets->requests = vp_requests_new(secrets->store, "/secret-requests/", VP_REQUESTS_KEEP_SECONDS, &failure);
    if (!failure)
        failure = load(secrets);
    if (failure) {
        *error = failure;
        vp_secrets_free(secrets);
        return NULL;
    }
    return secrets;
}

void vp_secrets_free(VpSecrets *secrets)
{
    if (!secrets)
        return;
    vp_requests_free(secrets->requests);
    vp_owners_free(secrets->owners);
    g_tree_unref(secrets->by_name);
    g_hash_table_unref(secrets->by_uid);
    vp_vault_free(secrets->vault);
    pthread_mutex_destroy(&secrets->mutex);
    pthread_mutex_destroy(&secrets->changing);
    g_free(secrets);
}

void vp_secrets_set_user(VpSecrets *secrets, VpSecretUser user, void *data)
{
    secrets->user = user;
    secrets->user_data = data;
}

/* ---- reading ---- */

static VpError *not_found(const char *name)
{
    return vp_error_with(vp_error_new(VP_NOT_FOUND, "SECRET_NOT_FOUND", "there is no secret %s", name), "secret", name);
}

/* Under the mutex; borrowed. */
static Record *find(VpSecrets *secrets, const char *name, const char *uid, VpError **error)
{
    Record *record = uid[0] ? g_hash_table_lookup(secrets->by_uid, uid) : g_tree_lookup(secrets->by_name, name);

    if (!name[0] && !uid[0])
        *error = vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                                 "say which secret: its name or its uid"),
                                    "name", "is empty, and so is uid");
    else if (!record || (name[0] && !g_str_equal(record->secret->name, name)))
        *error = not_found(name[0] ? name : uid);
    return *error ? NULL : record;
}

PbSecret *vp_secrets_get(VpSecrets *secrets, const char *name, const char *uid, VpError **error)
{
    VP_LOCK(&secrets->mutex);
    const Record *record = find(secrets, name, uid, error);
    return record ? vp_pb_dup(record->secret) : NULL;
}

static gboolean has_label(const PbSecret *secret, const char *key, const char *value)
{
    for (size_t i = 0; i < secret->n_labels; i++) {
        if (g_str_equal(secret->labels[i]->key, key) && g_str_equal(secret->labels[i]->value, value))
            return TRUE;
    }
    return FALSE;
}

static gboolean matches(const PbSecretFilter *filter, const PbSecret *secret)
{
    gboolean usage = !filter || filter->n_usages == 0;
    gboolean name = !filter || filter->n_names == 0;

    for (size_t i = 0; !usage && i < filter->n_usages; i++)
        usage = filter->usages[i] == secret->usage;
    for (size_t i = 0; !name && i < filter->n_names; i++)
        name = g_pattern_match_simple(filter->names[i], secret->name);
    for (size_t i = 0; filter && i < filter->n_labels; i++) {
        if (!has_label(secret, filter->labels[i]->key, filter->labels[i]->value))
            return FALSE;
    }
    return usage && name;
}

GPtrArray *vp_secrets_list(VpSecrets *secrets, const PbSecretFilter *filter, const char *after, guint limit,
                           gboolean *ret_more)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(vp_pb_free);

    *ret_more = FALSE;
    VP_LOCK(&secrets->mutex);
    GTreeNode *node = after ? g_tree_upper_bound(secrets->by_name, after) : g_tree_node_first(secrets->by_name);
    for (; node && !*ret_more; node = g_tree_node_next(node)) {
        const Record *record = g_tree_node_value(node);

        if (!matches(filter, record->secret))
            continue;
        if (list->len == limit)
            *ret_more = TRUE;
        else
            g_ptr_array_add(list, vp_pb_dup(record->secret));
    }
    return list;
}

VpSecretValue *vp_secrets_value(VpSecrets *secrets, const char *name, VpError **error)
{
    pthread_mutex_lock(&secrets->mutex);
    const Record *record = find(secrets, name, "", error);
    g_autoptr(GBytes) sealed = record && record->sealed ? g_bytes_ref(record->sealed) : NULL;
    g_autofree char *uid = record ? g_strdup(record->secret->uid) : NULL;
    pthread_mutex_unlock(&secrets->mutex);

    if (!record)
        return NULL;
    if (!sealed) {
        *error = vp_error_new(VP_FAILED_PRECONDITION, "SECRET_WITHOUT_VALUE", "the secret %s has no value yet; set one",
                              name);
        return NULL;
    }
    return vp_vault_open(secrets->vault, uid, sealed, error);
}

/* ---- changing; all under `changing` ---- */

static void add_event(VpTxn *txn, PbEventType type, const PbSecret *secret, const VpSecretCaller *caller)
{
    PbEvent event = PB_EVENT__INIT;

    event.type = type;
    event.resource_type = (char *)"secret";
    event.name = secret->name;
    event.uid = secret->uid;
    event.reason = (char *)"REQUESTED";
    event.detail = (char *)caller->text;
    /* Entries of maps have one shape; the journal has copies. */
    event.n_labels = secret->n_labels;
    g_autofree PbEvent__LabelsEntry *entries = g_new0(PbEvent__LabelsEntry, secret->n_labels + 1);
    g_autofree PbEvent__LabelsEntry **labels = g_new0(PbEvent__LabelsEntry *, secret->n_labels + 1);
    for (size_t i = 0; i < secret->n_labels; i++) {
        pb_event__labels_entry__init(&entries[i]);
        entries[i].key = secret->labels[i]->key;
        entries[i].value = secret->labels[i]->value;
        labels[i] = &entries[i];
    }
    event.labels = labels;
    vp_txn_event(txn, &event);
}

static char *key_of(const char *prefix, const PbSecret *secret)
{
    return g_strconcat(prefix, secret->uid, NULL);
}

/* The secret's row; of an ephemeral one the event alone. */
static void put_row(VpTxn *txn, const PbSecret *secret)
{
    g_autofree char *key = key_of(PREFIX, secret);
    g_autoptr(GBytes) packed = vp_pb_pack(secret);

    if (!secret->ephemeral)
        vp_txn_put(txn, key, packed);
}

/* Whether an earlier request with this id has done it: TRUE, with its outcome. */
static gboolean was_done(VpSecrets *secrets, const VpSecretCaller *caller, const char *id, const char *fingerprint,
                         char **ret_uid, gint64 *ret_revision, VpError **error)
{
    return vp_requests_find(secrets->requests, caller->identity, id, fingerprint, ret_uid, ret_revision, error);
}

static char *fingerprint_of(const VpSecrets *secrets, const void *message)
{
    GBytes *packed = vp_pb_pack(message);
    char *fingerprint = vp_vault_fingerprint(secrets->vault, packed);
    gsize size;
    gpointer bytes = g_bytes_unref_to_data(packed, &size);

    /* It may hold a value. */
    explicit_bzero(bytes, size);
    g_free(bytes);
    return fingerprint;
}

static VpError *check_new(VpSecrets *secrets, const PbCreateSecretRequest *request)
{
    const PbSecret *wanted = request->secret;
    gsize bytes = 0;

    if (!wanted || !wanted->name[0])
        return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST", "a secret needs a name"),
                                  "secret.name", "is empty");
    for (size_t i = 0; i < wanted->n_labels; i++)
        bytes += strlen(wanted->labels[i]->key) + strlen(wanted->labels[i]->value);
    if (bytes > MAX_LABELS_BYTES)
        return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                               "the labels have more than %d bytes", MAX_LABELS_BYTES),
                                  "secret.labels", "have more than %d bytes", MAX_LABELS_BYTES);
    VP_LOCK(&secrets->mutex);
    if (g_tree_lookup(secrets->by_name, wanted->name))
        return vp_error_new(VP_ALREADY_EXISTS, "SECRET_EXISTS", "there is a secret %s already", wanted->name);
    if (wanted->uid[0] && g_hash_table_lookup(secrets->by_uid, wanted->uid))
        return vp_error_new(VP_ALREADY_EXISTS, "SECRET_EXISTS", "there is a secret with the uid %s already",
                            wanted->uid);
    return NULL;
}

static PbSecret *secret_of(const PbSecret *wanted)
{
    PbSecret *secret = vp_pb_dup(wanted);

    if (!secret->uid[0]) {
        g_autofree char *uid = g_uuid_string_random();
        vp_pb_set(&secret->uid, uid);
    }
    secret->revision = 0;
    secret->has_value = FALSE;
    vp_pb_free(secret->value_time);
    secret->value_time = NULL;
    vp_pb_free(secret->create_time);
    secret->create_time = vp_pb_timestamp(vp_wall_us());
    return secret;
}

/* Commits a change of `record`'s secret and notes it; the request is answered for from now on. */
static gboolean commit(VpSecrets *secrets, VpTxn *txn, PbSecret *secret, const VpSecretCaller *caller, const char *id,
                       const char *fingerprint, VpError **error)
{
    vp_requests_add(secrets->requests, txn, caller->identity, id, fingerprint, secret->uid);
    const gint64 revision = vp_store_commit_wait(secrets->store, txn, error);
    if (!revision)
        return FALSE;
    secret->revision = revision;
    vp_requests_done(secrets->requests, caller->identity, id, fingerprint, secret->uid, revision);
    return TRUE;
}

static guint count_secrets(VpSecrets *secrets)
{
    VP_LOCK(&secrets->mutex);
    return g_hash_table_size(secrets->by_uid);
}

PbSecret *vp_secrets_create(VpSecrets *secrets, const PbCreateSecretRequest *request, const VpSecretCaller *caller,
                            VpError **error)
{
    g_autofree char *fingerprint = fingerprint_of(secrets, request);
    g_autofree char *uid = NULL;
    gint64 revision = 0;

    VP_LOCK(&secrets->changing);
    if (was_done(secrets, caller, request->request_id, fingerprint, &uid, &revision, error))
        return *error ? NULL : vp_secrets_get(secrets, "", uid, error);
    *error = check_new(secrets, request);
    if (*error)
        return NULL;
    vp_pb_auto PbSecret *secret = secret_of(request->secret);
    if (request->validate_only)
        return g_steal_pointer(&secret);
    *error = vp_owners_take(secrets->owners, caller->identity, caller->most_secrets, count_secrets(secrets));
    if (*error)
        return NULL;
    VpTxn *txn = vp_txn_new();
    put_row(txn, secret);
    if (!secret->ephemeral)
        vp_owners_add(txn, secrets->owners, secret->uid, caller->identity);
    add_event(txn, PB_EVENT_TYPE_SECRET_CREATED, secret, caller);
    if (!commit(secrets, txn, secret, caller, request->request_id, fingerprint, error)) {
        vp_owners_give_back(secrets->owners, caller->identity);
        return NULL;
    }
    vp_owners_added(secrets->owners, secret->uid, caller->identity);
    PbSecret *answer = vp_pb_dup(secret);
    Record *record = g_new0(Record, 1);
    record->secret = g_steal_pointer(&secret);
    insert(secrets, record);
    return answer;
}

static VpError *check_revision(const PbSecret *secret, gint64 expected)
{
    g_autofree char *present = g_strdup_printf("%" G_GINT64_FORMAT, secret->revision);

    if (!expected || expected == secret->revision)
        return NULL;
    return vp_error_with(vp_error_new(VP_ABORTED, "REVISION_CONFLICT",
                                      "the secret %s is at revision %s; read it again and retry", secret->name,
                                      present),
                         "revision", present);
}

PbSecret *vp_secrets_set_value(VpSecrets *secrets, const PbSetSecretValueRequest *request, const VpSecretCaller *caller,
                               VpError **error)
{
    g_autofree char *fingerprint = fingerprint_of(secrets, request);
    g_autofree char *uid = NULL;
    gint64 revision = 0;

    VP_LOCK(&secrets->changing);
    if (was_done(secrets, caller, request->request_id, fingerprint, &uid, &revision, error))
        return *error ? NULL : vp_secrets_get(secrets, "", uid, error);
    vp_pb_auto PbSecret *secret = vp_secrets_get(secrets, request->name, request->uid, error);
    if (!secret)
        return NULL;
    *error = check_revision(secret, request->revision);
    if (*error)
        return NULL;
    g_autoptr(GBytes) sealed =
        vp_vault_seal(secrets->vault, secret->uid, request->value.data, request->value.len, error);
    if (!sealed)
        return NULL;
    secret->has_value = TRUE;
    vp_pb_free(secret->value_time);
    secret->value_time = vp_pb_timestamp(vp_wall_us());
    VpTxn *txn = vp_txn_new();
    g_autofree char *key = key_of(VALUES, secret);
    put_row(txn, secret);
    if (!secret->ephemeral)
        vp_txn_put(txn, key, sealed);
    add_event(txn, PB_EVENT_TYPE_SECRET_VALUE_SET, secret, caller);
    if (!commit(secrets, txn, secret, caller, request->request_id, fingerprint, error))
        return NULL;

    VP_LOCK(&secrets->mutex);
    Record *record = g_hash_table_lookup(secrets->by_uid, secret->uid);
    if (record->sealed)
        g_bytes_unref(record->sealed);
    record->sealed = g_bytes_ref(sealed);
    record->secret->has_value = TRUE;
    record->secret->revision = secret->revision;
    vp_pb_free(record->secret->value_time);
    record->secret->value_time = vp_pb_dup(secret->value_time);
    return g_steal_pointer(&secret);
}

/* What names it would not work any more. */
static VpError *check_unused(const VpSecrets *secrets, const PbSecret *secret)
{
    g_autofree char *user = secrets->user ? secrets->user(secrets->user_data, secret->name) : NULL;

    if (!user)
        return NULL;
    return vp_error_with(vp_error_new(VP_FAILED_PRECONDITION, "SECRET_IN_USE",
                                      "the secret %s is used by %s; take it out there first", secret->name, user),
                         "user", user);
}

gint64 vp_secrets_delete(VpSecrets *secrets, const PbDeleteSecretRequest *request, const VpSecretCaller *caller,
                         VpError **error)
{
    g_autofree char *fingerprint = fingerprint_of(secrets, request);
    g_autofree char *uid = NULL;
    gint64 revision = 0;

    VP_LOCK(&secrets->changing);
    if (was_done(secrets, caller, request->request_id, fingerprint, &uid, &revision, error))
        return *error ? 0 : revision;
    vp_pb_auto PbSecret *secret = vp_secrets_get(secrets, request->name, request->uid, error);
    if (!secret)
        return 0;
    *error = check_revision(secret, request->revision);
    if (!*error)
        *error = check_unused(secrets, secret);
    if (*error)
        return 0;
    VpTxn *txn = vp_txn_new();
    g_autofree char *key = key_of(PREFIX, secret);
    g_autofree char *value_key = key_of(VALUES, secret);
    if (!secret->ephemeral) {
        vp_txn_delete(txn, key);
        vp_txn_delete(txn, value_key);
        vp_owners_remove(txn, secrets->owners, secret->uid);
    }
    add_event(txn, PB_EVENT_TYPE_SECRET_DELETED, secret, caller);
    if (!commit(secrets, txn, secret, caller, request->request_id, fingerprint, error))
        return 0;

    vp_owners_removed(secrets->owners, secret->uid);
    VP_LOCK(&secrets->mutex);
    g_tree_remove(secrets->by_name, secret->name);
    g_hash_table_remove(secrets->by_uid, secret->uid);
    return secret->revision;
}
