/*
 * relay - what lies between two machines: a thread that carries bytes between callers and a port, and stops doing so
 * when told. What was sent meanwhile waits, as in the kernel of a machine that is cut off, and goes on when it is
 * healed.
 */
#pragma once
#include <stdbool.h>

struct relay;

struct relay *relay_open(const char *to_url);
void relay_close(struct relay *relay);
const char *relay_url(const struct relay *relay);
void relay_cut(struct relay *relay, bool is_cut);
