/* What a client may ask of a domain: defaults, violations, and which fields an update takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/pb.h"
#include "server/domains/spec.h"

#define MIB (1024 * 1024)

static PbDomain *make(const char *name)
{
    PbDomain *domain = vp_pb_new(&pb_domain__descriptor);

    vp_pb_set(&domain->name, name);
    domain->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_set(&domain->spec->driver, "test");
    return domain;
}

static void add_disk(PbDomain *domain, const char *target, PbDiskBus bus)
{
    PbDisk *disk = vp_pb_new(&pb_disk__descriptor);

    vp_pb_set(&disk->path, "/images/a");
    vp_pb_set(&disk->target, target);
    disk->bus = bus;
    vp_pb_append(&domain->spec->n_disks, &domain->spec->disks, disk);
}

static void add_interface(PbDomain *domain, const char *mac)
{
    PbInterface *interface = vp_pb_new(&pb_interface__descriptor);

    vp_pb_set(&interface->mac, mac);
    vp_pb_append(&domain->spec->n_interfaces, &domain->spec->interfaces, interface);
}

static void add_label(PbDomain *domain, const char *key, const char *value)
{
    PbDomain__LabelsEntry *entry = vp_pb_new(&pb_domain__labels_entry__descriptor);

    vp_pb_set(&entry->key, key);
    vp_pb_set(&entry->value, value);
    vp_pb_append(&domain->n_labels, &domain->labels, entry);
}

static void completes(PbDomain *domain)
{
    g_autoptr(VpError) error = vp_spec_complete(domain);

    if (error)
        fail_msg("%s", error->message);
}

/* Refused, with violations of these fields, one after another. */
static void refuses(PbDomain *domain, const char *const *fields)
{
    g_autoptr(VpError) error = vp_spec_complete(domain);

    assert_non_null(error);
    assert_int_equal(error->code, VP_INVALID_ARGUMENT);
    assert_string_equal(error->reason, "INVALID_SPEC");
    assert_int_equal(error->violations->len, g_strv_length((char **)fields));
    for (guint i = 0; i < error->violations->len; i++)
        assert_string_equal(g_array_index(error->violations, VpErrorPair, i).key, fields[i]);
}

#define FIELDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- create ---- */

static void defaults(void **state)
{
    vp_pb_auto PbDomain *domain = make("web");

    (void)state;
    add_disk(domain, "", PB_DISK_BUS_UNSPECIFIED);
    add_interface(domain, "");
    completes(domain);
    assert_true(g_uuid_string_is_valid(domain->uid));
    assert_int_equal(domain->spec->vcpus, 1);
    assert_int_equal(domain->spec->memory_bytes, 512 * MIB);
    assert_int_equal(domain->spec->disks[0]->bus, PB_DISK_BUS_VIRTIO);
    assert_string_equal(domain->spec->disks[0]->target, "vda");
    assert_int_equal(domain->spec->interfaces[0]->type, PB_INTERFACE_TYPE_USER);
    assert_int_equal(domain->spec->interfaces[0]->model, PB_INTERFACE_MODEL_VIRTIO);
    assert_true(g_str_has_prefix(domain->spec->interfaces[0]->mac, "52:54:00:"));
    assert_int_equal(strlen(domain->spec->interfaces[0]->mac), 17);
}

static void what_is_set_stays(void **state)
{
    vp_pb_auto PbDomain *domain = make("web");

    (void)state;
    vp_pb_set(&domain->uid, "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e55");
    domain->spec->vcpus = 4;
    domain->spec->memory_bytes = 64 * MIB;
    add_disk(domain, "sdq", PB_DISK_BUS_SATA);
    add_interface(domain, "02:00:00:aB:cD:eF");
    vp_pb_auto PbDomain *before = vp_pb_dup(domain);
    before->spec->interfaces[0]->type = PB_INTERFACE_TYPE_USER;
    before->spec->interfaces[0]->model = PB_INTERFACE_MODEL_VIRTIO;
    completes(domain);
    g_autoptr(GBytes) expected = vp_pb_pack(before);
    g_autoptr(GBytes) got = vp_pb_pack(domain);
    assert_true(g_bytes_equal(expected, got));
    completes(domain);
    g_autoptr(GBytes) again = vp_pb_pack(domain);
    assert_true(g_bytes_equal(expected, again));
}

