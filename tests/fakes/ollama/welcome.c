#include "welcome.h"
#include "options.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_private_address(struct slice host)
{
    unsigned part[4];
    char text[64];
    char end;

    if (host.len >= sizeof text)
        return false;
    memcpy(text, host.at, host.len);
    text[host.len] = 0;
    if (strcmp(text, "[::1]") == 0 || strcmp(text, "[::]") == 0)
        return true;
    if (sscanf(text, "%u.%u.%u.%u%c", &part[0], &part[1], &part[2], &part[3], &end) != 4)
        return false;
    return part[0] == 127 || part[0] == 10 || part[0] == 0 || (part[0] == 172 && part[1] >= 16 && part[1] < 32) ||
           (part[0] == 192 && part[1] == 168);
}

static struct slice without_port(struct slice host)
{
    const char *colon = memrchr(host.at, ':', host.len);

    if (colon && !memchr(colon, ']', host.len - (size_t)(colon - host.at)))
        host.len = (size_t)(colon - host.at);
    return host;
}

static bool host_is_known(struct slice host)
{
    static const char *const endings[] = { ".localhost", ".local", ".internal" };
    char own[256];

    host = without_port(host);
    if (host.len == 0 || slice_is_caseless(host, "localhost") || is_private_address(host))
        return true;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (slice_ends_caseless(host, endings[i]))
            return true;
    return gethostname(own, sizeof own) == 0 && slice_is_caseless(host, own);
}

static bool origin_is_known(struct slice origin)
{
    static const char *const schemes[] = { "http://", "https://" };
    static const char *const apps[] = { "app://", "file://", "tauri://", "vscode-webview://", "vscode-file://" };

    for (size_t i = 0; i < sizeof apps / sizeof *apps; i++)
        if (slice_starts(origin, apps[i]))
            return true;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t len = strlen(schemes[i]);
        struct slice host;

        if (!slice_starts(origin, schemes[i]))
            continue;
        host = without_port((struct slice){ origin.at + len, origin.len - len });
        if (slice_is(host, "localhost") || slice_is(host, "127.0.0.1") || slice_is(host, "0.0.0.0"))
            return true;
    }
    return false;
}

bool is_welcome(const struct http_request *req, const char *base)
{
    struct slice host = http_header(req, base, "host");
    struct slice origin = http_header(req, base, "origin");

    if (options.checks_host && host.at && !host_is_known(host))
        return false;
    return !origin.len || origin_is_known(origin);
}
