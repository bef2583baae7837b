/* Fields of messages by name: the requests of the many verbs differ in their types and not in their fields. */
#pragma once

#include <glib.h>
#include <protobuf-c/protobuf-c.h>

#include "google/protobuf/duration.pb-c.h"

/* Where the field `name` of `message` is; a mistake of the program's if it has none. */
void *vp_message_field(void *message, const char *name);

/* Sets `uid` where `who` looks like a UUID, else `name`. */
void vp_message_set_who(void *message, const char *who);

Google__Protobuf__Duration *vp_message_duration(gint64 ms);