static void all_violations_are_told_at_once(void **state)
{
    vp_pb_auto PbDomain *domain = make("");
    vp_pb_auto PbDomain *nothing = vp_pb_new(&pb_domain__descriptor);

    (void)state;
    domain->spec->memory_bytes = MIB + 1;
    add_disk(domain, "vda", PB_DISK_BUS_VIRTIO);
    add_disk(domain, "vda", PB_DISK_BUS_VIRTIO);
    vp_pb_set(&domain->spec->disks[1]->path, "");
    add_interface(domain, "nonsense");
    refuses(domain, FIELDS("domain.name", "domain.spec.memory_bytes", "domain.spec.disks[1].path",
                           "domain.spec.disks[1].target", "domain.spec.interfaces[0].mac"));
    refuses(nothing, FIELDS("domain.name", "domain.spec.driver"));
}

static void mac_addresses(void **state)
{
    static const char *const wrong[] = {"52:54:00:12:34",    "52:54:00:12:34:56:", "52-54-00-12-34-56",
                                        "52:54:00:12:34:5g", "53:54:00:12:34:56",  "ff:ff:ff:ff:ff:ff",
                                        "52:54: 0:12:34:56", "52:54:+0:12:34:56",  "52:54:0x:12:34:56",
                                        " 2:54:00:12:34:56", "52:54:00:12:34: 6",  "525:4:00:12:34:56"};
    static const char *const right[] = {"52:54:00:12:34:56", "FE:ff:FF:ff:ff:ff", "00:00:00:00:00:01"};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(wrong); i++) {
        vp_pb_auto PbDomain *domain = make("web");

        add_interface(domain, "");
        add_interface(domain, wrong[i]);
        refuses(domain, FIELDS("domain.spec.interfaces[1].mac"));
    }
    for (gsize i = 0; i < G_N_ELEMENTS(right); i++) {
        vp_pb_auto PbDomain *domain = make("web");

        add_interface(domain, right[i]);
        completes(domain);
        assert_string_equal(domain->spec->interfaces[0]->mac, right[i]);
    }
}

static void expect_unique_targets(const PbDomain *domain)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (size_t i = 0; i < domain->spec->n_disks; i++)
        assert_true(g_hash_table_add(seen, domain->spec->disks[i]->target));
}

/* The contract takes 64 disks: each of them has a name, beyond "vdz" too. */
static void as_many_disks_as_the_contract_takes(void **state)
{
    vp_pb_auto PbDomain *domain = make("web");

    (void)state;
    for (guint i = 0; i < 64; i++)
        add_disk(domain, "", PB_DISK_BUS_UNSPECIFIED);
    completes(domain);
    expect_unique_targets(domain);
    assert_string_equal(domain->spec->disks[0]->target, "vda");
    assert_string_equal(domain->spec->disks[25]->target, "vdz");
    assert_string_equal(domain->spec->disks[26]->target, "vdaa");
    assert_string_equal(domain->spec->disks[63]->target, "vdbl");
}

/* A name that a client gave to one disk is not made up for another. */
static void made_targets_keep_clear_of_given_ones(void **state)
{
    vp_pb_auto PbDomain *domain = make("web");

    (void)state;
    add_disk(domain, "vdb", PB_DISK_BUS_VIRTIO);
    add_disk(domain, "", PB_DISK_BUS_VIRTIO);
    add_disk(domain, "", PB_DISK_BUS_SATA);
    add_disk(domain, "", PB_DISK_BUS_VIRTIO);
    add_disk(domain, "vda", PB_DISK_BUS_VIRTIO);
    completes(domain);
    expect_unique_targets(domain);
    assert_string_equal(domain->spec->disks[0]->target, "vdb");
    assert_string_equal(domain->spec->disks[4]->target, "vda");
    assert_true(g_str_has_prefix(domain->spec->disks[1]->target, "vd"));
    assert_true(g_str_has_prefix(domain->spec->disks[2]->target, "sd"));
}

/* On the wire a map may have a key twice; the last value is the one that counts, for every reader. */
static void a_label_given_twice_is_kept_once(void **state)
{
    vp_pb_auto PbDomain *domain = make("web");

    (void)state;
    add_label(domain, "tier", "first");
    add_label(domain, "other", "x");
    add_label(domain, "tier", "second");
    add_label(domain, "tier", "third");
    completes(domain);
    assert_int_equal(domain->n_labels, 2);
    for (size_t i = 0; i < 2; i++) {
        const PbDomain__LabelsEntry *entry = domain->labels[i];

        assert_string_equal(entry->value, strcmp(entry->key, "tier") == 0 ? "third" : "x");
    }
}

