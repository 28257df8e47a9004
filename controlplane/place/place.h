/*
 * place - where the control plane listens: an address of this machine's own with a port, or a unix socket. Never on an
 * address that others reach: in front of those stands Nginx, with TLS.
 *
 *     127.0.0.1:18800     [::1]:18800     unix:/run/qwen-gateway/control.sock     port 0: the kernel's choice
 *
 * Plain functions; called at the start.
 */
#pragma once
#include <stdbool.h>

#include "text.h"

/* NULL: it is one. Else words that follow its name: "must be …". */
const char *place_check(struct slice place);
/*
 * A listening socket, not blocking. A unix socket is its owner's and group's (0660); a stale one is replaced, one in
 * use is not. ERR_SYSTEM with a sentence.
 */
enum err place_open(const char *place, int *ret_socket, struct text *why);
/* Where it really listens, in the same words. */
void place_describe(int socket, struct text *out);
/* Takes the file of a unix socket away. */
void place_remove(const char *place);
