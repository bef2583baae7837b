/* A backing chain as a tree that a person reads at a glance: collects what InspectChain streams, and draws it. */
#pragma once

#include <glib.h>

#include "virtplane/v1/image_service.pb-c.h"

typedef struct VpImageTree VpImageTree;

VpImageTree *vp_image_tree_new(void);
/* Takes the payload out of `item`. What comes beyond 10,000 layers or findings is counted and not kept. */
void vp_image_tree_add(VpImageTree *tree, PbInspectChainResponse *item);
/* The end of the chain, borrowed; NULL if it has not come. */
const PbChainSummary *vp_image_tree_summary(const VpImageTree *tree);
/* The drawing; `color`: with terminal colours; `unicode`: with lines instead of ASCII. */
char *vp_image_tree_draw(const VpImageTree *tree, gboolean color, gboolean unicode);
void vp_image_tree_free(VpImageTree *tree);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpImageTree, vp_image_tree_free)

/* "qcow2 v3 (declared by the overlay above), 10 GiB, 196 KiB on disk, lazy-refcounts": one layer's facts. */
char *vp_image_layer_facts(const PbImageLayer *layer);
