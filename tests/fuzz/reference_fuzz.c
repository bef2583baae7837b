/* libFuzzer on the names of backing files and on how they are shown; with FUZZ_JSON on json references alone. */
#include <stdlib.h>
#include <string.h>

#include "storage/chain/reference.h"
#include "storage/chain/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
#ifdef FUZZ_JSON
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autofree char *name = g_strconcat("json:", text, NULL);
#else
    g_autofree char *name = g_strndup((const char *)data, size);
#endif
    g_auto(VpReference) reference = {0};
    g_autofree char *escaped = vp_text_escape(name, -1);
    g_autofree char *field = vp_text_utf8((const char *)data, (gssize)size);
    g_autofree char *word = vp_text_shell(name);

    vp_reference_parse(name, "/folder/overlay", &reference);
    if (reference.kind == VP_REFERENCE_FILE ? reference.path[0] != '/' || reference.offset > G_MAXINT64 ||
                                                  reference.size > G_MAXINT64 - reference.offset
        : reference.kind == VP_REFERENCE_REMOTE ? reference.protocol == NULL
                                                : reference.why == NULL) {
        abort();
    }
    if (!g_utf8_validate(escaped, -1, NULL) || !g_utf8_validate(field, -1, NULL) || !g_utf8_validate(word, -1, NULL) ||
        strchr(escaped, '\n') || strchr(word, '\n')) {
        abort();
    }
    return 0;
}
