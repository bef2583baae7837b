/* What --cpu, --firmware, --cdrom and the options of a kernel say, as messages. */
#pragma once

#include "base/error.h"
#include "virtplane/v1/domain.pb-c.h"

/* "MODEL[,+FEATURE][,-FEATURE][,sockets=N][,cores=N][,threads=N][,max=N]"; the model may be empty. */
VpError *vp_cpu_parse(PbDomainSpec *spec, const char *text);

/* "bios", "uefi" or "uefi-secure". */
VpError *vp_firmware_parse(PbDomainSpec *spec, const char *text);

/* Adds a cd-rom drive with this image; empty: without. A relative path counts from `folder`. */
void vp_cdrom_add(PbDomainSpec *spec, const char *path, const char *folder);

/* A kernel, its initial file system and its command line; each may be NULL. */
void vp_kernel_set(PbDomainSpec *spec, const char *kernel, const char *initrd, const char *words, const char *folder);
