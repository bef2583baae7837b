/* --disk, --interface, --label, and the names that disks get. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/pb.h"
#include "clients/cli/device_option.h"
#include "clients/cli/machine_option.h"

static void reads_disks(void **state)
{
    (void)state;
    VpError *error = NULL;
    vp_pb_auto PbDisk *plain = vp_disk_parse("web.qcow2", "/images", &error);
    vp_pb_auto PbDisk *full =
        vp_disk_parse("path=/a,,b,format=qcow2,target=sdb,bus=scsi,readonly,write-threshold=2G", "/images", &error);
    vp_pb_auto PbDisk *odd = vp_disk_parse("./path=x,,,format=raw", "/images", &error);

    assert_null(error);
    assert_string_equal(plain->path, "/images/web.qcow2");
    assert_int_equal(plain->format, PB_IMAGE_FORMAT_UNSPECIFIED);
    assert_false(plain->read_only);
    assert_string_equal(full->path, "/a,b");
    assert_int_equal(full->format, PB_IMAGE_FORMAT_QCOW2);
    assert_int_equal(full->bus, PB_DISK_BUS_SCSI);
    assert_string_equal(full->target, "sdb");
    assert_true(full->read_only);
    assert_int_equal(full->write_threshold_bytes, 2ULL << 30);
    assert_string_equal(odd->path, "/images/path=x,");
    assert_int_equal(odd->format, PB_IMAGE_FORMAT_RAW);
}

static void refuses_disks(void **state)
{
    (void)state;
    static const char *const cases[] = {"",
                                        ",format=raw",
                                        "path=",
                                        "a,format=exe",
                                        "a,size=3",
                                        "a,",
                                        "a,bus=ide",
                                        "a,write-threshold=",
                                        "a,write-threshold=0"};

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(VpError) error = NULL;

        if (vp_disk_parse(cases[i], "/images", &error))
            fail_msg("taken: %s", cases[i]);
        assert_int_equal(error->code, VP_INVALID_ARGUMENT);
    }
}

static void names_targets(void **state)
{
    (void)state;
    static const char *const given[] = {"a,target=vdb", "b", "c", "d,bus=sata", "e,bus=nvme", "f"};
    static const char *const wanted[] = {"vdb", "vda", "vdc", "sda", "nvme0n1", "vdd"};
    vp_pb_auto PbDomainSpec *spec = vp_pb_new(&pb_domain_spec__descriptor);
    VpError *error = NULL;

    for (gsize i = 0; i < G_N_ELEMENTS(given); i++)
        vp_pb_append(&spec->n_disks, &spec->disks, vp_disk_parse(given[i], "/", &error));
    vp_disk_name_targets(spec);
    for (gsize i = 0; i < G_N_ELEMENTS(given); i++)
        assert_string_equal(spec->disks[i]->target, wanted[i]);
}

static void names_many_targets(void **state)
{
    (void)state;
    vp_pb_auto PbDomainSpec *spec = vp_pb_new(&pb_domain_spec__descriptor);
    VpError *error = NULL;

    for (int i = 0; i < 28; i++)
        vp_pb_append(&spec->n_disks, &spec->disks, vp_disk_parse("d", "/", &error));
    vp_disk_name_targets(spec);
    assert_string_equal(spec->disks[25]->target, "vdz");
    assert_string_equal(spec->disks[26]->target, "vdaa");
    assert_string_equal(spec->disks[27]->target, "vdab");
}

static void reads_interfaces(void **state)
{
    (void)state;
    VpError *error = NULL;
    vp_pb_auto PbInterface *interface = vp_interface_parse("user,model=e1000,mac=52:54:00:12:34:56", &error);

    assert_null(error);
    assert_int_equal(interface->type, PB_INTERFACE_TYPE_USER);
    assert_int_equal(interface->model, PB_INTERFACE_MODEL_E1000);
    assert_string_equal(interface->mac, "52:54:00:12:34:56");
    assert_null(vp_interface_parse("bridge9", &error));
    vp_error_free(error);
    assert_null(vp_interface_parse("user,mtu=9000", &error));
    vp_error_free(error);
}

static void keeps_labels(void **state)
{
    (void)state;
    vp_pb_auto PbDomain *domain = vp_pb_new(&pb_domain__descriptor);

    assert_null(vp_label_parse(domain, "a=1"));
    assert_null(vp_label_parse(domain, "b=x=y"));
    assert_null(vp_label_parse(domain, "a="));
    assert_int_equal(domain->n_labels, 2);
    assert_string_equal(domain->labels[0]->key, "b");
    assert_string_equal(domain->labels[0]->value, "x=y");
    assert_string_equal(domain->labels[1]->value, "");
    vp_label_remove(domain, "b");
    vp_label_remove(domain, "none");
    assert_int_equal(domain->n_labels, 1);
    g_autoptr(VpError) without = vp_label_parse(domain, "novalue");
    g_autoptr(VpError) keyless = vp_label_parse(domain, "=v");
    assert_non_null(without);
    assert_non_null(keyless);
}

static void reads_machines(void **state)
{
    (void)state;
    vp_pb_auto PbDomainSpec *spec = vp_pb_new(&pb_domain_spec__descriptor);

    assert_null(vp_cpu_parse(spec, "EPYC,+aes,-avx2,cores=2,max=4"));
    assert_string_equal(spec->cpu->model, "EPYC");
    assert_int_equal(spec->cpu->n_features, 2);
    assert_string_equal(spec->cpu->features[1]->name, "avx2");
    assert_true(spec->cpu->features[1]->disabled);
    assert_int_equal(spec->cpu->cores, 2);
    assert_int_equal(spec->cpu->max_vcpus, 4);
    assert_null(vp_firmware_parse(spec, "uefi-secure"));
    assert_int_equal(spec->firmware->type, PB_FIRMWARE_TYPE_UEFI);
    assert_true(spec->firmware->secure_boot);
    vp_cdrom_add(spec, "tools.iso", "/images");
    vp_cdrom_add(spec, "", "/images");
    assert_string_equal(spec->disks[0]->path, "/images/tools.iso");
    assert_string_equal(spec->disks[1]->path, "");
    assert_int_equal(spec->disks[1]->device, PB_DISK_DEVICE_CDROM);
    vp_kernel_set(spec, "vmlinuz", NULL, "quiet", "/boot");
    assert_string_equal(spec->kernel->kernel_path, "/boot/vmlinuz");
    assert_string_equal(spec->kernel->command_line, "quiet");
}

static void refuses_machines(void **state)
{
    (void)state;
    static const char *const cpus[] = {"EPYC,aes", "EPYC,cores=0", "EPYC,cores=x", "EPYC,+", "EPYC,"};
    vp_pb_auto PbDomainSpec *spec = vp_pb_new(&pb_domain_spec__descriptor);

    for (gsize i = 0; i < G_N_ELEMENTS(cpus); i++) {
        g_autoptr(VpError) error = vp_cpu_parse(spec, cpus[i]);

        if (!error)
            fail_msg("taken: %s", cpus[i]);
    }
    g_autoptr(VpError) error = vp_firmware_parse(spec, "UEFI2");
    assert_non_null(error);
    assert_null(spec->cpu);
    assert_null(spec->firmware);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_disks),      cmocka_unit_test(refuses_disks),    cmocka_unit_test(names_targets),
        cmocka_unit_test(reads_machines),   cmocka_unit_test(refuses_machines), cmocka_unit_test(names_many_targets),
        cmocka_unit_test(reads_interfaces), cmocka_unit_test(keeps_labels),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
