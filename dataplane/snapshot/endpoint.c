/* Places: where to listen, where a backend is, which addresses may come. */
#include "parts.h"

#include <stdlib.h>

enum { HOST_MAX_BYTES = 253, URL_MAX_BYTES = 512, WORDS_BYTES = 512 };

static bool parse_port(struct slice text, unsigned min, uint16_t *ret_port)
{
    unsigned port = 0;

    if (!text.len || text.len > 5 || (text.len > 1 && text.at[0] == '0'))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        port = port * 10 + (unsigned)(text.at[i] - '0');
    }
    if (port < min || port > UINT16_MAX)
        return false;
    *ret_port = (uint16_t)port;
    return true;
}

/* A host's name or an IPv4 address; a text of digits and dots only must be the latter. */
static bool is_host(struct slice host)
{
    struct address address;
    bool is_numeric = true;

    if (!host.len || host.len > HOST_MAX_BYTES || host.at[0] == '-' || host.at[0] == '.')
        return false;
    for (size_t i = 0; i < host.len; i++) {
        char c = host.at[i];
        bool is_digit = (c >= '0' && c <= '9') || c == '.';
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
        if (!is_digit && !is_letter)
            return false;
        if (c == '.' && i + 1 < host.len && host.at[i + 1] == '.')
            return false;
        is_numeric &= is_digit;
    }
    return !is_numeric || address_parse(host, &address);
}

/* HOST, HOST:PORT, [IPV6] or [IPV6]:PORT into its parts; *ret_port is empty when there is none. */
static bool split_authority(struct slice text, struct slice *ret_host, struct slice *ret_port)
{
    struct address address;
    const char *end = text.at + text.len;
    const char *stop;

    *ret_port = (struct slice){ NULL, 0 };
    if (text.len && text.at[0] == '[') {
        stop = memchr(text.at, ']', text.len);
        if (!stop)
            return false;
        *ret_host = (struct slice){ text.at + 1, (size_t)(stop - text.at) - 1 };
        if (!memchr(ret_host->at, ':', ret_host->len) || !address_parse(*ret_host, &address))
            return false;
        stop++;
    } else {
        stop = text.len ? memchr(text.at, ':', text.len) : NULL;
        stop = stop ? stop : end;
        *ret_host = (struct slice){ text.at, (size_t)(stop - text.at) };
        if (ret_host->len && !is_host(*ret_host))
            return false;
    }
    if (stop == end)
        return true;
    *ret_port = (struct slice){ stop + 1, (size_t)(end - stop) - 1 };
    return *stop == ':' && ret_port->len != 0;
}

static bool parse_listen(struct slice text, struct endpoint *endpoint, struct slice *ret_host)
{
    struct slice port;

    return split_authority(text, ret_host, &port) && parse_port(port, 0, &endpoint->port);
}

static enum err unix_read(struct conf_reading *reading, const struct conf_node *node, struct endpoint *endpoint)
{
    struct slice path = { node->text.at + 5, node->text.len - 5 };

    if (!path.len || path.at[0] != '/')
        return conf_refuse(reading->conf, node, reading->why, "needs a path that begins with / after unix:");
    if (path.len >= sizeof((struct sockaddr_un){ 0 }.sun_path))
        return conf_refuse(reading->conf, node, reading->why, "has a path of %zu bytes, but at most %zu are allowed",
                           path.len, sizeof((struct sockaddr_un){ 0 }.sun_path) - 1);
    endpoint->path = conf_keep(reading->arena, path);
    endpoint->host = "";
    return endpoint->path ? ERR_OK : no_memory(reading, node);
}

enum err endpoint_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                       void *field)
{
    struct endpoint *endpoint = field;
    struct slice text, host;
    enum err err;

    if (node->kind == CONF_SCALAR && !node->is_quoted && parse_port(node->text, 0, &endpoint->port))
        return conf_refuse(reading->conf, node, reading->why, "must be %s: write \":%.*s\"", row->form,
                           (int)node->text.len, node->text.at);
    err = conf_string(reading, node, 1, URL_MAX_BYTES, &text);
    if (err != ERR_OK)
        return err;
    *endpoint = (struct endpoint){ .text = conf_keep(reading->arena, text) };
    if (!endpoint->text)
        return no_memory(reading, node);
    if (slice_starts(text, SLICE("unix:")))
        return unix_read(reading, node, endpoint);
    if (!parse_listen(text, endpoint, &host)) {
        struct text what;
        text_init(&what, WORDS_BYTES);
        conf_add_what(reading, node, &what);
        (void)conf_refuse(reading->conf, node, reading->why, "must be %s with a port from 0 to 65535, not %s",
                          row->form, text_string(&what));
        text_release(&what);
        return ERR_BAD;
    }
    endpoint->host = conf_keep(reading->arena, host);
    return endpoint->host ? ERR_OK : no_memory(reading, node);
}

