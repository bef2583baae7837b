/* What --disk, --interface and --label say, as messages. */
#pragma once

#include "virtplane/v1/domain.pb-c.h"

#include "base/error.h"

/* "PATH[,format=F][,target=T][,bus=B][,cache=C][,io=I][,serial=S][,readonly]": a disk, owned by the caller. ",," in a value is one comma. A
 * relative path counts from `folder`. Without a target the disk has none yet: see vp_disk_name_targets(). */
PbDisk *vp_disk_parse(const char *text, const char *folder, VpError **error);

/* Gives the disks that have no target the first free ones: vda, vdb, ... (sda for SCSI and SATA, nvme0n1 for NVMe). */
void vp_disk_name_targets(PbDomainSpec *spec);

/* "TYPE[,bridge=B][,model=M][,mac=A]": an interface, owned by the caller. */
PbInterface *vp_interface_parse(const char *text, VpError **error);

/* "bytes=10M", "read-requests=500", "group=slow", ...; "none" takes all limits away. Set in the disk's throttle. */
VpError *vp_throttle_parse(PbDisk *disk, const char *text);
/* What there is to say, NULL at the end. */
extern const char *const vp_throttle_words[];

/* "KEY=VALUE", set in the domain's labels. */
VpError *vp_label_parse(PbDomain *domain, const char *text);
/* Takes a label away; nothing if it is not there. */
void vp_label_remove(PbDomain *domain, const char *key);
