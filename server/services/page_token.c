/* Page tokens: see page_token.h. A token is base64("HMAC POSITION"). */
#include "server/services/page_token.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/pb.h"

#define MAC_LENGTH 64

VpError *vp_page_key_init(VpPageKey *key)
{
    if (getrandom(key->bytes, sizeof(key->bytes), 0) != (ssize_t)sizeof(key->bytes))
        return vp_error_errno(errno, "NO_RANDOM", "cannot make a key for page tokens");
    return NULL;
}

static char *sign(const VpPageKey *key, const char *method, const void *filter, const char *position)
{
    GHmac *hmac = g_hmac_new(G_CHECKSUM_SHA256, key->bytes, sizeof(key->bytes));

    g_hmac_update(hmac, (const guchar *)method, (gssize)strlen(method) + 1);
    g_hmac_update(hmac, (const guchar *)position, (gssize)strlen(position) + 1);
    if (filter) {
        g_autoptr(GBytes) packed = vp_pb_pack(filter);
        gsize size;
        const guchar *bytes = g_bytes_get_data(packed, &size);

        g_hmac_update(hmac, bytes, (gssize)size);
    }
    char *mac = g_strdup(g_hmac_get_string(hmac));
    g_hmac_unref(hmac);
    return mac;
}

char *vp_page_token_new(const VpPageKey *key, const char *method, const void *filter, const char *position)
{
    g_autofree char *mac = sign(key, method, filter, position);
    g_autofree char *text = g_strconcat(mac, position, NULL);

    return g_base64_encode((const guchar *)text, strlen(text));
}

VpError *vp_page_token_read(const VpPageKey *key, const char *method, const void *filter, const char *token,
                            char **ret_position)
{
    gsize size = 0;

    if (token[0] == '\0') {
        *ret_position = NULL;
        return NULL;
    }
    g_autofree guchar *bytes = g_base64_decode(token, &size);
    g_autofree char *text = g_strndup((const char *)bytes, size);
    if (strlen(text) >= MAC_LENGTH) {
        g_autofree char *mac = sign(key, method, filter, text + MAC_LENGTH);

        if (memcmp(mac, text, MAC_LENGTH) == 0) {
            *ret_position = g_strdup(text + MAC_LENGTH);
            return NULL;
        }
    }
    VpError *error = vp_error_new(
        VP_INVALID_ARGUMENT, "INVALID_PAGE_TOKEN",
        "page_token is none that this call gave out (same filter, same daemon run); start from the first page");
    return vp_error_violation(error, "page_token", "is not valid for this call");
}
