/* Checks and defaults of a domain's model: see spec.h. */
#include "server/domains/spec.h"

#include <string.h>

#include "base/pb.h"

#define MIB (1024ULL * 1024)
#define DEFAULT_MEMORY_BYTES (512 * MIB)
#define MAX_LABEL_BYTES 16384

static VpError *add_violation(VpError *error, const char *field, const char *what)
{
    if (!error)
        error = vp_error_new(VP_INVALID_ARGUMENT, "INVALID_SPEC", "%s %s", field, what);
    return vp_error_violation(error, field, "%s", what);
}

static gboolean valid_mac(const char *mac)
{
    if (strlen(mac) != 17)
        return FALSE;
    for (guint i = 0; i < 17; i++) {
        if (i % 3 == 2 ? mac[i] != ':' : !g_ascii_isxdigit(mac[i]))
            return FALSE;
    }
    /* The lowest bit of the first byte marks a multicast address. */
    return !(g_ascii_xdigit_value(mac[1]) & 1);
}

/* The device name number `n` of a bus: "vda" to "vdz", then "vdaa". */
static char *target_name(PbDiskBus bus, guint n)
{
    const char *prefix = bus == PB_DISK_BUS_VIRTIO ? "vd" : "sd";

    if (n < 26)
        return g_strdup_printf("%s%c", prefix, (char)('a' + n));
    return g_strdup_printf("%s%c%c", prefix, (char)('a' + n / 26 - 1), (char)('a' + n % 26));
}

/* Names a disk by its place, or by the first place after it that no other disk has. The contract takes 64 disks, and two letters give 702 names. */
static void name_disk(PbDisk *disk, guint place, GHashTable *targets)
{
    do {
        g_autofree char *target = target_name(disk->bus, place++);

        vp_pb_set(&disk->target, target);
    } while (g_hash_table_contains(targets, disk->target));
    g_hash_table_add(targets, disk->target);
}

static VpError *complete_disks(PbDomainSpec *spec, VpError *error)
{
    g_autoptr(GHashTable) targets = g_hash_table_new(g_str_hash, g_str_equal);

    for (size_t i = 0; i < spec->n_disks; i++) {
        PbDisk *disk = spec->disks[i];
        g_autofree char *path_field = g_strdup_printf("domain.spec.disks[%zu].path", i);
        g_autofree char *target_field = g_strdup_printf("domain.spec.disks[%zu].target", i);

        const gboolean cdrom = disk->device == PB_DISK_DEVICE_CDROM;

        if (disk->path[0] == '\0' && !cdrom)
            error = add_violation(error, path_field, "must be set; a cd-rom drive alone may be empty");
        if (disk->bus == PB_DISK_BUS_UNSPECIFIED)
            disk->bus = cdrom ? PB_DISK_BUS_SATA : PB_DISK_BUS_VIRTIO;
        if (disk->target[0] && !g_hash_table_add(targets, disk->target))
            error = add_violation(error, target_field, "is that of another disk");
    }
    /* Only now, so that no name is made up that a later disk was given. */
    for (size_t i = 0; i < spec->n_disks; i++) {
        if (spec->disks[i]->target[0] == '\0')
            name_disk(spec->disks[i], (guint)i, targets);
    }
    return error;
}

static VpError *complete_interfaces(PbDomainSpec *spec, VpError *error)
{
    for (size_t i = 0; i < spec->n_interfaces; i++) {
        PbInterface *interface = spec->interfaces[i];
        g_autofree char *field = g_strdup_printf("domain.spec.interfaces[%zu].mac", i);

        if (interface->type == PB_INTERFACE_TYPE_UNSPECIFIED)
            interface->type = PB_INTERFACE_TYPE_USER;
        if (interface->model == PB_INTERFACE_MODEL_UNSPECIFIED)
            interface->model = PB_INTERFACE_MODEL_VIRTIO;
        if (interface->mac[0] == '\0')
            /* 52:54:00 is what QEMU's guests have by custom. */
            vp_pb_printf(&interface->mac, "52:54:00:%02x:%02x:%02x", (guint)g_random_int_range(0, 256),
                         (guint)g_random_int_range(0, 256), (guint)g_random_int_range(0, 256));
        else if (!valid_mac(interface->mac))
            error = add_violation(error, field, "must be a unicast MAC address as in 52:54:00:12:34:56");
    }
    return error;
}

