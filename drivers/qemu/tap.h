/* Whose a tap device is: so that its counters are found by whoever looks for them, a later daemon or a person. */
#pragma once

#include <glib.h>
#include <net/if.h>

/* The name of the device of the interface with this MAC address, "vp525400123456", and its alias. Both owned by the caller. */
char *vp_tap_name(const char *mac);
char *vp_tap_alias(const char *uid);

/* Gives them to a new device that is not up yet; `name`, which is told anew, stays if that one is taken. Without them the device works as well. */
void vp_tap_mark(char name[IFNAMSIZ], const char *mac, const char *uid);
