/*
 * service - what the service manager gives and wants: inherited sockets (LISTEN_FDS) and notifications (NOTIFY_SOCKET).
 * libsystemd's only door. Without a service manager nothing happens. Main thread.
 */
#pragma once
#include <stddef.h>

#include "text.h"

enum { SERVICE_MAX_SOCKETS = 8 };

struct service_sockets {
    int callers[SERVICE_MAX_SOCKETS]; /* for `listen` */
    size_t caller_count;
    int operator_socket; /* the one named "operator" (FileDescriptorName=); -1: none */
};

/* Takes them over, once. ERR_BAD with a sentence: something inherited is not a listening stream socket. */
enum err service_take_sockets(struct service_sockets *ret, struct text *why);

void service_is_ready(const char *status);
void service_is_reloading(void);
void service_is_stopping(void);
