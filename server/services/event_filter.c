/* Event filters: AND over the fields that are set, OR within one. */
#include <string.h>

#include "server/services/event_hub.h"

static gboolean any_equals(size_t n, char *const *values, const char *value)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(values[i], value) == 0)
            return TRUE;
    }
    return n == 0;
}

gboolean vp_event_matches(const PbEventFilter *filter, const PbEvent *event)
{
    if (!filter)
        return TRUE;

    gboolean type = filter->n_types == 0;
    for (size_t i = 0; i < filter->n_types && !type; i++)
        type = filter->types[i] == event->type;
    return type && any_equals(filter->n_resource_types, filter->resource_types, event->resource_type) &&
           any_equals(filter->n_names, filter->names, event->name) && any_equals(filter->n_uids, filter->uids, event->uid) &&
           any_equals(filter->n_drivers, filter->drivers, event->driver);
}
