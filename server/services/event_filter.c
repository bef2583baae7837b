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

/* What a filter looks at, but for types and labels. */
static gboolean matches_names(const PbEventFilter *filter, const char *resource_type, const char *name, const char *uid,
                              const char *driver)
{
    return any_equals(filter->n_resource_types, filter->resource_types, resource_type) &&
           any_equals(filter->n_names, filter->names, name) && any_equals(filter->n_uids, filter->uids, uid) &&
           any_equals(filter->n_drivers, filter->drivers, driver);
}

/* Each label of the filter must be among `labels`, of a map with string keys and values: its entries are of one shape and of a type for each map. */
#define HAS_LABELS(filter, resource)                                                                                   \
    ({                                                                                                                 \
        size_t found = 0;                                                                                              \
        for (size_t i = 0; i < (filter)->n_labels; i++) {                                                              \
            for (size_t k = 0; k < (resource)->n_labels; k++)                                                          \
                found += strcmp((resource)->labels[k]->key, (filter)->labels[i]->key) == 0 &&                          \
                         strcmp((resource)->labels[k]->value, (filter)->labels[i]->value) == 0;                        \
        }                                                                                                              \
        found == (filter)->n_labels;                                                                                   \
    })

gboolean vp_event_matches(const PbEventFilter *filter, const PbEvent *event)
{
    if (!filter)
        return TRUE;

    gboolean type = filter->n_types == 0;
    for (size_t i = 0; i < filter->n_types && !type; i++)
        type = filter->types[i] == event->type;
    return type && matches_names(filter, event->resource_type, event->name, event->uid, event->driver) &&
           HAS_LABELS(filter, event);
}

gboolean vp_event_filter_matches_domain(const PbEventFilter *filter, const PbDomain *domain)
{
    return !filter || (matches_names(filter, "domain", domain->name, domain->uid, domain->spec->driver) &&
                       HAS_LABELS(filter, domain));
}
