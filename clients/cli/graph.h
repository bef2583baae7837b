/* Images and what they name as a graph: collected from the daemon's answers, written in graphviz's language. Knows nothing of the connection. */
#pragma once

#include <glib.h>

#include "virtplane/v1/image_service.pb-c.h"

typedef struct VpGraph VpGraph;

/* More files than these make no picture. */
#define VP_GRAPH_MAX_NODES 2000

VpGraph *vp_graph_new(void);
void vp_graph_free(VpGraph *graph);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VpGraph, vp_graph_free)

/* One chain, as InspectPath tells of it. One that was streamed by InspectChain is put into that form by the caller. */
void vp_graph_add(VpGraph *graph, const PbInspectedImage *image);
/* A domain that has this file as a disk; nothing comes of it if the file is not in the graph. */
void vp_graph_add_domain(VpGraph *graph, const char *path, const char *domain);

/* How many files. */
guint vp_graph_size(const VpGraph *graph);
/* The graph in graphviz's language. */
char *vp_graph_dot(const VpGraph *graph);
