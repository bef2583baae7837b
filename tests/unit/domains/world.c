/* See world.h. */
#include "world.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"

const VpDomainCaller alice = {.identity = "uid:1", .text = "alice", .request_id = ""};

static void world_start(World *world)
{
    const VpStoreOptions store_options = {.dir = world->dir};
    VpError *error = NULL;

    world->store = vp_store_open_sqlite(&store_options, &error);
    assert_null(error);
    world->loop = vp_loop_new("loop", &error);
    assert_null(error);
    world->pool = vp_pool_new("worker", 3, 1000, &error);
    assert_null(error);
    world->slow_pool = vp_pool_new("slow", 1, 1000, &error);
    assert_null(error);
    world->jobs = vp_jobs_new(world->pool, world->loop, 100, 16);
    const VpDomainsOptions options = {
        .store = world->store,
        .jobs = world->jobs,
        .loop = world->loop,
        .pool = world->pool,
        .slow_pool = world->slow_pool,
        .config = world->config,
        .state_dir = world->dir,
        .run_dir = world->run_dir,
    };
    world->domains = vp_domains_new(&options, &error);
    assert_null(error);
}

static void world_stop(World *world)
{
    vp_jobs_free(world->jobs, vp_now_us() + SOON_US);
    vp_domains_free(world->domains);
    vp_pool_free(world->pool);
    vp_pool_free(world->slow_pool);
    vp_loop_free(world->loop);
    vp_store_close(world->store);
}

int world_setup(void **state)
{
    World *world = g_new0(World, 1);

    world->dir = g_dir_make_tmp("vp-domains-XXXXXX", NULL);
    world->run_dir = g_build_filename(world->dir, "run", NULL);
    world->config = g_key_file_new();
    world_start(world);
    *state = world;
    return 0;
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *child = g_build_filename(path, name, NULL);

        remove_tree(child);
    }
    g_remove(path);
}

int world_teardown(void **state)
{
    World *world = *state;

    world_stop(world);
    remove_tree(world->dir);
    g_key_file_unref(world->config);
    g_free(world->run_dir);
    g_free(world->dir);
    g_free(world);
    return 0;
}

void world_restart(World *world)
{
    world_stop(world);
    world_start(world);
}

/* ---- calls ---- */

struct Call {
    pthread_mutex_t mutex;
    pthread_cond_t told;
    Answer answer;
};

void answer_clear(Answer *answer)
{
    g_clear_pointer(&answer->error, vp_error_free);
    vp_pb_free(g_steal_pointer(&answer->domain));
    vp_pb_free(g_steal_pointer(&answer->operation));
}

Call *call_new(void)
{
    Call *call = g_new0(Call, 1);

    pthread_mutex_init(&call->mutex, NULL);
    vp_cond_init(&call->told);
    return call;
}

void call_done(void *data, const VpDomainResult *result)
{
    Call *call = data;

    VP_LOCK(&call->mutex);
    answer_clear(&call->answer);
    call->answer.error = vp_error_copy(result->error);
    call->answer.domain = vp_pb_dup(result->domain);
    call->answer.operation = vp_pb_dup(result->operation);
    call->answer.revision = result->revision;
    call->answer.times++;
    pthread_cond_broadcast(&call->told);
}

gboolean call_is_done(Call *call)
{
    VP_LOCK(&call->mutex);
    return call->answer.times > 0;
}

Answer call_wait(Call *call)
{
    const gint64 deadline_us = vp_now_us() + SOON_US;
    gboolean in_time = TRUE;

    pthread_mutex_lock(&call->mutex);
    while (call->answer.times == 0 && in_time)
        in_time = vp_cond_wait_until(&call->told, &call->mutex, deadline_us);
    const Answer answer = call->answer;
    pthread_mutex_unlock(&call->mutex);
    if (!in_time)
        fail_msg("a call was not answered");
    assert_int_equal(answer.times, 1);
    pthread_cond_destroy(&call->told);
    pthread_mutex_destroy(&call->mutex);
    g_free(call);
    return answer;
}

/* ---- requests ---- */

PbCreateDomainRequest *create_request(const char *name, const char *const *labels)
{
    PbCreateDomainRequest *request = vp_pb_new(&pb_create_domain_request__descriptor);

    request->domain = vp_pb_new(&pb_domain__descriptor);
    vp_pb_set(&request->domain->name, name);
    request->domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_set(&request->domain->spec->driver, "test");
    for (; *labels; labels++) {
        PbDomain__LabelsEntry *entry = vp_pb_new(&pb_domain__labels_entry__descriptor);
        g_auto(GStrv) parts = g_strsplit(*labels, "=", 2);

        vp_pb_set(&entry->key, parts[0]);
        vp_pb_set(&entry->value, parts[1]);
        vp_pb_append(&request->domain->n_labels, &request->domain->labels, entry);
    }
    return request;
}

static VpDomainCaller with_id(const char *request_id)
{
    VpDomainCaller caller = alice;

    caller.request_id = request_id;
    return caller;
}

Answer create_with(World *world, PbCreateDomainRequest *request, const char *request_id)
{
    const VpDomainCaller caller = with_id(request_id);
    Call *call = call_new();

    vp_domains_create(world->domains, request, &caller, call_done, call);
    return call_wait(call);
}

