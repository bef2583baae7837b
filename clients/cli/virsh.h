/* The words of virsh, and ours for them: for those whose fingers know virsh. */
#pragma once

#include <glib.h>

/* What to type here for `word` of virsh: "vpctl domain poweroff NAME". NULL: it is no such word, or is the same here. */
const char *vp_virsh_translate(const char *word);
