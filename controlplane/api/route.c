/*
 * What can be asked, one row each. Dispatch, roles, the OpenAPI document and the tests that try every route with every
 * role are made of this table. To add a route: a row, its handler, docs/admin-api.md (written by its test).
 */
#include "parts.h"

#define BASE     "/admin/v1"
#define COUNT(a) (sizeof(a) / sizeof *(a))
#define SECOND   INT64_C(1000)
#define DAY      (86400 * SECOND)

const char *const method_names[METHODS] = { "GET", "POST", "PUT", "PATCH", "DELETE" };

/* ---- bodies ---- */

const char *const form_ends[] = { "expires_at", "expires_in", NULL };

static const struct field revoke_fields[] = {
    { "cut", FIELD_BOOL, CREATE, .fallback = "false", .help = "ends the streams that run with it, too" },
};
static const struct field rotate_fields[] = {
    { "keep_for", FIELD_DURATION, CREATE, 0, 366 * DAY, .fallback = "\"24h\"",
      .help = "how long the old secret goes on" },
    { "name", FIELD_LABEL, CREATE, .help = "of the new key; without it the new one takes the old one's name" },
    { "expires_at", FIELD_TIME, CREATE | NULLABLE,
      .help = "of the new key; without it as long as the old one was to live" },
    { "expires_in", FIELD_DURATION, CREATE, SECOND, 36500 * DAY, .help = "the same, from now on" },
};
static const struct field import_fields[] = {
    { "keys", FIELD_KEYS, CREATE | REQUIRED, 1, 1000, .help = "each with the fields of KeyImport" },
    { "create_users", FIELD_BOOL, CREATE, .fallback = "false", .help = "make the users that there are not" },
};
static const struct field gateway_create_fields[] = {
    { "name", FIELD_LABEL, CREATE | REQUIRED, .help = "of its node" },
    { "note", FIELD_NOTE, CREATE, .fallback = "\"\"", .help = "for people" },
    { "expires_in", FIELD_DURATION, CREATE, 60 * SECOND, 366 * DAY, .fallback = "\"24h\"",
      .help = "how long its secret is good" },
};

static const struct form form_revoke = { "KeyRevoke", revoke_fields, COUNT(revoke_fields), CREATE, .excludes = NULL };
static const struct form form_rotate = { "KeyRotate", rotate_fields, COUNT(rotate_fields), CREATE,
                                         .excludes = form_ends };
static const struct form form_import = { "KeysImport", import_fields, COUNT(import_fields), CREATE,
                                         .excludes = form_ends };
static const struct form form_enrol = { "GatewayCreate", gateway_create_fields, COUNT(gateway_create_fields), CREATE,
                                        .excludes = NULL };
static const struct form form_resync = { "GatewayResync", NULL, 0, CREATE, .excludes = NULL };

/* ---- routes ---- */

#define PAGE_OF(noun, path_, title, roles_)                                                          \
    {                                                                                                \
        METHOD_GET, BASE path_, roles_, IS_LIST, &noun, NULL, NULL, handle_list, NULL, "list" title, \
            "lists them, page by page"                                                               \
    }
#define ONE_OF(noun, path_, title, roles_)                                                                       \
    {                                                                                                            \
        METHOD_GET, BASE path_ "/{id}", roles_, 0, &noun, NULL, NULL, handle_get, NULL, "get" title, "shows one" \
    }
#define MAKE(noun, path_, title, name)                                                                      \
    {                                                                                                       \
        METHOD_POST, BASE path_, WRITERS, IS_CHANGE | IS_MADE | TAKES_REPLAYS, &noun, name "_create", NULL, \
            handle_change, NULL, "create" title, "makes one"                                                \
    }
#define ALTER(noun, path_, title, name)                                                                    \
    {                                                                                                      \
        METHOD_PATCH, BASE path_ "/{id}", WRITERS, IS_CHANGE | NEEDS_VERSION, &noun, name "_update", NULL, \
            handle_change, NULL, "update" title, "changes what is named, and nothing else (RFC 7396)"      \
    }
#define DROP(noun, path_, title, action_, roles_, traits_, help_)                                          \
    {                                                                                                      \
        METHOD_DELETE, BASE path_ "/{id}", roles_, IS_CHANGE | IS_EMPTY | (traits_), &noun, action_, NULL, \
            handle_change, NULL, "delete" title, help_                                                     \
    }

