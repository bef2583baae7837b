/* See stats_sampler.h. */
#include "server/services/stats_sampler.h"

#include <pthread.h>

#include "base/pb.h"
#include "base/thread.h"

struct VpSampler {
    VpDomains *domains;
    pthread_mutex_t mutex;
    GHashTable *samples; /* uid to Sample: those under way; under the mutex */
};

typedef struct Waiter {
    VpSampled done;
    void *data;
} Waiter;

typedef struct Sample {
    VpSampler *sampler;
    char *uid;
    GArray *waiters; /* of Waiter; under the sampler's mutex */
} Sample;

VpSampler *vp_sampler_new(VpDomains *domains)
{
    VpSampler *sampler = g_new0(VpSampler, 1);

    sampler->domains = domains;
    pthread_mutex_init(&sampler->mutex, NULL);
    sampler->samples = g_hash_table_new(g_str_hash, g_str_equal);
    return sampler;
}

void vp_sampler_free(VpSampler *sampler)
{
    if (!sampler)
        return;
    g_hash_table_unref(sampler->samples);
    pthread_mutex_destroy(&sampler->mutex);
    g_free(sampler);
}

/* What the driver leaves to us. */
static GBytes *complete(const Sample *sample, const PbDomainStats *counters)
{
    g_autoptr(VpError) error = NULL;
    g_autoptr(VpDomainView) view = vp_domains_get(sample->sampler->domains, NULL, sample->uid, &error);
    vp_pb_auto PbDomainStats *stats = vp_pb_dup(counters);

    vp_pb_set(&stats->uid, sample->uid);
    if (view)
        vp_pb_set(&stats->name, view->domain->name);
    if (view && !stats->state)
        stats->state = view->domain->status->state;
    vp_pb_free(stats->time);
    stats->time = vp_pb_timestamp(vp_wall_us());
    return vp_pb_pack(stats);
}

static void answered(void *data, const VpError *error, const void *answer)
{
    Sample *sample = data;
    VpSampler *sampler = sample->sampler;
    g_autoptr(GBytes) stats = error ? NULL : complete(sample, answer);

    /* From here on who asks begins a new one. */
    pthread_mutex_lock(&sampler->mutex);
    g_hash_table_remove(sampler->samples, sample->uid);
    pthread_mutex_unlock(&sampler->mutex);
    for (guint i = 0; i < sample->waiters->len; i++) {
        const Waiter *waiter = &g_array_index(sample->waiters, Waiter, i);

        waiter->done(waiter->data, error, stats);
    }
    g_array_unref(sample->waiters);
    g_free(sample->uid);
    g_free(sample);
}

/* NULL: one is under way, and has the waiter now. */
static Sample *join_or_begin(VpSampler *sampler, const char *uid, const Waiter *waiter)
{
    VP_LOCK(&sampler->mutex);
    Sample *sample = g_hash_table_lookup(sampler->samples, uid);

    if (sample) {
        g_array_append_vals(sample->waiters, waiter, 1);
        return NULL;
    }
    sample = g_new0(Sample, 1);
    sample->sampler = sampler;
    sample->uid = g_strdup(uid);
    sample->waiters = g_array_new(FALSE, FALSE, sizeof(Waiter));
    g_array_append_vals(sample->waiters, waiter, 1);
    g_hash_table_insert(sampler->samples, sample->uid, sample);
    return sample;
}

void vp_sampler_take(VpSampler *sampler, const VpDomainView *view, VpSampled done, void *data)
{
    const Waiter waiter = {.done = done, .data = data};
    Sample *sample = join_or_begin(sampler, view->domain->uid, &waiter);

    if (!sample)
        return;
    const VpAsk question = {.question = VP_QUESTION_STATS, .uid = view->domain->uid};
    vp_task_unref(vp_domains_ask(sampler->domains, &question, answered, sample));
}
