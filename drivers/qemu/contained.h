/*
 * What a QEMU that runs cannot be given, since it was started without any use for it and is held apart from the host ever since: the network. What it is to
 * have of that it gets at its next start. Pure; `contained` is what the kernel told of the process, or NULL.
 */
#pragma once

#include "base/error.h"
#include "storage/chain/chain.h"
#include "virtplane/v1/domain.pb-c.h"

/* Adds a violation (drivers/spec_change.h) for each new interface that QEMU itself needs the network for. */
VpError *vp_contained_check_interfaces(VpError *error, const PbContainment *contained, const PbDomainSpec *live,
                                       const PbDomainSpec *wanted);

/* FAILED_PRECONDITION, reason DOMAIN_RUNNING, if a layer of the disk is on a server that it does not reach. `index` is the disk's in the spec; `chain` NULL:
 * the drive is empty. */
VpError *vp_contained_check_chain(const PbContainment *contained, const PbDisk *disk, size_t index,
                                  const VpChain *chain);
