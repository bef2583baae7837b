/* Tables for people: see table.h. */
#include "clients/cli/table.h"

#include <libsmartcols/libsmartcols.h>

#include "clients/cli/text.h"

struct VpTable {
    struct libscols_table *rows;
    guint columns;
};

VpTable *vp_table_new(VpCli *cli, const char *const *columns)
{
    VpTable *table = g_new0(VpTable, 1);

    table->rows = scols_new_table();
    /* What is too wide for the terminal goes on in the next line by the terminal's own doing; nothing is cut. */
    scols_table_enable_ascii(table->rows, !cli->unicode);
    scols_table_enable_noencoding(table->rows, 1);
    scols_table_set_column_separator(table->rows, "  ");
    for (; *columns; columns++, table->columns++) {
        const gboolean right = **columns == '>';

        scols_table_new_column(table->rows, *columns + right, 0, right ? SCOLS_FL_RIGHT : 0);
    }
    return table;
}

void vp_table_add(VpTable *table, ...)
{
    struct libscols_line *line = scols_table_new_line(table->rows, NULL);
    va_list args;

    va_start(args, table);
    for (guint i = 0; i < table->columns; i++) {
        g_autofree char *safe = vp_text_escape(va_arg(args, const char *));

        scols_line_set_data(line, i, *safe ? safe : "-");
    }
    va_end(args);
}

void vp_table_print(VpTable *table)
{
    scols_print_table(table->rows);
    vp_table_free(table);
}

void vp_table_free(VpTable *table)
{
    scols_unref_table(table->rows);
    g_free(table);
}
