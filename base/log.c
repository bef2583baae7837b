/* The log: see log.h. */
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The one piece of process-wide state: which lines are written is a property of the process, not of an object. */
static gint threshold = VP_LOG_INFO;

void vp_log_set_level(VpLogLevel level)
{
    g_atomic_int_set(&threshold, (gint)level);
}

VpLogLevel vp_log_level(void)
{
    return (VpLogLevel)g_atomic_int_get(&threshold);
}

static void append_escaped(GString *line, const char *text)
{
    for (const char *c = text; *c; c++) {
        if (g_ascii_iscntrl(*c) && *c != '\t')
            g_string_append_printf(line, "\\x%02x", (unsigned)(guchar)*c);
        else
            g_string_append_c(line, *c);
    }
}

void vp_log(VpLogLevel level, const char *format, ...)
{
    static const char *const words[] = {"", "", "", "error: ", "warning: ", "", "", "debug: "};

    if ((gint)level > g_atomic_int_get(&threshold))
        return;

    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);

    g_autoptr(GString) line = g_string_new(NULL);
    /* journald sets this variable for what it reads, and takes the level from the prefix. */
    if (getenv("JOURNAL_STREAM"))
        g_string_append_printf(line, "<%d>", (int)level);
    else
        g_string_append(line, words[level]);
    append_escaped(line, text);
    g_string_append_c(line, '\n');
    /* One write for a line, so that threads do not mix theirs. There is nowhere to tell that stderr is gone. */
    if (write(STDERR_FILENO, line->str, line->len) < 0)
        return;
}