void endpoint_print(const void *field, struct text *out)
{
    text_add_string(out, ((const struct endpoint *)field)->text);
}

static enum err host_read(struct conf_reading *reading, const struct conf_node *node, const char **ret_host)
{
    struct slice host;
    enum err err = conf_string(reading, node, 1, HOST_MAX_BYTES, &host);

    if (err != ERR_OK)
        return err;
    if (!is_host(host))
        return conf_refuse(reading->conf, node, reading->why, "is not a host's name (without port and brackets)");
    *ret_host = conf_keep(reading->arena, host);
    return *ret_host ? ERR_OK : no_memory(reading, node);
}

enum err hosts_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node, void *field)
{
    struct settings *settings = &((struct snapshot_reading *)reading->owner)->snapshot->settings;
    enum err err = conf_expect(reading, node, CONF_LIST);
    const char **hosts;

    (void)row;
    if (err != ERR_OK)
        return err;
    hosts = arena_take(reading->arena, (node->count + 1) * sizeof *hosts);
    if (!hosts)
        return no_memory(reading, node);
    *(const char *const **)field = hosts;
    for (const struct conf_node *item = node->first; item && err == ERR_OK; item = item->next)
        err = host_read(reading, item, &hosts[settings->operator_host_count++]);
    return err;
}

void hosts_print(const void *field, struct text *out)
{
    const struct settings *settings = HOLDER(struct settings, operator_hosts, field);

    text_add_char(out, '[');
    for (size_t i = 0; i < settings->operator_host_count; i++)
        text_printf(out, "%s%s", i ? ", " : "", settings->operator_hosts[i]);
    text_add_char(out, ']');
}

/* Why the text is no URL of an Ollama, as words that follow its key; NULL: it is one. */
static const char *parse_url(struct slice text, struct slice *ret_host, uint16_t *ret_port)
{
    struct slice rest = { text.at + 7, text.len > 7 ? text.len - 7 : 0 };
    struct slice port;

    if (text.len >= 8 && slice_is_nocase((struct slice){ text.at, 8 }, SLICE("https://")))
        return "cannot be https: Ollama speaks plain http; put both on one machine or a private network";
    if (text.len < 7 || !slice_is_nocase((struct slice){ text.at, 7 }, SLICE("http://")))
        return "must begin with http://, such as http://localhost:11434";
    if (memchr(rest.at, '@', rest.len))
        return "must not hold a user or password (@)";
    if (memchr(rest.at, '?', rest.len) || memchr(rest.at, '#', rest.len))
        return "must not hold a query (?) or fragment (#)";
    if (rest.len && rest.at[rest.len - 1] == '/')
        rest.len--;
    if (memchr(rest.at, '/', rest.len))
        return "must not hold a path: http://HOST:PORT is all";
    if (!split_authority(rest, ret_host, &port) || !ret_host->len)
        return "must name a host or address: http://HOST:PORT";
    *ret_port = 80;
    if (port.len && !parse_port(port, 1, ret_port))
        return "must have a port from 1 to 65535";
    return NULL;
}

const char *link_url_wrong(struct slice text)
{
    struct slice rest = text, host, port;
    uint16_t number;

    if (slice_starts(rest, SLICE("tls+"))) {
        rest.at += 4;
        rest.len -= 4;
    }
    if (!slice_starts(rest, SLICE("tcp://")))
        return "must begin with tcp:// or tls+tcp://, such as tcp://127.0.0.1:18801";
    rest.at += 6;
    rest.len -= 6;
    if (!split_authority(rest, &host, &port) || !host.len || !parse_port(port, 1, &number))
        return "must name a host and a port, such as tcp://127.0.0.1:18801";
    return NULL;
}

