/* Lists: filters, the order of names, pages that neither miss nor repeat a domain that was there all the time. */
#include "world.h"

#include <string.h>

static void add_state(PbDomainFilter *filter, PbDomainState state)
{
    filter->states = g_realloc_n(filter->states, filter->n_states + 1, sizeof(filter->states[0]));
    filter->states[filter->n_states++] = state;
}

static void add_label(PbDomainFilter *filter, const char *key, const char *value)
{
    PbDomainFilter__LabelsEntry *entry = vp_pb_new(&pb_domain_filter__labels_entry__descriptor);

    vp_pb_set(&entry->key, key);
    vp_pb_set(&entry->value, value);
    vp_pb_append(&filter->n_labels, &filter->labels, entry);
}

static void lists(World *world, const PbDomainFilter *filter, const char *names)
{
    gboolean more = TRUE;
    g_autoptr(GPtrArray) views = vp_domains_list(world->domains, filter, NULL, 1000, &more);
    g_autoptr(GString) text = g_string_new(NULL);

    for (guint i = 0; i < views->len; i++)
        g_string_append_printf(text, "%s%s", i ? " " : "", ((const VpDomainView *)views->pdata[i])->domain->name);
    assert_string_equal(text->str, names);
    assert_false(more);
}

static void populate(World *world)
{
    static const struct {
        const char *name;
        const char *label;
    } domains[] = {{"web-2", "tier=web"},
                   {"db", "tier=db"},
                   {"web-1", "tier=web"},
                   {"Web", "tier=WEB"},
                   {"web-10", "tier=web"}};

    for (gsize i = 0; i < G_N_ELEMENTS(domains); i++)
        g_free(create(world, domains[i].name, LABELS(domains[i].label, "all=yes")));
    g_auto(Answer) started = verb(world, VP_VERB_START, "web-2");
    succeeded(&started);
}

static void filters(void **state)
{
    World *world = *state;
    vp_pb_auto PbDomainFilter *filter = vp_pb_new(&pb_domain_filter__descriptor);
    vp_pb_auto PbDomainFilter *names = vp_pb_new(&pb_domain_filter__descriptor);
    vp_pb_auto PbDomainFilter *labels = vp_pb_new(&pb_domain_filter__descriptor);
    vp_pb_auto PbDomainFilter *driver = vp_pb_new(&pb_domain_filter__descriptor);

    populate(world);
    lists(world, NULL, "Web db web-1 web-10 web-2");
    lists(world, filter, "Web db web-1 web-10 web-2");
    add_state(filter, PB_DOMAIN_STATE_RUNNING);
    lists(world, filter, "web-2");
    add_state(filter, PB_DOMAIN_STATE_SHUTOFF);
    lists(world, filter, "Web db web-1 web-10 web-2");

    vp_pb_append(&names->n_names, &names->names, g_strdup("web-?"));
    lists(world, names, "web-1 web-2");
    vp_pb_append(&names->n_names, &names->names, g_strdup("d*"));
    lists(world, names, "db web-1 web-2");

    add_label(labels, "tier", "web");
    lists(world, labels, "web-1 web-10 web-2");
    add_label(labels, "all", "yes");
    lists(world, labels, "web-1 web-10 web-2");
    add_state(labels, PB_DOMAIN_STATE_RUNNING);
    lists(world, labels, "web-2");
    add_label(labels, "all", "no");
    lists(world, labels, "");

    vp_pb_append(&driver->n_drivers, &driver->drivers, g_strdup("qemu"));
    lists(world, driver, "");
    vp_pb_append(&driver->n_drivers, &driver->drivers, g_strdup("test"));
    lists(world, driver, "Web db web-1 web-10 web-2");
}