/* On the wire a map may have a key twice, and the last value counts; for those who read it here it is kept once. */
static void unite_labels(PbDomain *domain)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    size_t kept = domain->n_labels;

    for (size_t i = domain->n_labels; i-- > 0;) {
        PbDomain__LabelsEntry *entry = domain->labels[i];

        if (g_hash_table_contains(seen, entry->key)) {
            vp_pb_free(entry);
            continue;
        }
        g_hash_table_add(seen, entry->key);
        domain->labels[--kept] = entry;
    }
    domain->n_labels -= kept;
    if (kept)
        memmove(domain->labels, domain->labels + kept, domain->n_labels * sizeof(PbDomain__LabelsEntry *));
}

/* Each event of a domain carries them. */
static VpError *check_labels(const PbDomain *domain, VpError *error)
{
    gsize bytes = 0;

    for (size_t i = 0; i < domain->n_labels; i++)
        bytes += strlen(domain->labels[i]->key) + strlen(domain->labels[i]->value);
    if (bytes <= MAX_LABEL_BYTES)
        return error;
    return add_violation(error, "domain.labels", "have more than 16384 bytes, keys and values together");
}

/* What may be done at such an end; nobody is asked for what the driver makes of it. */
static VpError *check_actions(const PbDomainSpec *spec, VpError *error)
{
    const struct {
        const char *field;
        PbLifecycleAction action;
        gboolean panic;
    } ends[] = {
        {"domain.spec.on_poweroff", spec->on_poweroff, FALSE},
        {"domain.spec.on_reboot", spec->on_reboot, FALSE},
        {"domain.spec.on_panic", spec->on_panic, TRUE},
        {"domain.spec.on_crash", spec->on_crash, FALSE},
    };
    const Google__Protobuf__Duration *within = spec->restart_limit ? spec->restart_limit->within : NULL;

    for (gsize i = 0; i < G_N_ELEMENTS(ends); i++) {
        if ((guint)ends[i].action > (ends[i].panic ? PB_LIFECYCLE_ACTION_IGNORE : PB_LIFECYCLE_ACTION_RESTART))
            error = add_violation(error, ends[i].field,
                                  ends[i].panic ? "is no action that is known" : "must be POWER_OFF or RESTART");
    }
    if (within && (within->seconds < 1 || within->seconds > 30LL * 24 * 60 * 60 || within->nanos < 0))
        error = add_violation(error, "domain.spec.restart_limit.within", "must be from 1 s to 30 days");
    return error;
}

static gboolean has_graphics(const PbDomainSpec *spec, PbGraphicsType type)
{
    for (size_t i = 0; i < spec->n_graphics; i++) {
        if (spec->graphics[i] == type)
            return TRUE;
    }
    return FALSE;
}

static VpError *check_tls_screens(const PbDomainSpec *spec, VpError *error)
{
    for (size_t i = 0; i < spec->n_tls_screens; i++) {
        const PbTlsScreen *screen = spec->tls_screens[i];
        g_autofree char *field = g_strdup_printf("domain.spec.tls_screens[%zu]", i);
        g_autofree char *type = g_strconcat(field, ".type", NULL);
        g_autofree char *address = g_strconcat(field, ".address", NULL);
        g_autofree char *port = g_strconcat(field, ".port", NULL);

        if (screen->type == PB_GRAPHICS_TYPE_UNSPECIFIED || !has_graphics(spec, screen->type))
            error = add_violation(error, type, "must be VNC or SPICE, and in domain.spec.graphics");
        if (i > 0 && screen->type == spec->tls_screens[0]->type)
            error = add_violation(error, type, "is there already");
        /* Names would have to be asked for, of whoever answers. */
        if (screen->address[0] && !g_hostname_is_ip_address(screen->address))
            error = add_violation(error, address, "must be an IP address of the host, as in 0.0.0.0 or ::1");
        /* Those are the host's own services'. */
        if (screen->port && screen->port < 1024)
            error = add_violation(error, port, "must be 0, or from 1024 on");
        if (i > 0 && screen->port && screen->port == spec->tls_screens[0]->port)
            error = add_violation(error, port, "is that of the other screen");
    }
    return error;
}

VpError *vp_spec_complete(PbDomain *domain)
{
    unite_labels(domain);
    VpError *error = check_labels(domain, NULL);

    if (domain->name[0] == '\0')
        error = add_violation(error, "domain.name", "must be set");
    if (!domain->spec || domain->spec->driver[0] == '\0')
        return add_violation(error, "domain.spec.driver", "must be set: \"qemu\" or \"test\"");

    PbDomainSpec *spec = domain->spec;
    if (domain->uid[0] == '\0') {
        g_autofree char *uid = g_uuid_string_random();
        vp_pb_set(&domain->uid, uid);
    }
    if (spec->vcpus == 0)
        spec->vcpus = 1;
    if (spec->memory_bytes == 0)
        spec->memory_bytes = DEFAULT_MEMORY_BYTES;
    if (spec->memory_bytes % MIB)
        error = add_violation(error, "domain.spec.memory_bytes", "must be a multiple of 1 MiB (1048576)");
    error = check_actions(spec, error);
    error = check_tls_screens(spec, error);
    error = complete_disks(spec, error);
    return complete_interfaces(spec, error);
}

