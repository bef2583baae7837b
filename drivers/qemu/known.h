/*
 * What a QEMU can do, as it tells itself: it is started once with no machine and asked over QMP for its types, machines, CPU models and commands. Nothing
 * is guessed from its version.
 */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

typedef struct VpQemuKnown {
    gint refs;
    char *version;        /* "7.2.22" */
    GHashTable *types;    /* of QOM, by name */
    GHashTable *machines; /* by name and alias; the value is the name */
    GHashTable *cpus;     /* models, by name */
    GHashTable *commands; /* of QMP, by name */
    GHashTable *aio;      /* ways of I/O on files, by name */
    GHashTable *netdevs;  /* what an interface can be connected to, by name */
} VpQemuKnown;

/* Asks; blocks for a fraction of a second, at most 10 s. FAILED_PRECONDITION, reason QEMU_UNUSABLE, if it does not tell. */
VpError *vp_qemu_ask(const char *binary, VpQemuKnown **ret_known);
VpQemuKnown *vp_qemu_known_ref(VpQemuKnown *known);
void vp_qemu_known_unref(VpQemuKnown *known);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpQemuKnown, vp_qemu_known_unref)

/* To a file and back. What is written is only to be read for the same binary, which the caller tells apart by `mark`. NULL: there is no such file, or it is
 * for another one. */
void vp_qemu_known_save(const VpQemuKnown *known, const char *path, const char *mark);
VpQemuKnown *vp_qemu_known_load(const char *path, const char *mark);

/* Puts the name with its version in the place of an alias, and the default in the place of none. */
void vp_qemu_known_set_machine(const VpQemuKnown *known, const char *architecture, PbDomainSpec *spec);

/* FAILED_PRECONDITION, reason UNSUPPORTED, with a violation for each field that wishes for what this QEMU lacks. */
VpError *vp_qemu_known_check(const VpQemuKnown *known, const char *architecture, PbAccelerator accelerator,
                             const PbDomainSpec *spec);
