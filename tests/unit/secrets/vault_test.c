/* The vault: what is sealed opens for its secret and with its key alone, and whatever is changed of it does not open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#include "server/secrets/vault.h"

#define UID "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e55"
#define OTHER "0ca2f1de-5f2e-4b6e-9a3a-7d9d1c1f0e56"

static char *folder;

static int setup(void **state)
{
    (void)state;
    folder = g_dir_make_tmp("vp-vault-XXXXXX", NULL);
    return 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {"secrets.key", "key"};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(folder, names[i], NULL);
        g_unlink(path);
    }
    g_rmdir(folder);
    g_free(folder);
    return 0;
}

static VpVault *vault_in(const char *key_file)
{
    VpError *error = NULL;
    VpVault *vault = vp_vault_new(key_file, folder, &error);

    if (!vault)
        fail_msg("%s", error->message);
    return vault;
}

static char *write_key(const char *text, gssize length, int mode)
{
    char *path = g_build_filename(folder, "key", NULL);

    assert_true(g_file_set_contents(path, text, length, NULL));
    g_chmod(path, (mode_t)mode);
    return path;
}

static void opens(const VpVault *vault, const char *uid, GBytes *sealed, const char *text)
{
    VpError *error = NULL;
    g_autoptr(VpSecretValue) value = vp_vault_open(vault, uid, sealed, &error);

    assert_non_null(value);
    assert_int_equal(value->length, strlen(text));
    assert_memory_equal(value->bytes, text, strlen(text));
}

static void stays_shut(const VpVault *vault, const char *uid, GBytes *sealed)
{
    g_autoptr(VpError) error = NULL;

    assert_null(vp_vault_open(vault, uid, sealed, &error));
    assert_int_equal(error->code, VP_DATA_LOSS);
    assert_string_equal(error->reason, "SECRET_UNREADABLE");
}

static GBytes *seal(const VpVault *vault, const char *text)
{
    VpError *error = NULL;
    GBytes *sealed = vp_vault_seal(vault, UID, text, strlen(text), &error);

    assert_non_null(sealed);
    return sealed;
}

static void what_is_sealed_opens_again(void **state)
{
    g_autoptr(VpVault) vault = vault_in(NULL);
    g_autoptr(GBytes) sealed = seal(vault, "correct horse");
    g_autoptr(GBytes) again = seal(vault, "correct horse");
    g_autoptr(GBytes) empty = seal(vault, "");
    gsize size;
    const char *bytes = g_bytes_get_data(sealed, &size);

    (void)state;
    opens(vault, UID, sealed, "correct horse");
    opens(vault, UID, empty, "");
    assert_false(g_bytes_equal(sealed, again));
    assert_null(memmem(bytes, size, "horse", 5));
    /* The key that was made is found again. */
    g_autoptr(VpVault) later = vault_in(NULL);
    opens(later, UID, sealed, "correct horse");
    g_autofree char *path = g_build_filename(folder, "secrets.key", NULL);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void what_is_changed_stays_shut(void **state)
{
    g_autoptr(VpVault) vault = vault_in(NULL);
    g_autoptr(GBytes) sealed = seal(vault, "value");
    gsize size;
    const guint8 *bytes = g_bytes_get_data(sealed, &size);

    (void)state;
    stays_shut(vault, OTHER, sealed);
    for (gsize i = 0; i < size; i++) {
        g_autofree guint8 *changed = g_memdup2(bytes, size);
        changed[i] ^= 1;
        g_autoptr(GBytes) damaged = g_bytes_new_static(changed, size);
        g_autoptr(GBytes) cut = g_bytes_new(bytes, i);
        stays_shut(vault, UID, damaged);
        stays_shut(vault, UID, cut);
    }
}

static void another_key_opens_nothing(void **state)
{
    static const char digits[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1F\n";
    g_autofree char *path = write_key(digits, -1, 0600);
    g_autoptr(VpVault) vault = vault_in(path);
    g_autoptr(VpVault) own = vault_in(NULL);
    g_autoptr(GBytes) sealed = seal(vault, "value");
    g_autoptr(GBytes) text = g_bytes_new_static("x", 1);

    (void)state;
    stays_shut(own, UID, sealed);
    g_autofree char *one = vp_vault_fingerprint(vault, text);
    g_autofree char *other = vp_vault_fingerprint(own, text);
    assert_string_not_equal(one, other);
    /* The same key in its other form. */
    char raw[32];
    for (int i = 0; i < 32; i++)
        raw[i] = (char)i;
    g_free(write_key(raw, sizeof(raw), 0600));
    g_autoptr(VpVault) same = vault_in(path);
    opens(same, UID, sealed, "value");
}

static void bad_keys_are_refused(void **state)
{
    const struct {
        const char *text;
        int mode;
    } cases[] = {{"short", 0600},
                 {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1g", 0600},
                 {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00", 0600},
                 {"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", 0644}};

    (void)state;
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = write_key(cases[i].text, -1, cases[i].mode);
        g_autoptr(VpError) error = NULL;

        assert_null(vp_vault_new(path, folder, &error));
        assert_string_equal(error->reason, "SECRETS_KEY");
        assert_null(strstr(error->message, "0001"));
    }
    g_autoptr(VpError) error = NULL;
    assert_null(vp_vault_new("/nonexistent/key", folder, &error));
    assert_int_equal(error->code, VP_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sealed_opens_again),
        cmocka_unit_test(what_is_changed_stays_shut),
        cmocka_unit_test(another_key_opens_nothing),
        cmocka_unit_test(bad_keys_are_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
