/* docs/findings.md, built into the program: one section a finding's code. */
#pragma once

#include <glib.h>

/* The page. */
const char *vp_explain_page(void);

/* The section "## CODE" of `markdown` without its heading, or NULL. `code` in any case, with or without
 * FINDING_CODE_. */
char *vp_explain_section(const char *markdown, const char *code);
/* The codes that have a section, NULL at the end. */
char **vp_explain_codes(const char *markdown);
