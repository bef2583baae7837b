/* The arguments of memory and of the nodes that it is divided into. See arguments.h. */
#include "arguments.h"
#include "ids.h"
#include "pinning.h"

#define MIB G_GUINT64_CONSTANT(1048576)

static guint64 memory_mib(const PbDomainSpec *spec)
{
    return spec->memory_bytes ? spec->memory_bytes / MIB : VP_DEFAULT_MEMORY_BYTES / MIB;
}

/* What serves a device from another process (virtiofsd) reads and writes the guest's memory. */
static gboolean is_shared(const PbDomainSpec *spec)
{
    return spec->n_shared_folders > 0;
}

static gboolean has_hugepages(const PbDomainSpec *spec)
{
    return spec->memory && spec->memory->hugepages;
}

gboolean vp_args_has_one_backend(const VpArguments *args)
{
    const PbDomainSpec *spec = args->line->spec;

    return spec->n_numa_nodes == 0 && (has_hugepages(spec) || is_shared(spec));
}

static json_t *make_backend(const PbDomainSpec *spec, const char *id, guint64 bytes)
{
    const gboolean file = has_hugepages(spec) || is_shared(spec);
    json_t *backend = json_pack("{s:s, s:s, s:I}", "qom-type", file ? "memory-backend-memfd" : "memory-backend-ram",
                                "id", id, "size", (json_int_t)bytes);

    if (has_hugepages(spec)) {
        json_object_set_new(backend, "hugetlb", json_true());
        json_object_set_new(backend, "prealloc", json_true());
        if (spec->memory->hugepage_bytes)
            json_object_set_new(backend, "hugetlbsize", json_integer((json_int_t)spec->memory->hugepage_bytes));
    }
    if (is_shared(spec))
        json_object_set_new(backend, "share", json_true());
    return backend;
}

void vp_args_memory(VpArguments *args)
{
    const PbDomainSpec *spec = args->line->spec;
    const guint64 mib = memory_mib(spec);
    GString *size = g_string_new(NULL);

    g_string_append_printf(size, "size=%" G_GUINT64_FORMAT "M", mib);
    if (spec->memory && spec->memory->slots)
        g_string_append_printf(size, ",slots=%u,maxmem=%" G_GUINT64_FORMAT "M", spec->memory->slots,
                               spec->memory->max_bytes / MIB);
    vp_args_add(args, "-m", size->str);
    g_string_free(size, TRUE);
    if (vp_args_has_one_backend(args))
        vp_args_json(args, "-object", make_backend(spec, "ram", mib * MIB));
}

void vp_args_dimm(VpArguments *args, guint index, guint64 bytes)
{
    g_autofree char *memory = vp_id_dimm_memory(index);
    g_autofree char *id = vp_id_dimm(index);

    vp_args_json(args, "-object", make_backend(args->line->spec, memory, bytes));
    vp_args_json(args, "-device", json_pack("{s:s, s:s, s:s}", "driver", "pc-dimm", "id", id, "memdev", memory));
}

/* ---- nodes ---- */

static void bind_backend(json_t *backend, const PbNumaNode *node)
{
    static const char *const policies[] = {
        [PB_NUMA_POLICY_UNSPECIFIED] = "bind",
        [PB_NUMA_POLICY_STRICT] = "bind",
        [PB_NUMA_POLICY_PREFERRED] = "preferred",
        [PB_NUMA_POLICY_INTERLEAVE] = "interleave",
    };
    json_t *hosts = json_array();
    cpu_set_t set;

    if (!node->host_nodes[0] || !vp_cpu_set_parse(node->host_nodes, &set)) {
        json_decref(hosts);
        return;
    }
    for (guint i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &set))
            json_array_append_new(hosts, json_integer(i));
    }
    json_object_set_new(backend, "host-nodes", hosts);
    json_object_set_new(backend, "policy", json_string(policies[node->policy]));
}

static void add_node(VpArguments *args, size_t index)
{
    const PbDomainSpec *spec = args->line->spec;
    const PbNumaNode *node = spec->numa_nodes[index];
    g_autofree char *id = g_strdup_printf("ram-node%zu", index);
    g_auto(GStrv) ranges = g_strsplit(node->cpus, ",", -1);
    GString *text = g_string_new(NULL);
    json_t *backend = make_backend(spec, id, node->memory_bytes);

    bind_backend(backend, node);
    vp_args_json(args, "-object", backend);
    g_string_append_printf(text, "node,nodeid=%zu,memdev=%s", index, id);
    for (char **range = ranges; *range; range++)
        g_string_append_printf(text, ",cpus=%s", *range);
    vp_args_add(args, "-numa", text->str);
    g_string_free(text, TRUE);
}

void vp_args_numa(VpArguments *args)
{
    const PbDomainSpec *spec = args->line->spec;

    for (size_t i = 0; i < spec->n_numa_nodes; i++)
        add_node(args, i);
    for (size_t i = 0; i < spec->n_numa_nodes; i++) {
        for (size_t j = 0; j < spec->numa_nodes[i]->n_distances; j++) {
            g_autofree char *text =
                g_strdup_printf("dist,src=%zu,dst=%zu,val=%u", i, j, spec->numa_nodes[i]->distances[j]);

            vp_args_add(args, "-numa", text);
        }
    }
}
