/* Who asks: the key, the real client behind proxies, the person behind a front end, and their rate. */
#include "clock.h"
#include "http.h"
#include "parts.h"

enum { MAX_KEY_BYTES = 256, MAX_NAME_BYTES = 128 };

enum cause identity_check_fields(struct request *req, const struct http_head *head)
{
    unsigned count = 0;

    (void)http_field_named(head, slice_of(settings_of(req)->header_key), &count);
    return count > 1 ? CAUSE_BAD_HTTP : CAUSE_NONE;
}

static bool is_trusted(const struct request *req, const struct address *address)
{
    return cidr_list_has(&settings_of(req)->trusted_proxies, address);
}

/* One X-Forwarded-For line from the right. False: the end was found. */
static bool walk_left(const struct request *req, struct slice line, struct address *client)
{
    while (line.len) {
        size_t start = line.len;
        struct address address;

        while (start && line.at[start - 1] != ',')
            start--;
        if (!address_parse_loose(slice_trim((struct slice){ line.at + start, line.len - start }), &address))
            return false; /* whoever wrote this is as far as we can see */
        *client = address;
        if (!is_trusted(req, &address))
            return false;
        line.len = start ? start - 1 : 0;
    }
    return true;
}

static void find_real_client(struct request *req, const struct http_head *head)
{
    struct address *client = &req->record.address;

    if (!settings_of(req)->trusted_proxies.count || !is_trusted(req, client))
        return;
    for (unsigned i = head->field_count; i-- > 0;)
        if (slice_is_nocase(head->fields[i].name, SLICE("x-forwarded-for")) &&
            !walk_left(req, head->fields[i].value, client))
            return;
}

/* The secret presented. Bearer decides where both are there; errors are flat when only header_key came. */
static struct slice find_secret(struct request *req, const struct http_head *head)
{
    struct slice bearer = http_field(head, HTTP_AUTHORIZATION);
    unsigned count = 0;
    struct slice plain = http_field_named(head, slice_of(settings_of(req)->header_key), &count);
    struct slice scheme = { bearer.at, bearer.len < 7 ? bearer.len : 7 };

    if (slice_is_nocase(scheme, SLICE("bearer ")))
        return slice_trim((struct slice){ bearer.at + 7, bearer.len - 7 });
    if (count)
        req->error_shape = ERROR_SHAPE_FLAT;
    return plain;
}

static enum cause find_key(struct request *req, const struct http_head *head)
{
    struct slice secret = find_secret(req, head);
    const struct key *key;
    struct digest hash = { 0 };

    if (settings_of(req)->auth_enabled) {
        if (!secret.len || secret.len > MAX_KEY_BYTES)
            return CAUSE_KEY;
        digest_sha256(secret, &hash);
        key = keyring_find(req->keys, &hash);
        if (!key || (key->expires_s && !key_is_valid_at(key, clock_wall_ms() / 1000)))
            return CAUSE_KEY;
        req->key = key;
        req->record.key = key_name(key);
        req->record.user = key_user(key);
    }
    /* Without keys everybody shares one holder, and is a person by address. */
    req->holder = limits_holder(req->house->limits, &hash);
    return req->holder ? CAUSE_NONE : CAUSE_NO_MEMORY;
}

/* NAME/person, as log and limits show somebody seen through a key. */
static void show_person(struct request *req, struct slice person)
{
    struct text shown;

    text_init(&shown, 512);
    text_add_slice(&shown, key_name(req->key));
    text_add_char(&shown, '/');
    text_add_slice(&shown, person);
    req->record.user = arena_copy(&req->arena, text_slice(&shown));
    text_release(&shown);
}

static enum cause borrow_person(struct request *req, struct slice name)
{
    bool is_other = false;

    req->person = person_borrow(req->holder, name, settings_of(req)->window_ms, clock_ms(), &is_other);
    if (!req->person)
        return CAUSE_NO_MEMORY;
    if (is_other && req->key)
        show_person(req, SLICE("other"));
    return CAUSE_NONE;
}