const struct route routes[] = {
    { METHOD_GET, "/admin/openapi.json", EVERYBODY, 0, NULL, NULL, NULL, handle_document, "object", "getDocument",
      "this document" },
    { METHOD_GET, BASE "/whoami", READERS, FROM_MEMORY, NULL, NULL, NULL, handle_whoami, "Whoami", "whoami",
      "whose token this is, and what it may" },

    PAGE_OF(noun_user, "/users", "Users", READERS),
    MAKE(noun_user, "/users", "User", "user"),
    ONE_OF(noun_user, "/users", "User", READERS),
    ALTER(noun_user, "/users", "User", "user"),
    DROP(noun_user, "/users", "User", "user_delete", WRITERS, NEEDS_VERSION,
         "deletes the user and revokes the user's keys"),

    PAGE_OF(noun_team, "/teams", "Teams", READERS),
    MAKE(noun_team, "/teams", "Team", "team"),
    ONE_OF(noun_team, "/teams", "Team", READERS),
    ALTER(noun_team, "/teams", "Team", "team"),
    DROP(noun_team, "/teams", "Team", "team_delete", WRITERS, NEEDS_VERSION, "deletes a team that has no users"),

    PAGE_OF(noun_key, "/keys", "Keys", READERS),
    { METHOD_POST, BASE "/keys", WRITERS, IS_CHANGE | IS_MADE | HAS_SECRET | TAKES_REPLAYS, &noun_key, "key_create",
      NULL, handle_key_create, NULL, "createKey", "makes a key; the answer is the only one that shows its secret" },
    { METHOD_POST, BASE "/keys/import", WRITERS, IS_CHANGE | TAKES_REPLAYS, NULL, "key_import", &form_import,
      handle_key_import, "KeysImported", "importKeys",
      "makes up to a thousand keys at once, all or none; those without a hash get a secret, shown in the answer only" },
    ONE_OF(noun_key, "/keys", "Key", READERS),
    ALTER(noun_key, "/keys", "Key", "key"),
    DROP(noun_key, "/keys", "Key", "key_revoke", WRITERS, NEEDS_VERSION, "revokes the key, for good"),
    { METHOD_POST, BASE "/keys/{id}/revoke", WRITERS, IS_CHANGE | TAKES_VERSION | MAY_MISS_BODY, &noun_key,
      "key_revoke", &form_revoke, handle_change, NULL, "revokeKey", "revokes the key, for good" },
    { METHOD_POST, BASE "/keys/{id}/rotate", WRITERS,
      IS_CHANGE | IS_MADE | HAS_SECRET | TAKES_VERSION | TAKES_REPLAYS | MAY_MISS_BODY, &noun_key, "key_rotate",
      &form_rotate, handle_key_rotate, NULL, "rotateKey",
      "makes a new key with the same rules; the old one goes on for a while, under another name" },

    PAGE_OF(noun_whitelist, "/whitelist", "Ranges", READERS),
    MAKE(noun_whitelist, "/whitelist", "Range", "whitelist"),
    ONE_OF(noun_whitelist, "/whitelist", "Range", READERS),
    ALTER(noun_whitelist, "/whitelist", "Range", "whitelist"),
    DROP(noun_whitelist, "/whitelist", "Range", "whitelist_delete", WRITERS, NEEDS_VERSION, "takes the range out"),

    PAGE_OF(noun_model, "/models", "Models", READERS),
    MAKE(noun_model, "/models", "Model", "model"),
    ONE_OF(noun_model, "/models", "Model", READERS),
    ALTER(noun_model, "/models", "Model", "model"),
    DROP(noun_model, "/models", "Model", "model_delete", WRITERS, NEEDS_VERSION, "takes the entry out"),

    PAGE_OF(noun_backend, "/backends", "Backends", READERS),
    MAKE(noun_backend, "/backends", "Backend", "backend"),
    ONE_OF(noun_backend, "/backends", "Backend", READERS),
    ALTER(noun_backend, "/backends", "Backend", "backend"),
    DROP(noun_backend, "/backends", "Backend", "backend_delete", WRITERS, NEEDS_VERSION, "takes the backend out"),

    PAGE_OF(noun_setting, "/settings", "Settings", READERS),
    ONE_OF(noun_setting, "/settings", "Setting", READERS),
    { METHOD_PUT, BASE "/settings/{id}", WRITERS, IS_CHANGE | TAKES_VERSION, &noun_setting, "setting_put", NULL,
      handle_setting_put, NULL, "putSetting", "sets it, whether it was set before or not" },
    DROP(noun_setting, "/settings", "Setting", "setting_delete", WRITERS, NEEDS_VERSION,
         "leaves it to each gateway's own file again"),

    PAGE_OF(noun_gateway, "/gateways", "Gateways", READERS),
    { METHOD_POST, BASE "/gateways", WRITERS, IS_CHANGE | IS_MADE | HAS_SECRET | TAKES_REPLAYS, &noun_gateway,
      "gateway_create", &form_enrol, handle_gateway_create, NULL, "enrollGateway",
      "gives a secret with which a gateway of that name enrolls, once; again for one that is there: another secret" },
    ONE_OF(noun_gateway, "/gateways", "Gateway", READERS),
    ALTER(noun_gateway, "/gateways", "Gateway", "gateway"),
    DROP(noun_gateway, "/gateways", "Gateway", "gateway_remove", WRITERS, NEEDS_VERSION,
         "removes it, for good: it is refused at once"),
    { METHOD_POST, BASE "/gateways/{id}/resync", WRITERS, IS_CHANGE | MAY_MISS_BODY, &noun_gateway, "gateway_resync",
      &form_resync, handle_change, NULL, "resyncGateway",
      "has it forget what it holds and take everything anew; it has done so when it is not `resyncing` any more" },
    { METHOD_POST, BASE "/gateways/resync", WRITERS, IS_CHANGE | MAY_MISS_BODY, NULL, "gateway_resync", &form_resync,
      handle_change, "GatewaysResync", "resyncGateways",
      "the same for all that have enrolled: what gateways need after the database was restored from a backup" },

    PAGE_OF(noun_admin_token, "/admin-tokens", "AdminTokens", OWNERS),
    { METHOD_POST, BASE "/admin-tokens", OWNERS, IS_CHANGE | IS_MADE | HAS_SECRET | TAKES_REPLAYS, &noun_admin_token,
      "admin_token_create", NULL, handle_admin_token_create, NULL, "createAdminToken",
      "makes a token; the answer is the only one that shows its secret" },
    ONE_OF(noun_admin_token, "/admin-tokens", "AdminToken", OWNERS),
    DROP(noun_admin_token, "/admin-tokens", "AdminToken", "admin_token_revoke", OWNERS, 0, "revokes it, for good"),

    PAGE_OF(noun_audit, "/audit", "Audit", WRITERS),
    { METHOD_GET, BASE "/status", READERS, FROM_MEMORY, NULL, NULL, NULL, handle_status, "Status", "getStatus",
      "how the control plane is" },
    { METHOD_GET, BASE "/load", READERS, FROM_MEMORY, NULL, NULL, NULL, handle_load, "Load", "getLoad",
      "what the gateways do right now" },
    { METHOD_GET, BASE "/confirmations/{id}", READERS, TAKES_WAIT | FROM_MEMORY, NULL, NULL, NULL, handle_confirmations,
      "Confirmations", "getConfirmations", "which gateways work by this version of the configuration, or a newer one" },
};
const size_t route_count = COUNT(routes);

