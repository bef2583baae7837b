/* The marks of every known format. Used by probe.c alone. */
#pragma once

#include "storage/probe/probe.h"

/* The formats whose marks the bytes carry: bit N for PbImageFormat N. `ret_by_tail`: those of them told by the end of the file. */
guint32 vp_recognise(const VpProbeInput *input, guint32 *ret_by_tail);
