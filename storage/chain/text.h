/* Outside bytes (paths, names out of headers) made fit for messages, protobuf strings and shells. All results are owned by the caller. */
#pragma once

#include <glib.h>

/* For messages: valid UTF-8 on one line; what is not printable becomes \xNN. `size` -1: up to the NUL. */
char *vp_text_escape(const char *bytes, gssize size);

/* For path fields: unchanged if it is valid UTF-8, else the bytes that are not become \xNN. */
char *vp_text_utf8(const char *bytes, gssize size);

/* One word for a shell: as it is if it is plain, else in quotes ($'...' if it is not printable). */
char *vp_text_shell(const char *bytes);