/* A name that the caller gives for somebody: honoured for delegate keys, shown for plain ones, else ignored. */
static enum cause find_person(struct request *req, struct slice given)
{
    struct text name;
    enum cause cause;
    bool is_named;

    if (!req->key) {
        char address[ADDRESS_TEXT_BYTES];
        return borrow_person(req, slice_of(address_text(&req->record.address, address)));
    }
    text_init(&name, MAX_NAME_BYTES * 4);
    is_named = given.len > 0 && (req->key->delegates || req->key->is_plain);
    if (is_named) {
        record_clean_name(given, &name);
        show_person(req, text_slice(&name));
    }
    if (!req->key->delegates)
        text_clear(&name);
    cause = borrow_person(req, text_slice(&name));
    text_release(&name);
    return cause;
}

static struct rate_rule rate_rule_of(const struct request *req)
{
    const struct settings *settings = settings_of(req);

    return (struct rate_rule){
        .max_requests = req->key && req->key->max_requests ? req->key->max_requests : settings->max_requests,
        .max_total = req->key ? req->key->max_total_requests : 0,
        .window_ms = settings->window_ms,
    };
}

/* Requests through a trusted proxy count by the real client; connections of others were counted at accept. */
static bool enter_address(struct request *req)
{
    if (address_is(&req->record.address, client_peer(req->client)))
        return true;
    req->has_address =
        address_enter(req->house->limits, &req->record.address, settings_of(req)->max_connections_per_address);
    return req->has_address;
}

enum cause identity_find(struct request *req, const struct http_head *head)
{
    const struct settings *settings = settings_of(req);
    struct slice given = { 0 };
    struct rate_rule rule;
    unsigned count = 0;
    enum cause cause;

    find_real_client(req, head);
    cause = find_key(req, head);
    if (cause)
        return cause;
    if (req->key && req->key->allow && !cidr_list_has(req->key->allow, &req->record.address))
        return CAUSE_ADDRESS;
    if (!enter_address(req))
        return CAUSE_ADDRESS_BUSY;
    if (!settings->user_from_body)
        given = http_field_named(head, slice_of(settings->user_header), &count);
    if (count > 1) /* one is the front end's, the other may be its caller's */
        return CAUSE_BAD_HTTP;
    cause = find_person(req, given);
    if (cause)
        return cause;
    req->has_rate = settings->rate_enabled;
    if (!req->has_rate)
        return CAUSE_NONE;
    rule = rate_rule_of(req);
    rate_look(req->person, &rule, clock_ms(), &req->rate);
    return req->rate.is_full ? CAUSE_RATE : CAUSE_NONE;
}

void identity_from_body(struct request *req)
{
    if (!settings_of(req)->user_from_body || !req->inference->user.len || !req->key)
        return;
    if (req->person)
        person_give_back(req->person);
    req->person = NULL;
    (void)find_person(req, req->inference->user);
}

bool identity_take_rate(struct request *req)
{
    struct rate_rule rule;

    if (!req->has_rate)
        return true;
    if (!req->person)
        return false; /* no memory for a name from the body */
    rule = rate_rule_of(req);
    rate_take(req->person, &rule, clock_ms(), &req->rate);
    return !req->rate.is_full;
}

bool identity_enter(struct request *req)
{
    if (!req->key || !req->key->max_concurrent)
        return true;
    req->has_entered = holder_enter(req->holder, req->key->max_concurrent);
    return req->has_entered;
}

void identity_give_back(struct request *req)
{
    if (req->has_entered)
        holder_leave(req->holder);
    req->has_entered = false;
    if (req->has_address)
        address_leave(req->house->limits, &req->record.address);
    if (req->person)
        person_give_back(req->person);
    req->has_address = false;
    req->person = NULL;
}
