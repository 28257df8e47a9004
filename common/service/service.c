#include "service.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "clock.h"

enum err service_take_sockets(struct service_sockets *ret, struct text *why)
{
    char **names = NULL;
    int count = sd_listen_fds_with_names(1, &names);
    enum err err = ERR_OK;

    *ret = (struct service_sockets){ .operator_socket = -1 };
    for (int i = 0; i < count; i++) {
        int fd = SD_LISTEN_FDS_START + i;
        if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0) {
            text_printf(why, "the inherited descriptor %d is not a listening stream socket", fd);
            err = ERR_BAD;
        } else if (names && names[i] && strcmp(names[i], "operator") == 0) {
            ret->operator_socket = fd;
        } else if (ret->caller_count < SERVICE_MAX_SOCKETS) {
            ret->callers[ret->caller_count++] = fd;
        }
    }
    for (int i = 0; names && names[i]; i++)
        free(names[i]);
    free(names);
    return err;
}

void service_is_ready(const char *status)
{
    (void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void service_is_reloading(void)
{
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reloading the configuration", (long long)clock_us());
}

void service_is_stopping(void)
{
    (void)sd_notify(0, "STOPPING=1\nSTATUS=finishing open requests");
}
