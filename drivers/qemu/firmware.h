/* UEFI firmware on this host, as the JSON files tell that its packages bring along (QEMU's docs/interop/firmware.json). Blocks on the disk. */
#pragma once

#include "base/error.h"

typedef struct VpFirmware {
    char *code_path;
    char *template_path; /* of the variables */
    gboolean secure;     /* runs in System Management Mode */
} VpFirmware;

typedef struct VpFirmwareWish {
    const char *architecture;
    const char *machine; /* with its version */
    gboolean secure_boot;
} VpFirmwareWish;

/* The first that fits, in the order of the files' names, those of /etc before those of /usr. FAILED_PRECONDITION, reason UNSUPPORTED, if there is none. */
VpError *vp_firmware_find(const VpFirmwareWish *wish, VpFirmware *ret_firmware);
/* The same with folders of one's own, NULL at the end. */
VpError *vp_firmware_find_in(const char *const *folders, const VpFirmwareWish *wish, VpFirmware *ret_firmware);
void vp_firmware_clear(VpFirmware *firmware);
