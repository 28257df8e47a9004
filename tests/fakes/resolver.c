/*
 * resolver - a resolver that hangs: preloaded (LD_PRELOAD), it knows 127.0.0.1 by every name that ends in .test, but
 * does not say so before the file named by QG_RESOLVER is there.
 */
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*look_up)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static int is_ours(const char *host)
{
    size_t len = host ? strlen(host) : 0;

    return len > 5 && strcmp(host + len - 5, ".test") == 0;
}

__attribute__((visibility("default"))) int getaddrinfo(const char *restrict host, const char *restrict service,
                                                       const struct addrinfo *restrict hints,
                                                       struct addrinfo **restrict ret_found)
{
    const char *path = getenv("QG_RESOLVER");
    look_up real;

    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    while (is_ours(host) && path && access(path, F_OK) != 0)
        (void)usleep(10000);
    return real(is_ours(host) ? "127.0.0.1" : host, service, hints, ret_found);
}
