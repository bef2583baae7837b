/*
 * Everything at once on few domains: creates, updates, verbs, deletes, reads. Each call is answered once, and in the end memory, store and journal agree.
 * For the sanitizers.
 */
#include "world.h"

#include <string.h>

#include "base/thread.h"

#define THREADS 4
#define ROUNDS 150
#define NAMES 3

typedef struct Racer {
    World *world;
    guint64 random;
    guint unexpected;
    char *words;
} Racer;

static guint next_random(Racer *racer, guint limit)
{
    racer->random = racer->random * 6364136223846793005 + 1442695040888963407;
    return (guint)(racer->random >> 33) % limit;
}

/* Whatever happens is one of these. */
static void expected(Racer *racer, const Answer *answer)
{
    static const VpCode codes[] = {VP_ALREADY_EXISTS,      VP_ABORTED,   VP_NOT_FOUND,
                                   VP_FAILED_PRECONDITION, VP_CANCELLED, VP_RESOURCE_EXHAUSTED};

    if (!answer->error)
        return;
    for (gsize i = 0; i < G_N_ELEMENTS(codes); i++) {
        if (answer->error->code == codes[i])
            return;
    }
    racer->unexpected++;
    g_free(racer->words);
    racer->words = g_strdup(answer->error->message);
}

static Answer step(Racer *racer, const char *name)
{
    static const VpVerb verbs[] = {VP_VERB_START,     VP_VERB_PAUSE,     VP_VERB_RESUME,  VP_VERB_RESET,
                                   VP_VERB_POWER_OFF, VP_VERB_POWER_OFF, VP_VERB_SHUTDOWN};
    World *world = racer->world;

    switch (next_random(racer, 5)) {
    case 0: {
        vp_pb_auto PbCreateDomainRequest *request = create_request(name, LABELS("test.fault.start=delay:2"));
        return create_with(world, request, "");
    }
    case 1: {
        vp_pb_auto PbUpdateDomainRequest *request = update_request(name, LABELS("spec.description"));
        return update(world, request, "");
    }
    case 2:
        return remove_domain(world, name, 0, "");
    default:
        return verb(world, verbs[next_random(racer, G_N_ELEMENTS(verbs))], name);
    }
}

static void *race(void *data)
{
    Racer *racer = data;

    for (guint i = 0; i < ROUNDS; i++) {
        g_autofree char *name = g_strdup_printf("d%u", next_random(racer, NAMES));
        g_auto(Answer) answer = step(racer, name);
        g_autoptr(VpError) error = NULL;
        gboolean more = FALSE;

        expected(racer, &answer);
        g_autoptr(VpDomainView) view = vp_domains_get(racer->world->domains, name, NULL, &error);
        g_autoptr(GPtrArray) views = vp_domains_list(racer->world->domains, NULL, NULL, 10, &more);
    }
    return NULL;
}

static void everything_at_once(void **state)
{
    World *world = *state;
    Racer racers[THREADS];
    pthread_t threads[THREADS];

    for (guint i = 0; i < THREADS; i++) {
        racers[i] = (Racer){.world = world, .random = i + 1};
        assert_null(vp_thread_start(&threads[i], "racer", race, &racers[i]));
    }
    for (guint i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        if (racers[i].unexpected)
            fail_msg("%u unexpected errors, the last: %s", racers[i].unexpected, racers[i].words);
    }

    for (guint i = 0; i < NAMES; i++) {
        g_autofree char *name = g_strdup_printf("d%u", i);
        g_auto(Answer) off = verb(world, VP_VERB_POWER_OFF, name);
        g_autoptr(VpError) error = NULL;
        g_autofree char *events = events_of(world, name);
        g_autoptr(VpDomainView) view = vp_domains_get(world->domains, name, NULL, &error);

        if (view) {
            g_autofree char *key = g_strdup_printf("/domains/%s", view->domain->uid);
            VpKeyValue *kv = vp_store_get(world->store, key, &error);

            assert_non_null(kv);
            assert_int_equal(kv->mod_revision, view->domain->revision);
            assert_int_equal(view->domain->status->state, PB_DOMAIN_STATE_SHUTOFF);
            assert_false(g_str_has_suffix(events, "DELETED"));
            vp_key_value_free(kv);
        } else {
            assert_true(events[0] == '\0' || g_str_has_suffix(events, "DELETED"));
        }
        /* Between a create and the next of the same name there is a delete: nothing happens to what is deleted. */
        assert_null(strstr(events, "CREATED CREATED"));
        assert_null(strstr(events, "DELETED STARTING"));
        assert_null(strstr(events, "DELETED DELETED"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_at_once, world_setup, world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