/* ---- update ---- */

static VpError *update(PbDomain *draft, const PbDomain *wanted, const char *const *paths, gboolean *ret_spec_changed)
{
    vp_pb_auto Google__Protobuf__FieldMask *mask = vp_pb_new(&google__protobuf__field_mask__descriptor);

    for (; *paths; paths++)
        vp_pb_append(&mask->n_paths, &mask->paths, g_strdup(*paths));
    return vp_spec_update(draft, wanted, mask, ret_spec_changed);
}

static void takes(PbDomain *draft, const PbDomain *wanted, const char *const *paths, gboolean spec_changed)
{
    gboolean changed = !spec_changed;
    g_autoptr(VpError) error = update(draft, wanted, paths, &changed);

    if (error)
        fail_msg("%s", error->message);
    assert_int_equal(changed, spec_changed);
}

/* A domain with everything, and one that wants everything else. */
static PbDomain *present(void)
{
    PbDomain *domain = make("web");

    domain->spec->vcpus = 2;
    domain->spec->memory_bytes = 64 * MIB;
    vp_pb_set(&domain->spec->description, "before");
    add_disk(domain, "vda", PB_DISK_BUS_VIRTIO);
    add_label(domain, "tier", "web");
    return domain;
}

static PbDomain *wish(void)
{
    PbDomain *domain = make("web");

    vp_pb_set(&domain->spec->driver, "qemu");
    domain->spec->vcpus = 8;
    domain->spec->memory_bytes = 128 * MIB;
    domain->spec->accelerator = PB_ACCELERATOR_TCG;
    vp_pb_set(&domain->spec->description, "after");
    add_disk(domain, "vdx", PB_DISK_BUS_VIRTIO);
    add_disk(domain, "vdy", PB_DISK_BUS_VIRTIO);
    add_label(domain, "tier", "db");
    add_label(domain, "more", "1");
    return domain;
}

static void only_what_the_mask_names(void **state)
{
    vp_pb_auto PbDomain *draft = present();
    vp_pb_auto PbDomain *wanted = wish();

    (void)state;
    takes(draft, wanted, FIELDS("spec.vcpus", "spec.disks"), TRUE);
    assert_int_equal(draft->spec->vcpus, 8);
    assert_int_equal(draft->spec->n_disks, 2);
    assert_string_equal(draft->spec->disks[1]->target, "vdy");
    assert_int_equal(draft->spec->memory_bytes, 64 * MIB);
    assert_string_equal(draft->spec->description, "before");
    assert_int_equal(draft->n_labels, 1);
    /* What is wanted is left as it was. */
    assert_int_equal(wanted->spec->n_disks, 2);
    assert_int_equal(wanted->spec->vcpus, 8);
}

static void each_field_of_the_spec(void **state)
{
    vp_pb_auto PbDomain *draft = present();
    vp_pb_auto PbDomain *wanted = wish();

    (void)state;
    takes(draft, wanted,
          FIELDS("spec.memory_bytes", "spec.accelerator", "spec.interfaces", "spec.machine", "spec.description"), TRUE);
    assert_int_equal(draft->spec->memory_bytes, 128 * MIB);
    assert_int_equal(draft->spec->accelerator, PB_ACCELERATOR_TCG);
    assert_string_equal(draft->spec->description, "after");
}

static void a_note_and_labels_disturb_no_running_domain(void **state)
{
    vp_pb_auto PbDomain *draft = present();
    vp_pb_auto PbDomain *wanted = wish();

    (void)state;
    takes(draft, wanted, FIELDS("labels", "spec.description"), FALSE);
    assert_int_equal(draft->n_labels, 2);
    assert_string_equal(draft->spec->description, "after");
    assert_int_equal(draft->spec->vcpus, 2);
}

static void the_whole_spec_keeps_the_driver(void **state)
{
    vp_pb_auto PbDomain *draft = present();
    vp_pb_auto PbDomain *wanted = wish();
    vp_pb_auto PbDomain *without = make("web");

    (void)state;
    takes(draft, wanted, FIELDS("spec"), TRUE);
    assert_string_equal(draft->spec->driver, "test");
    assert_int_equal(draft->spec->vcpus, 8);
    /* A spec that is not there is an empty one. */
    vp_pb_free(without->spec);
    without->spec = NULL;
    takes(draft, without, FIELDS("spec"), TRUE);
    assert_string_equal(draft->spec->driver, "test");
    assert_int_equal(draft->spec->n_disks, 0);
    assert_int_equal(draft->spec->vcpus, 0);
}

