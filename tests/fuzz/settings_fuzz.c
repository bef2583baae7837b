/* libFuzzer on what the daemon reads of its settings and its clients send beside requests: the configuration file, and page tokens. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/config.h"
#include "server/services/page_token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_settings(const uint8_t *data, size_t size)
{
    const int fd = memfd_create("settings", MFD_CLOEXEC);
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    VpError *error = NULL;

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    const VpConfigArguments arguments = {.config = path, .state_dir = "/tmp"};
    VpConfig *config = vp_config_new(&arguments, &error);
    close(fd);
    if (!config == !error)
        abort();
    vp_config_free(config);
    vp_error_free(error);
}

static void read_token(const uint8_t *data, size_t size)
{
    static VpPageKey key;
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autofree char *position = NULL;
    g_autofree char *token = vp_page_token_new(&key, "List", NULL, text);

    VpError *error = vp_page_token_read(&key, "List", NULL, text, &position);
    /* None of its own making is taken. */
    if (!error && position)
        abort();
    vp_error_free(error);
    g_clear_pointer(&position, g_free);
    error = vp_page_token_read(&key, "List", NULL, token, &position);
    if (error || g_strcmp0(position, text) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_settings(data, size);
    read_token(data, size);
    return 0;
}
