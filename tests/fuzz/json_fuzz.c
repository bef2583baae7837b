/* libFuzzer on JSON and YAML that become requests: what vpctl reads from files. What is taken prints as what is read again. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/pb.h"
#include "clients/json/json.h"
#include "virtplane/v1/domain_service.pb-c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpError) again = NULL;

    if (!json)
        return 0;
    vp_pb_auto PbCreateDomainRequest *request = vp_json_parse(&pb_create_domain_request__descriptor, json, &error);
    json_decref(json);
    if (!request == !error)
        abort();
    if (!request)
        return 0;
    json_t *printed = vp_json_print(request);
    vp_pb_auto PbCreateDomainRequest *read = vp_json_parse(&pb_create_domain_request__descriptor, printed, &again);
    json_decref(printed);
    if (!read)
        abort();
    g_autoptr(GBytes) first = vp_pb_pack(request);
    g_autoptr(GBytes) second = vp_pb_pack(read);
    if (!g_bytes_equal(first, second))
        abort();
    return 0;
}
