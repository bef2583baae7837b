/* Real images, made by qemu-img in a folder of the test's own, and walks of them. */
#pragma once

#include "storage/chain/chain.h"

/* cmocka's group setup and teardown: a temporary folder, made the working directory and removed at the end. `*state` is its path. */
int images_setup(void **state);
int images_teardown(void **state);

/* Runs a shell command in the folder; the test fails with its output if it fails. Output, owned by the caller. */
char *run(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* The same, and the command's exit status is the answer. */
int try_run(char **ret_output, const char *format, ...) G_GNUC_PRINTF(2, 3);
#define must_run(...) g_free(run(__VA_ARGS__))

/* An absolute path in the folder, owned by the caller. */
char *path_of(const char *name);

/* Walks the chain of a file of the folder, the top declared as `format`. */
VpChain *walk(const char *name, PbImageFormat format);
VpChain *walk_with(const char *name, const VpChainOptions *options);

/* The first finding of that code, or NULL. */
const PbFinding *find(const VpChain *chain, PbFindingCode code);

/* Fails unless the chain is refused, with `code` as its first error, about that layer, and vp_chain_refusal() says so too. */
void assert_refused(const VpChain *chain, PbFindingCode code, guint32 depth);
/* Fails, with what was found, unless the chain is safe and has so many layers. */
void assert_safe(const VpChain *chain, guint32 layers);

#define file_at(chain, index) (&g_array_index((chain)->files, VpChainFile, (index)))