char *create(World *world, const char *name, const char *const *labels)
{
    vp_pb_auto PbCreateDomainRequest *request = create_request(name, labels);
    g_auto(Answer) answer = create_with(world, request, "");

    succeeded(&answer);
    return g_strdup(answer.domain->uid);
}

Answer update(World *world, const PbUpdateDomainRequest *request, const char *request_id)
{
    const VpDomainCaller caller = with_id(request_id);
    Call *call = call_new();

    vp_domains_update(world->domains, request, &caller, 0, call_done, call);
    return call_wait(call);
}

PbUpdateDomainRequest *update_request(const char *name, const char *const *paths)
{
    PbUpdateDomainRequest *request = vp_pb_new(&pb_update_domain_request__descriptor);

    request->domain = vp_pb_new(&pb_domain__descriptor);
    request->domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_set(&request->domain->name, name);
    request->update_mask = vp_pb_new(&google__protobuf__field_mask__descriptor);
    for (; *paths; paths++)
        vp_pb_append(&request->update_mask->n_paths, &request->update_mask->paths, g_strdup(*paths));
    return request;
}

Answer remove_domain(World *world, const char *name, gint64 revision, const char *request_id)
{
    const VpDomainCaller caller = with_id(request_id);
    PbDeleteDomainRequest request = PB_DELETE_DOMAIN_REQUEST__INIT;
    Call *call = call_new();

    request.name = (char *)name;
    request.revision = revision;
    vp_domains_delete(world->domains, &request, &caller, call_done, call);
    return call_wait(call);
}

Call *verb_begin(World *world, const VpVerbRequest *request)
{
    Call *call = call_new();

    vp_domains_verb(world->domains, request, &alice, call_done, call);
    return call;
}

Answer verb(World *world, VpVerb which, const char *name)
{
    const VpVerbRequest request = {.verb = which, .name = name};

    return call_wait(verb_begin(world, &request));
}

char *verb_no_wait(World *world, VpVerb which, const char *name)
{
    const VpVerbRequest request = {.verb = which, .name = name, .no_wait = TRUE};
    g_auto(Answer) answer = call_wait(verb_begin(world, &request));

    succeeded(&answer);
    assert_non_null(answer.operation);
    return g_strdup(answer.operation->uid);
}

/* ---- checks ---- */

void succeeded(const Answer *answer)
{
    if (answer->error)
        fail_msg("%s %s: %s", vp_code_name(answer->error->code), answer->error->reason, answer->error->message);
}

void failed(const Answer *answer, VpCode code, const char *reason)
{
    if (!answer->error)
        fail_msg("no error, where %s was expected", reason);
    if (answer->error->code != code || strcmp(answer->error->reason, reason) != 0)
        fail_msg("%s %s: %s; expected %s %s", vp_code_name(answer->error->code), answer->error->reason,
                 answer->error->message, vp_code_name(code), reason);
}

gint64 settled_revision(World *world)
{
    g_autoptr(VpError) error = NULL;
    const gint64 revision = vp_store_commit_wait(world->store, vp_txn_new(), &error);

    assert_null(error);
    return revision;
}

PbDomainState state_of(World *world, const char *name)
{
    VpError *error = NULL;
    g_autoptr(VpDomainView) view = vp_domains_get(world->domains, name, NULL, &error);

    assert_null(error);
    return view->domain->status->state;
}

void wait_state(World *world, const char *name, PbDomainState state)
{
    const gint64 deadline_us = vp_now_us() + SOON_US;

    while (state_of(world, name) != state) {
        if (vp_now_us() > deadline_us)
            fail_msg("%s did not become %s", name, vp_pb_enum_name(&pb_domain_state__descriptor, (int)state));
        usleep(500);
    }
}

PbOperation *wait_operation(World *world, const char *uid)
{
    const gint64 deadline_us = vp_now_us() + SOON_US;

    for (;;) {
        PbOperation *operation = vp_jobs_get_operation(world->jobs, uid);

        assert_non_null(operation);
        if (operation->state >= PB_OPERATION_STATE_SUCCEEDED)
            return operation;
        vp_pb_free(operation);
        if (vp_now_us() > deadline_us)
            fail_msg("the operation %s did not end", uid);
        usleep(500);
    }
}

char *events_of(World *world, const char *name)
{
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)vp_journal_entry_unref);
    g_autoptr(GString) text = g_string_new(NULL);
    gint64 next = 1;
    guint had;

    do {
        had = entries->len;
        g_autoptr(VpError) error = vp_store_read_journal(world->store, next, 1000, entries, &next);
        assert_null(error);
    } while (entries->len > had);
    for (guint i = 0; i < entries->len; i++) {
        const PbEvent *event = ((const VpJournalEntry *)entries->pdata[i])->event;

        if (strcmp(event->name, name) != 0)
            continue;
        const char *type = vp_pb_enum_name(&pb_event_type__descriptor, (int)event->type);
        g_string_append_printf(text, "%s%s", text->len ? " " : "", type + strlen("EVENT_TYPE_DOMAIN_"));
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}
