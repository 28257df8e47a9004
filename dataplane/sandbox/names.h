/* names - the modules that look up hosts. Not a door: others include sandbox.h. */
#pragma once

/* Loads what /etc/nsswitch.conf names for hosts: the C library would do so at the first look-up that needs it. */
void names_load(void);
