/* `json:` references: QEMU's options of a block node, nested or with dotted keys. Used by reference.c alone. */
#pragma once

#include "storage/chain/reference.h"

/* `text` is what follows `json:`. `ret` is to be cleared. */
void vp_reference_parse_json(const char *text, VpReference *ret);
