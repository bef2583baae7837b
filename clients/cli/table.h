/* Tables for people, over libsmartcols. */
#pragma once

#include <stdarg.h>

#include "clients/cli/cli.h"

typedef struct VpTable VpTable;

/* `columns`: headings, NULL at the end; one that starts with ">" is aligned to the right. */
VpTable *vp_table_new(VpCli *cli, const char *const *columns);
/* A row: as many texts as there are columns; they are escaped. */
void vp_table_add(VpTable *table, ...);
/* Prints and frees. */
void vp_table_print(VpTable *table);
/* Frees one that is not to be printed. */
void vp_table_free(VpTable *table);