static bool is_loopback(struct slice host)
{
    static const struct address v6 = { .bytes = { [15] = 1 } };
    static const struct cidr v4 = { .base = { .bytes = { [10] = 0xff, 0xff, 127 } }, .bits = 96 + 8 };
    struct address address;

    if (slice_is_nocase(host, SLICE("localhost")))
        return true;
    return address_parse(host, &address) && (address_is(&address, &v6) || cidr_has(&v4, &address));
}

/* Ollama answers 403 to a Host it does not know; a loopback address it always does. */
static const char *authority_of(struct arena *arena, struct slice host, uint16_t port)
{
    struct text authority;
    const char *kept;

    text_init(&authority, URL_MAX_BYTES);
    if (is_loopback(host))
        text_add_literal(&authority, "127.0.0.1");
    else if (memchr(host.at, ':', host.len))
        text_printf(&authority, "[%.*s]", (int)host.len, host.at);
    else
        text_add_slice(&authority, host);
    text_printf(&authority, ":%u", port);
    kept = authority.err == ERR_OK ? conf_keep(arena, text_slice(&authority)) : NULL;
    text_release(&authority);
    return kept;
}

/* Host, port and authority of a backend. */
enum err url_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node, void *field)
{
    struct backend_rule *rule = field;
    struct slice text, host = { "", 0 };
    const char *wrong;
    enum err err = conf_string(reading, node, 1, URL_MAX_BYTES, &text);

    (void)row;
    if (err != ERR_OK)
        return err;
    wrong = parse_url(text, &host, &rule->port);
    if (wrong)
        return conf_refuse(reading->conf, node, reading->why, "%s", wrong);
    rule->host = conf_keep(reading->arena, host);
    rule->authority = authority_of(reading->arena, host, rule->port);
    return rule->host && rule->authority ? ERR_OK : no_memory(reading, node);
}

void backend_url_print(const struct backend_rule *rule, struct text *out)
{
    text_printf(out, strchr(rule->host, ':') ? "http://[%s]:%u" : "http://%s:%u", rule->host, rule->port);
}

static bool is_localhost(const char *host)
{
    return slice_is_nocase(slice_of(host), SLICE("localhost"));
}

/* 127.0.0.1 and ::1, which localhost may mean. */
static bool is_localhost_address(const char *host)
{
    return strcmp(host, "127.0.0.1") == 0 || strcmp(host, "::1") == 0;
}

static bool is_same_host(const char *one, const char *other)
{
    struct address first, second;

    if (is_localhost(one) && is_localhost_address(other))
        return true;
    if (is_localhost(other) && is_localhost_address(one))
        return true;
    if (address_parse(slice_of(one), &first) && address_parse(slice_of(other), &second))
        return address_is(&first, &second);
    return slice_is_nocase(slice_of(one), slice_of(other));
}

bool backend_is_same_place(const struct backend_rule *one, const struct backend_rule *other)
{
    return one->port == other->port && is_same_host(one->host, other->host);
}

enum err cidrs_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node, void *field)
{
    enum err err = conf_expect(reading, node, CONF_LIST);

    (void)row;
    for (const struct conf_node *item = node->first; item && err == ERR_OK; item = item->next) {
        struct cidr cidr = { 0 };
        struct slice text;
        struct text why;

        err = conf_string(reading, item, 1, URL_MAX_BYTES, &text);
        if (err != ERR_OK)
            return err;
        text_init(&why, WORDS_BYTES);
        err = cidr_parse(text, &cidr, &why);
        if (err != ERR_OK)
            (void)conf_refuse(reading->conf, item, reading->why, "is wrong: %s", text_string(&why));
        text_release(&why);
        if (err == ERR_OK && cidr_list_add(field, cidr) != ERR_OK)
            err = no_memory(reading, item);
    }
    return err;
}

void cidrs_print(const void *field, struct text *out)
{
    const struct cidr_list *list = field;

    text_add_char(out, '[');
    for (size_t i = 0; i < list->count; i++) {
        const struct cidr *cidr = &list->items[i];
        char address[ADDRESS_TEXT_BYTES];
        bool is_v4 = cidr->bits >= 96 && !strchr(address_text(&cidr->base, address), ':');
        unsigned bits = is_v4 ? cidr->bits - 96 : cidr->bits;
        text_printf(out, "%s%s", i ? ", " : "", address_text(&cidr->base, address));
        if (bits != (is_v4 ? 32 : 128))
            text_printf(out, "/%u", bits);
    }
    text_add_char(out, ']');
}