static void pages(void **state)
{
    World *world = *state;
    g_autofree char *after = NULL;
    gboolean more = TRUE;
    guint seen = 0;

    for (guint i = 0; i < 25; i++) {
        g_autofree char *name = g_strdup_printf("d%02u", i);
        g_free(create(world, name, NO_LABELS));
    }
    while (more) {
        g_autoptr(GPtrArray) views = vp_domains_list(world->domains, NULL, after, 10, &more);

        assert_int_equal(views->len, seen < 20 ? 10 : 5);
        for (guint i = 0; i < views->len; i++, seen++) {
            g_autofree char *name = g_strdup_printf("d%02u", seen);

            g_free(after);
            after = g_strdup(((const VpDomainView *)views->pdata[i])->domain->name);
            assert_string_equal(after, name);
        }
        /* The one where the next page begins may go. */
        if (seen == 10) {
            g_auto(Answer) deleted = remove_domain(world, "d09", 0, "");
            succeeded(&deleted);
        }
    }
    assert_int_equal(seen, 25);
}

static void a_full_page_that_is_the_last(void **state)
{
    World *world = *state;
    gboolean more = TRUE;

    for (guint i = 0; i < 3; i++) {
        g_autofree char *name = g_strdup_printf("d%u", i);
        g_free(create(world, name, NO_LABELS));
    }
    g_autoptr(GPtrArray) all = vp_domains_list(world->domains, NULL, NULL, 3, &more);
    assert_int_equal(all->len, 3);
    assert_false(more);
    g_autoptr(GPtrArray) none = vp_domains_list(world->domains, NULL, "d2", 3, &more);
    assert_int_equal(none->len, 0);
    assert_false(more);
    g_autoptr(GPtrArray) two = vp_domains_list(world->domains, NULL, NULL, 2, &more);
    assert_int_equal(two->len, 2);
    assert_true(more);
}

/* Clients take 4 MiB: 20 domains with 64 disks of 4,000 characters each are more. */
static void a_page_of_large_domains(void **state)
{
    World *world = *state;
    g_autofree char *path = g_strnfill(4000, 'x');
    g_autofree char *after = NULL;
    gboolean more = TRUE;
    guint seen = 0;

    path[0] = '/';
    for (guint i = 0; i < 20; i++) {
        g_autofree char *name = g_strdup_printf("d%02u", i);
        vp_pb_auto PbCreateDomainRequest *request = create_request(name, NO_LABELS);

        for (guint d = 0; d < 64; d++) {
            PbDomainSpec *spec = request->domain->spec;
            PbDisk *disk = vp_pb_new(&pb_disk__descriptor);

            vp_pb_set(&disk->path, path);
            vp_pb_append(&spec->n_disks, &spec->disks, disk);
        }
        g_auto(Answer) created = create_with(world, request, "");
        succeeded(&created);
    }
    while (more) {
        g_autoptr(GPtrArray) views = vp_domains_list(world->domains, NULL, after, 1000, &more);
        gsize bytes = 0;

        assert_true(views->len > 0);
        for (guint i = 0; i < views->len; i++) {
            const VpDomainView *view = views->pdata[i];

            bytes += g_bytes_get_size(view->get_response);
            g_free(after);
            after = g_strdup(view->domain->name);
        }
        assert_true(bytes < 4 * 1024 * 1024 - 4096);
        seen += views->len;
    }
    assert_int_equal(seen, 20);
}

static gboolean can(const PbDriverCapabilities *driver, const char *method)
{
    for (size_t i = 0; i < driver->n_methods; i++) {
        if (strcmp(driver->methods[i], method) == 0)
            return TRUE;
    }
    return FALSE;
}

static void drivers_tell_what_they_can(void **state)
{
    World *world = *state;
    vp_pb_auto PbGetCapabilitiesResponse *response = vp_pb_new(&pb_get_capabilities_response__descriptor);
    const PbDriverCapabilities *test = NULL;

    vp_domains_capabilities(world->domains, response);
    for (size_t i = 0; i < response->n_drivers; i++) {
        if (strcmp(response->drivers[i]->name, "test") == 0)
            test = response->drivers[i];
    }
    assert_non_null(test);
    assert_true(test->available);
    assert_true(can(test, "StartDomain"));
    assert_true(can(test, "GetDomainStats"));
    assert_false(can(test, "MigrateDomain"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(filters, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(pages, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_full_page_that_is_the_last, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_page_of_large_domains, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(drivers_tell_what_they_can, world_setup, world_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