bool route_form(const struct route *route, struct form *ret_form)
{
    if (route->method == METHOD_GET || route->method == METHOD_DELETE)
        return false;
    if (route->form)
        *ret_form = *route->form;
    else
        *ret_form = (struct form){
            .title = route->noun->title,
            .fields = route->noun->fields,
            .count = route->noun->field_count,
            .use = route->method == METHOD_PATCH ? CHANGE : CREATE,
            .excludes = form_ends,
            .is_patch = route->method == METHOD_PATCH,
        };
    return true;
}

unsigned role_of(struct slice name)
{
    static const char *const names[] = { "viewer", "billing", "operator", "owner" };

    for (unsigned i = 0; i < COUNT(names); i++)
        if (slice_is(slice_of(names[i]), name))
            return 1U << i;
    return 0;
}

/* Part by part; what stands for {id} is not empty. */
static bool is_path(const char *pattern, struct slice path, struct slice *ret_param)
{
    struct slice left = slice_of(pattern);

    while (left.len && path.len) {
        struct slice wanted = { left.at + 1, 0 }, given = { path.at + 1, 0 };
        const char *end = memchr(wanted.at, '/', left.len - 1);

        if (*path.at != '/')
            return false;
        wanted.len = end ? (size_t)(end - wanted.at) : left.len - 1;
        end = path.len > 1 ? memchr(given.at, '/', path.len - 1) : NULL;
        given.len = end ? (size_t)(end - given.at) : path.len - 1;
        if (slice_is(wanted, SLICE("{id}")) && given.len)
            *ret_param = given;
        else if (!slice_is(wanted, given))
            return false;
        left = (struct slice){ wanted.at + wanted.len, left.len - 1 - wanted.len };
        path = (struct slice){ given.at + given.len, path.len - 1 - given.len };
    }
    return !left.len && !path.len;
}

const struct route *route_find(const char *method, struct slice path, struct slice *ret_param, unsigned *ret_methods)
{
    const struct route *found = NULL;
    bool is_exact = false;

    *ret_methods = 0;
    for (size_t i = 0; i < route_count; i++) {
        struct slice param = { NULL, 0 };
        bool fits = is_path(routes[i].path, path, &param);
        bool is_plain = fits && !param.at;

        if (!fits || (is_exact && !is_plain))
            continue;
        if (is_plain && !is_exact) { /* keys/import is no key called import */
            is_exact = true;
            found = NULL;
            *ret_methods = 0;
        }
        *ret_methods |= 1U << routes[i].method;
        if (strcmp(method_names[routes[i].method], method) != 0)
            continue;
        found = &routes[i];
        *ret_param = param;
    }
    return found;
}
