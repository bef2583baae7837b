/* See firmware.h. */
#include "firmware.h"

#include <jansson.h>
#include <string.h>

#define MAX_FILES 256
#define MAX_FILE_BYTES (64 * 1024)

static const char *const system_folders[] = {"/etc/qemu/firmware", "/usr/share/qemu/firmware", NULL};

void vp_firmware_clear(VpFirmware *firmware)
{
    g_clear_pointer(&firmware->code_path, g_free);
    g_clear_pointer(&firmware->template_path, g_free);
}

static gboolean contains(json_t *array, const char *text)
{
    size_t i;
    json_t *item;

    json_array_foreach(array, i, item)
    {
        if (g_strcmp0(json_string_value(item), text) == 0)
            return TRUE;
    }
    return FALSE;
}

static gboolean fits_target(json_t *root, const VpFirmwareWish *wish)
{
    size_t i;
    size_t j;
    json_t *target;
    json_t *machine;

    json_array_foreach(json_object_get(root, "targets"), i, target)
    {
        if (g_strcmp0(json_string_value(json_object_get(target, "architecture")), wish->architecture) != 0)
            continue;
        json_array_foreach(json_object_get(target, "machines"), j, machine)
        {
            const char *pattern = json_string_value(machine);

            if (pattern && g_pattern_match_simple(pattern, wish->machine))
                return TRUE;
        }
    }
    return FALSE;
}

static const char *file_name(json_t *mapping, const char *key)
{
    json_t *file = json_object_get(mapping, key);
    const char *name = json_string_value(json_object_get(file, "filename"));
    const char *format = json_string_value(json_object_get(file, "format"));

    return name && name[0] == '/' && g_strcmp0(format, "raw") == 0 ? name : NULL;
}

/* Who asks for secure boot gets keys that are enrolled: without them anything starts. */
static gboolean fits(json_t *root, const VpFirmwareWish *wish)
{
    json_t *features = json_object_get(root, "features");
    const gboolean secure = contains(features, "secure-boot") && contains(features, "enrolled-keys");

    if (!contains(json_object_get(root, "interface-types"), "uefi") || !fits_target(root, wish))
        return FALSE;
    return wish->secure_boot ? secure : !secure && !contains(features, "requires-smm");
}

static gboolean take(json_t *root, const VpFirmwareWish *wish, VpFirmware *ret)
{
    json_t *mapping = json_object_get(root, "mapping");
    const char *code = file_name(mapping, "executable");
    const char *template = file_name(mapping, "nvram-template");

    if (!fits(root, wish) || !code || !template || !g_file_test(code, G_FILE_TEST_IS_REGULAR) ||
        !g_file_test(template, G_FILE_TEST_IS_REGULAR))
        return FALSE;
    ret->code_path = g_strdup(code);
    ret->template_path = g_strdup(template);
    ret->secure = contains(json_object_get(root, "features"), "requires-smm");
    return TRUE;
}

static gboolean look_into(const char *path, const VpFirmwareWish *wish, VpFirmware *ret)
{
    g_autofree char *text = NULL;
    gsize size = 0;

    if (!g_file_get_contents(path, &text, &size, NULL) || size > MAX_FILE_BYTES)
        return FALSE;
    json_t *root = json_loadb(text, size, 0, NULL);
    const gboolean taken = take(root, wish, ret);
    json_decref(root);
    return taken;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static GPtrArray *files_of(const char *folder)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);

    for (const char *name = dir ? g_dir_read_name(dir) : NULL; name && names->len < MAX_FILES;
         name = g_dir_read_name(dir)) {
        if (g_str_has_suffix(name, ".json"))
            g_ptr_array_add(names, g_strdup(name));
    }
    g_ptr_array_sort(names, by_name);
    return names;
}

VpError *vp_firmware_find_in(const char *const *folders, const VpFirmwareWish *wish, VpFirmware *ret_firmware)
{
    for (; *folders; folders++) {
        g_autoptr(GPtrArray) names = files_of(*folders);

        for (guint i = 0; i < names->len; i++) {
            g_autofree char *path = g_build_filename(*folders, g_ptr_array_index(names, i), NULL);

            if (look_into(path, wish, ret_firmware))
                return NULL;
        }
    }
    const char *field = wish->secure_boot ? "domain.spec.firmware.secure_boot" : "domain.spec.firmware.type";
    VpError *error = vp_error_new(VP_FAILED_PRECONDITION, "UNSUPPORTED",
                                  "%s: no UEFI%s for the machine %s is installed here; install it: apt-get install %s",
                                  field, wish->secure_boot ? " with secure boot and enrolled keys" : "", wish->machine,
                                  strcmp(wish->architecture, "aarch64") == 0 ? "qemu-efi-aarch64" : "ovmf");
    return vp_error_violation(error, field, "is not installed on the daemon's host");
}

VpError *vp_firmware_find(const VpFirmwareWish *wish, VpFirmware *ret_firmware)
{
    return vp_firmware_find_in(system_folders, wish, ret_firmware);
}