static void the_whole_includes_its_parts(void **state)
{
    const char *const *const masks[] = {
        FIELDS("spec", "spec.vcpus"),
        FIELDS("spec.vcpus", "spec"),
        FIELDS("spec.vcpus", "spec", "spec.disks", "spec.description"),
    };

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(masks); i++) {
        vp_pb_auto PbDomain *draft = present();
        vp_pb_auto PbDomain *wanted = wish();

        takes(draft, wanted, masks[i], TRUE);
        assert_int_equal(draft->spec->vcpus, 8);
        assert_int_equal(draft->spec->n_disks, 2);
        assert_string_equal(draft->spec->description, "after");
    }
}

static void a_path_named_twice_is_taken_once(void **state)
{
    vp_pb_auto PbDomain *draft = present();
    vp_pb_auto PbDomain *wanted = wish();

    (void)state;
    takes(draft, wanted, FIELDS("spec.vcpus", "labels", "spec.vcpus", "labels"), TRUE);
    assert_int_equal(draft->spec->vcpus, 8);
    assert_int_equal(draft->n_labels, 2);
    takes(draft, wanted, FIELDS("spec", "spec"), TRUE);
    assert_int_equal(draft->spec->n_disks, 2);
}

/* Refused as a whole: nothing was taken. */
static void unknown_paths(void **state)
{
    static const char *const paths[] = {"",
                                        "*",
                                        "name",
                                        "uid",
                                        "status",
                                        "status.state",
                                        "revision",
                                        "create_time",
                                        "spec.",
                                        "spec.x",
                                        "Spec",
                                        "spec.vcpus ",
                                        "spec.disks.path",
                                        "labels.tier",
                                        "spec.disks[0]",
                                        "domain.spec",
                                        "spec.driver"};
    vp_pb_auto PbDomain *draft = present();
    vp_pb_auto PbDomain *wanted = wish();
    g_autoptr(GBytes) before = vp_pb_pack(draft);

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(paths); i++) {
        gboolean changed;
        g_autoptr(VpError) error = update(draft, wanted, FIELDS("spec.vcpus", paths[i]), &changed);
        g_autoptr(GBytes) after = vp_pb_pack(draft);

        assert_non_null(error);
        assert_int_equal(error->code, VP_INVALID_ARGUMENT);
        assert_string_equal(error->reason, "UNKNOWN_FIELD");
        assert_string_equal(g_array_index(error->violations, VpErrorPair, 0).key, "update_mask");
        assert_true(g_bytes_equal(before, after));
    }
}

static void an_empty_mask(void **state)
{
    vp_pb_auto PbDomain *draft = present();
    vp_pb_auto PbDomain *wanted = wish();
    gboolean changed;
    g_autoptr(VpError) none = vp_spec_update(draft, wanted, NULL, &changed);
    g_autoptr(VpError) empty = update(draft, wanted, (const char *const[]){NULL}, &changed);

    (void)state;
    assert_int_equal(none->code, VP_INVALID_ARGUMENT);
    assert_int_equal(empty->code, VP_INVALID_ARGUMENT);
    assert_string_equal(g_array_index(empty->violations, VpErrorPair, 0).key, "update_mask");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(what_is_set_stays),
        cmocka_unit_test(all_violations_are_told_at_once),
        cmocka_unit_test(mac_addresses),
        cmocka_unit_test(as_many_disks_as_the_contract_takes),
        cmocka_unit_test(made_targets_keep_clear_of_given_ones),
        cmocka_unit_test(a_label_given_twice_is_kept_once),
        cmocka_unit_test(only_what_the_mask_names),
        cmocka_unit_test(each_field_of_the_spec),
        cmocka_unit_test(a_note_and_labels_disturb_no_running_domain),
        cmocka_unit_test(the_whole_spec_keeps_the_driver),
        cmocka_unit_test(the_whole_includes_its_parts),
        cmocka_unit_test(a_path_named_twice_is_taken_once),
        cmocka_unit_test(unknown_paths),
        cmocka_unit_test(an_empty_mask),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
