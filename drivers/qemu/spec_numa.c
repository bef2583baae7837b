/* The checks of NUMA nodes: see spec.h. */
#include "pinning.h"
#include "spec.h"

#define MIB (1024ULL * 1024)

/* Adds the node's CPUs to `seen`. */
static void check_cpus(VpSpecCheck *check, size_t index, guint vcpus, cpu_set_t *seen)
{
    cpu_set_t cpus;
    cpu_set_t both;

    if (!vp_cpu_set_parse(check->spec->numa_nodes[index]->cpus, &cpus)) {
        vp_spec_violation(check, "must be a set of virtual CPUs, as in \"0-3,8\"", "numa_nodes[%zu].cpus", index);
        return;
    }
    CPU_AND(&both, &cpus, seen);
    if (CPU_COUNT(&both) > 0)
        vp_spec_violation(check, "has virtual CPUs of another node", "numa_nodes[%zu].cpus", index);
    for (guint cpu = vcpus; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &cpus))
            continue;
        vp_spec_violation(check, "there are not so many virtual CPUs", "numa_nodes[%zu].cpus", index);
        break;
    }
    CPU_OR(seen, seen, &cpus);
}

static void check_node(VpSpecCheck *check, size_t index)
{
    const PbNumaNode *node = check->spec->numa_nodes[index];
    const guint64 page = check->spec->memory ? check->spec->memory->hugepage_bytes : 0;
    g_autofree char *policy = g_strdup_printf("numa_nodes[%zu].policy", index);
    cpu_set_t hosts;

    vp_spec_check_enum(check, &pb_numa_policy__descriptor, (int)node->policy, policy);
    if (node->memory_bytes == 0 || node->memory_bytes % MIB != 0 || (page && node->memory_bytes % page != 0))
        vp_spec_violation(check, "must be set, and a multiple of 1 MiB and of the pages' size",
                          "numa_nodes[%zu].memory_bytes", index);
    if (node->host_nodes[0] && !vp_cpu_set_parse(node->host_nodes, &hosts))
        vp_spec_violation(check, "must be a set of the host's nodes, as in \"0-1\"", "numa_nodes[%zu].host_nodes",
                          index);
    if (node->policy != PB_NUMA_POLICY_UNSPECIFIED && !node->host_nodes[0])
        vp_spec_violation(check, "needs host_nodes", "%s", policy);
    if (node->n_distances && node->n_distances != check->spec->n_numa_nodes)
        vp_spec_violation(check, "must have one for each node", "numa_nodes[%zu].distances", index);
    for (size_t i = 0; i < node->n_distances; i++) {
        if ((i == index) != (node->distances[i] == 10) || node->distances[i] < 10)
            vp_spec_violation(check, "must be 10 to the node itself, and more to others",
                              "numa_nodes[%zu].distances[%zu]", index, i);
    }
}

void vp_spec_check_numa(VpSpecCheck *check)
{
    const PbDomainSpec *spec = check->spec;
    const guint vcpus = MAX(MAX(spec->vcpus, spec->cpu ? spec->cpu->max_vcpus : 0), 1);
    guint64 bytes = 0;
    cpu_set_t seen;

    CPU_ZERO(&seen);
    for (size_t i = 0; i < spec->n_numa_nodes; i++) {
        check_cpus(check, i, vcpus, &seen);
        check_node(check, i);
        bytes += spec->numa_nodes[i]->memory_bytes;
    }
    if (spec->n_numa_nodes == 0 || check->error)
        return;
    if ((guint)CPU_COUNT(&seen) != vcpus)
        vp_spec_violation(check, "not every virtual CPU is in a node", "numa_nodes[0].cpus");
    if (bytes != spec->memory_bytes)
        vp_spec_violation(check, "the nodes' memory does not make memory_bytes", "numa_nodes[0].memory_bytes");
}