/* ---- field masks ---- */

/* Swaps one field between two messages of a type, so that the draft owns the new value and `wanted` the old one. */
static void swap_field(ProtobufCMessage *a, ProtobufCMessage *b, const ProtobufCFieldDescriptor *field)
{
    guint8 tmp[16];
    size_t size = sizeof(void *);
    guint8 *x = (guint8 *)a + field->offset;
    guint8 *y = (guint8 *)b + field->offset;

    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t *n = (size_t *)((guint8 *)a + field->quantifier_offset);
        size_t *m = (size_t *)((guint8 *)b + field->quantifier_offset);
        const size_t count = *n;

        *n = *m;
        *m = count;
    } else if (field->type == PROTOBUF_C_TYPE_UINT32 || field->type == PROTOBUF_C_TYPE_INT32 ||
               field->type == PROTOBUF_C_TYPE_ENUM || field->type == PROTOBUF_C_TYPE_BOOL) {
        size = 4;
    } else if (field->type == PROTOBUF_C_TYPE_UINT64 || field->type == PROTOBUF_C_TYPE_INT64) {
        size = 8;
    } else if (field->type == PROTOBUF_C_TYPE_BYTES) {
        size = sizeof(ProtobufCBinaryData);
    }
    memcpy(tmp, x, size);
    memcpy(x, y, size);
    memcpy(y, tmp, size);
}

static VpError *unknown_path(const char *path)
{
    VpError *error = vp_error_new(VP_INVALID_ARGUMENT, "UNKNOWN_FIELD",
                                  "update_mask names \"%s\", which is no field that can be changed; "
                                  "\"labels\", \"autostart\", \"autostart_order\", \"spec\" and the fields of the "
                                  "spec, as in \"spec.vcpus\", can",
                                  path);
    return vp_error_violation(error, "update_mask", "\"%s\" cannot be changed", path);
}

static const ProtobufCFieldDescriptor *find_field(const char *path)
{
    static const char *const own[] = {"labels", "autostart", "autostart_order", "spec", NULL};

    if (g_strv_contains(own, path))
        return protobuf_c_message_descriptor_get_field_by_name(&pb_domain__descriptor, path);
    /* The driver says whose domain it is. */
    if (!g_str_has_prefix(path, "spec.") || g_str_equal(path, "spec.driver"))
        return NULL;
    return protobuf_c_message_descriptor_get_field_by_name(&pb_domain_spec__descriptor, path + strlen("spec."));
}

VpError *vp_spec_update(PbDomain *draft, const PbDomain *wanted, const Google__Protobuf__FieldMask *mask,
                        gboolean *ret_spec_changed)
{
    /* Each once, however often it is named. */
    g_autoptr(GHashTable) paths = g_hash_table_new(g_str_hash, g_str_equal);
    gboolean spec_changed = FALSE;

    if (!mask || mask->n_paths == 0)
        return vp_error_violation(vp_error_new(VP_INVALID_ARGUMENT, "INVALID_REQUEST",
                                               "update_mask is empty: name the fields to change"),
                                  "update_mask", "must be set");
    for (size_t i = 0; i < mask->n_paths; i++) {
        if (!find_field(mask->paths[i]))
            return unknown_path(mask->paths[i]);
        g_hash_table_add(paths, mask->paths[i]);
    }

    vp_pb_auto PbDomain *from = vp_pb_dup(wanted);
    const gboolean whole_spec = g_hash_table_contains(paths, "spec");
    if (!from->spec)
        from->spec = vp_pb_new(&pb_domain_spec__descriptor);
    vp_pb_set(&from->spec->driver, draft->spec->driver);

    GHashTableIter iter;
    gpointer key;
    g_hash_table_iter_init(&iter, paths);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        const char *path = key;
        const gboolean in_spec = g_str_has_prefix(path, "spec.");

        /* A note disturbs nobody. */
        if ((in_spec || g_str_equal(path, "spec")) && !g_str_equal(path, "spec.description"))
            spec_changed = TRUE;
        if (!in_spec)
            swap_field(&draft->base, &from->base, find_field(path));
        else if (!whole_spec) /* the whole includes its parts */
            swap_field(&draft->spec->base, &from->spec->base, find_field(path));
    }
    *ret_spec_changed = spec_changed;
    return NULL;
}
