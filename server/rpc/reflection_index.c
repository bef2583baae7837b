/* The index of the embedded descriptors: see reflection_index.h. */
#include "server/rpc/reflection_index.h"

#include "base/pb.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "proto/descriptors.h"

typedef Google__Protobuf__FileDescriptorSet FileSet;
typedef Google__Protobuf__FileDescriptorProto File;
typedef Google__Protobuf__DescriptorProto Message;

struct VpReflectionIndex {
    GStringChunk *names;
    GPtrArray *all;         /* of VpReflectedFile */
    GHashTable *files;      /* name -> VpReflectedFile */
    GHashTable *symbols;    /* full name -> VpReflectedFile */
    GHashTable *extensions; /* full name of a type -> GArray of VpReflectedExtension */
};

/* A symbol of `file`; answers its full name, kept by the index. */
static char *add_symbol(VpReflectionIndex *index, const char *scope, const char *name, VpReflectedFile *file)
{
    g_autofree char *full = g_strdup_printf("%s.%s", scope, name);
    char *kept = g_string_chunk_insert(index->names, full);

    g_hash_table_insert(index->symbols, kept, file);
    return kept;
}

static void add_enum(VpReflectionIndex *index, const Google__Protobuf__EnumDescriptorProto *proto, const char *scope,
                     VpReflectedFile *file)
{
    add_symbol(index, scope, proto->name, file);
    /* A value's scope is that of its enum. */
    for (size_t i = 0; i < proto->n_value; i++)
        add_symbol(index, scope, proto->value[i]->name, file);
}

static void add_message(VpReflectionIndex *index, const Message *message, const char *scope, VpReflectedFile *file)
{
    const char *own = add_symbol(index, scope, message->name, file);

    for (size_t i = 0; i < message->n_field; i++)
        add_symbol(index, own, message->field[i]->name, file);
    for (size_t i = 0; i < message->n_enum_type; i++)
        add_enum(index, message->enum_type[i], own, file);
    for (size_t i = 0; i < message->n_nested_type; i++)
        add_message(index, message->nested_type[i], own, file);
}

static void add_service(VpReflectionIndex *index, const Google__Protobuf__ServiceDescriptorProto *service,
                        const char *scope, VpReflectedFile *file)
{
    const char *own = add_symbol(index, scope, service->name, file);

    for (size_t i = 0; i < service->n_method; i++)
        add_symbol(index, own, service->method[i]->name, file);
}

static void add_extension(VpReflectionIndex *index, const Google__Protobuf__FieldDescriptorProto *proto,
                          const char *scope, VpReflectedFile *file)
{
    const VpReflectedExtension extension = {.number = proto->number, .file = file};
    /* ".google.protobuf.FieldOptions" */
    const char *type = proto->extendee[0] == '.' ? proto->extendee + 1 : proto->extendee;
    GArray *extensions = g_hash_table_lookup(index->extensions, type);

    add_symbol(index, scope, proto->name, file);
    if (!extensions) {
        extensions = g_array_new(FALSE, FALSE, sizeof(VpReflectedExtension));
        g_hash_table_insert(index->extensions, g_string_chunk_insert(index->names, type), extensions);
    }
    g_array_append_val(extensions, extension);
}

static void add_declarations(VpReflectionIndex *index, const File *proto, VpReflectedFile *file)
{
    for (size_t i = 0; i < proto->n_message_type; i++)
        add_message(index, proto->message_type[i], proto->package, file);
    for (size_t i = 0; i < proto->n_enum_type; i++)
        add_enum(index, proto->enum_type[i], proto->package, file);
    for (size_t i = 0; i < proto->n_service; i++)
        add_service(index, proto->service[i], proto->package, file);
    for (size_t i = 0; i < proto->n_extension; i++)
        add_extension(index, proto->extension[i], proto->package, file);
}

static void file_free(gpointer data)
{
    VpReflectedFile *file = data;

    g_ptr_array_unref(file->imports);
    g_free(file);
}

static gsize read_varint(const guint8 **at)
{
    gsize value = 0;

    for (guint shift = 0; shift < 35; shift += 7) {
        const guint8 byte = *(*at)++;

        value |= (gsize)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            break;
    }
    return value;
}

/* The set has one field, its files; protoc wrote it. Their bytes are given out as they are, in the order in which they are unpacked. */
static void add_bytes(VpReflectionIndex *index)
{
    const guint8 *at = vp_descriptors_commented;
    const guint8 *end = at + vp_descriptors_commented_size;

    while (at < end) {
        VpReflectedFile *file = g_new0(VpReflectedFile, 1);

        at++;
        file->size = read_varint(&at);
        file->bytes = at;
        file->imports = g_ptr_array_new();
        at += file->size;
        g_ptr_array_add(index->all, file);
    }
}

static void add_imports(VpReflectionIndex *index, const File *proto, VpReflectedFile *file)
{
    for (size_t i = 0; i < proto->n_dependency; i++) {
        VpReflectedFile *import = g_hash_table_lookup(index->files, proto->dependency[i]);

        if (import)
            g_ptr_array_add(file->imports, import);
    }
}

VpReflectionIndex *vp_reflection_index_new(void)
{
    VpReflectionIndex *index = g_new0(VpReflectionIndex, 1);
    vp_pb_auto FileSet *set =
        google__protobuf__file_descriptor_set__unpack(NULL, vp_descriptors_commented_size, vp_descriptors_commented);

    index->names = g_string_chunk_new(16 << 10);
    index->all = g_ptr_array_new_with_free_func(file_free);
    index->files = g_hash_table_new(g_str_hash, g_str_equal);
    index->symbols = g_hash_table_new(g_str_hash, g_str_equal);
    index->extensions = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)g_array_unref);
    add_bytes(index);
    for (size_t i = 0; set && i < set->n_file; i++)
        g_hash_table_insert(index->files, g_string_chunk_insert(index->names, set->file[i]->name),
                            index->all->pdata[i]);
    for (size_t i = 0; set && i < set->n_file; i++) {
        add_imports(index, set->file[i], index->all->pdata[i]);
        add_declarations(index, set->file[i], index->all->pdata[i]);
    }
    return index;
}

void vp_reflection_index_free(VpReflectionIndex *index)
{
    if (!index)
        return;
    g_hash_table_unref(index->files);
    g_hash_table_unref(index->symbols);
    g_hash_table_unref(index->extensions);
    g_ptr_array_unref(index->all);
    g_string_chunk_free(index->names);
    g_free(index);
}

const VpReflectedFile *vp_reflection_by_name(const VpReflectionIndex *index, const char *name)
{
    return g_hash_table_lookup(index->files, name);
}

const VpReflectedFile *vp_reflection_by_symbol(const VpReflectionIndex *index, const char *symbol)
{
    return g_hash_table_lookup(index->symbols, symbol);
}

const GArray *vp_reflection_extensions(const VpReflectionIndex *index, const char *type)
{
    return g_hash_table_lookup(index->extensions, type);
}
