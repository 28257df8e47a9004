/*
 * What there is, field by field, in the order in which it is shown. Validation, queries and the OpenAPI document are
 * made of this table. To add a field: a row here, the column and the ledger's function, docs/admin-api.md (written by
 * its test).
 */
#include "parts.h"

#define PART    "[A-Za-z0-9_][A-Za-z0-9._-]*"
#define LABEL   "^[a-z0-9_][a-z0-9._@+-]{0,127}$"
#define RFC3339 "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"
#define OCTET   "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define IPV4    OCTET "\\." OCTET "\\." OCTET "\\." OCTET
/* The last part has a letter in it, so that no address is mistaken for a name. */
#define HOST      "([A-Za-z0-9_][A-Za-z0-9_-]{0,62}\\.){0,3}[0-9]{0,31}[A-Za-z_][A-Za-z0-9_-]{0,31}"
#define PORT      "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
#define DAY_MS    INT64_C(86400000)
#define SECOND_MS INT64_C(1000)
#define COUNT(a)  (sizeof(a) / sizeof *(a))

const struct field_form field_forms[FIELD_KINDS] = {
    [FIELD_LABEL] = { LABEL, 1, 128, NULL, "a name of lower-case letters, digits and . _ @ + - (128 at most)" },
    [FIELD_BACKEND_NAME] = { "^[A-Za-z0-9._-]{1,64}$", 1, 64, NULL,
                             "a name of letters, digits and . _ - (64 at most)" },
    [FIELD_SETTING_NAME] = { "^[a-z][a-z0-9_.]{0,63}$", 1, 64, NULL, "a name of lower-case letters, digits, _ and ." },
    [FIELD_MODEL] = { "^((" PART "(:" PART ")?/)?" PART "/)?" PART "(:" PART ")?$", 1, 200, NULL,
                      "the name of a model, such as qwen3:32b (200 characters at most)" },
    [FIELD_NOTE] = { NULL, 0, 1000, NULL, "one line of text without control characters (1000 characters at most)" },
    [FIELD_TEXT] = { NULL, 1, 512, NULL, "one line of text without control characters (1 to 512 characters)" },
    [FIELD_RANGE] = { NULL, 2, 49, "cidr", "an address or a range of addresses, such as 10.0.0.0/16" },
    [FIELD_URL] = { "^http://(" IPV4 "|" HOST "|\\[[0-9A-Fa-f:.]+\\])(:" PORT ")?/?$", 8, 512, NULL,
                    "http://HOST:PORT (Ollama speaks plain http)" },
    [FIELD_KEEP_ALIVE] = { "^(-1|[0-9]{1,9}|-?([0-9]{1,9}(ns|us|ms|s|m|h)){1,6})$", 1, 64, NULL,
                           "whole seconds (-1: for ever) or a duration such as 5m, as text" },
    [FIELD_DURATION] = { "^[0-9]{1,9}[smhd]$", 2, 10, NULL,
                         "a duration, such as \"90d\", \"24h\", \"30m\" or \"15s\"" },
    [FIELD_TIME] = { RFC3339, 20, 40, "date-time", "a time as RFC 3339 has it, such as \"2026-12-24T18:00:00Z\"" },
    [FIELD_UUID] = { NULL, 36, 36, "uuid", "a UUID" },
    [FIELD_HASH] = { "^[0-9a-f]{64}$", 64, 64, NULL, "a SHA-256 in lower-case hexadecimal" },
    [FIELD_SECRET] = { "^[!-~]{1,256}$", 1, 256, NULL, "1 to 256 printable ASCII characters" },
    [FIELD_PREFIX] = { "^[0-9A-Za-z]{4,16}$", 4, 16, NULL, "4 to 16 letters and digits" },
};

static const char *const classes[] = { "interactive", "batch", NULL };
static const char *const states[] = { "active", "revoked", "expired", NULL };
static const char *const kinds[] = { "ollama", NULL };
static const char *const roles[] = { "viewer", "billing", "operator", "owner", NULL };

#define WRITES CREATE | CHANGE

/* What every object that has a version shows at its end. */
#define STAMPS                                                                                                 \
    { "version", FIELD_COUNT, SHOWN, 1, INT32_MAX, .help = "goes up with every change; what If-Match names" }, \
        { "created_at", FIELD_TIME, SHOWN, .help = "when it was made" },                                       \
    {                                                                                                          \
        "updated_at", FIELD_TIME, SHOWN, .help = "when it was last changed"                                    \
    }
#define NOTE                                                                         \
    {                                                                                \
        "note", FIELD_NOTE, SHOWN | WRITES, .fallback = "\"\"", .help = "for people" \
    }
#define BY_NAME                                                  \
    {                                                            \
        "name", FIELD_LABEL, .help = "only the one of this name" \
    }

static const struct field user_fields[] = {
    { "id", FIELD_UUID, SHOWN, .help = "never changes" },
    { "name", FIELD_LABEL, SHOWN | WRITES | REQUIRED, .help = "whom logs, fairness and usage speak of" },
    { "team", FIELD_LABEL, SHOWN | WRITES | NULLABLE, .help = "the team's name, or its id; null: none" },
    { "weight", FIELD_COUNT, SHOWN | WRITES, 1, 1000, .fallback = "1",
      .help = "share of the queue beside other users'" },
    { "class", FIELD_CHOICE, SHOWN | WRITES, .words = classes, .fallback = "\"interactive\"",
      .help = "batch waits behind interactive" },
    { "disabled", FIELD_BOOL, SHOWN | WRITES, .fallback = "false", .help = "none of the user's keys lets anybody in" },
    NOTE,
    { "keys", FIELD_COUNT, SHOWN, 0, INT32_MAX, .help = "active keys" },
    STAMPS,
};
static const struct field user_filters[] = {
    { "team", FIELD_LABEL, .help = "only members of this team" },
    { "disabled", FIELD_BOOL, .help = "only those, or only the others" },
    BY_NAME,
};

static const struct field team_fields[] = {
    { "id", FIELD_UUID, SHOWN, .help = "never changes" },
    { "name", FIELD_LABEL, SHOWN | WRITES | REQUIRED, .help = "of a group of users" },
    NOTE,
    { "users", FIELD_COUNT, SHOWN, 0, INT32_MAX, .help = "users in it" },
    STAMPS,
};
static const struct field name_filters[] = { BY_NAME };

#define KEY_WRITES WRITES | IMPORTED
static const struct field key_fields[] = {
    { "id", FIELD_UUID, SHOWN, .help = "never changes" },
    { "user", FIELD_LABEL, SHOWN | CREATE | IMPORTED | REQUIRED, .help = "whose it is: name, or id" },
    { "team", FIELD_LABEL, SHOWN | IMPORTED | NULLABLE, .help = "the user's; in an import, of a user that it makes" },
    { "name", FIELD_LABEL, SHOWN | KEY_WRITES | REQUIRED, .help = "once among the user's active keys" },
    { "prefix", FIELD_PREFIX, SHOWN | IMPORTED | NULLABLE, .help = "the public id: what logs call it" },
    { "secret", FIELD_SECRET, IMPORTED, .help = "one that is in use already, which goes on; without it one is made" },
    { "hash", FIELD_HASH, IMPORTED, .help = "the same, where only its SHA-256 is known" },
    { "state", FIELD_CHOICE, SHOWN, .words = states, .help = "revoked is for good" },
    { "expires_at", FIELD_TIME, SHOWN | KEY_WRITES | NULLABLE,
      .help = "when it stops letting anybody in; null: never" },
    { "expires_in", FIELD_DURATION, KEY_WRITES, SECOND_MS, 36500 * DAY_MS, .help = "the same, from now on" },
    { "models", FIELD_MODELS, SHOWN | KEY_WRITES | NULLABLE, 1, 1000, .help = "the only models it may use; null: all" },
    { "rpm", FIELD_COUNT, SHOWN | KEY_WRITES | NULLABLE, 1, 1000000,
      .help = "requests a minute, on each gateway; null: the gateway's own limit" },
    { "max_concurrent", FIELD_COUNT, SHOWN | KEY_WRITES | NULLABLE, 1, 1000000,
      .help = "requests at a time, on each gateway; null: no limit" },
    { "allow", FIELD_RANGES, SHOWN | KEY_WRITES | NULLABLE, 1, 1000,
      .help = "the only addresses it works from; null: all" },
    { "delegate", FIELD_BOOL, SHOWN | KEY_WRITES, .fallback = "false", .help = "it may name the person it speaks for" },
    { "create_user", FIELD_BOOL, CREATE, .fallback = "false", .help = "make the user if there is none of that name" },
    { "replaced_by", FIELD_UUID, SHOWN | NULLABLE, .help = "the key that took its place" },
    { "note", FIELD_NOTE, SHOWN | KEY_WRITES, .fallback = "\"\"", .help = "for people" },
    STAMPS,
    { "revoked_at", FIELD_TIME, SHOWN | NULLABLE, .help = "when it was revoked" },
};
static const struct field key_filters[] = {
    { "user", FIELD_LABEL, .help = "only this user's" },
    { "team", FIELD_LABEL, .help = "only those of this team's users" },
    { "state", FIELD_CHOICE, .words = states, .help = "only those in this state" },
    BY_NAME,
    { "prefix", FIELD_PREFIX, .help = "only the one with this public id" },
    { "expires_before", FIELD_TIME, .help = "only those that expire before" },
};

static const struct field whitelist_fields[] = {
    { "cidr", FIELD_RANGE, SHOWN | CREATE | REQUIRED, .help = "addresses that may come at all" },
    NOTE,
    STAMPS,
};

static const struct field model_fields[] = {
    { "name", FIELD_MODEL, SHOWN | CREATE | REQUIRED, .help = "as callers say it" },
    { "alias_of", FIELD_MODEL, SHOWN | WRITES | NULLABLE,
      .help = "another entry, whose settings hold; null: it is none" },
    { "backend_model", FIELD_MODEL, SHOWN | WRITES | NULLABLE, .help = "what Ollama calls it; null: the same" },
    { "num_ctx", FIELD_COUNT, SHOWN | WRITES | NULLABLE, 4, 100000000,
      .help = "context length in tokens; null: not sent" },
    { "keep_alive", FIELD_KEEP_ALIVE, SHOWN | WRITES | NULLABLE, .help = "how long it stays loaded; null: not sent" },
    { "max_prompt_chars", FIELD_COUNT, SHOWN | WRITES | NULLABLE, 0, 1000000000,
      .help = "0: no limit; null: the gateway's" },
    { "max_system_chars", FIELD_COUNT, SHOWN | WRITES | NULLABLE, 0, 1000000000,
      .help = "0: no limit; null: the gateway's" },
    { "think", FIELD_BOOL, SHOWN | WRITES | NULLABLE, .help = "whether it thinks when the caller does not say" },
    { "preload", FIELD_BOOL, SHOWN | WRITES, .fallback = "false", .help = "loaded before callers come" },
    NOTE,
    STAMPS,
};
static const struct field model_filters[] = { { "name", FIELD_MODEL, .help = "only the one of this name" } };

static const struct field backend_fields[] = {
    { "name", FIELD_BACKEND_NAME, SHOWN | CREATE | REQUIRED, .help = "what logs and metrics call it" },
    { "url", FIELD_URL, SHOWN | WRITES | REQUIRED, .help = "where it listens" },
    { "kind", FIELD_CHOICE, SHOWN | WRITES, .words = kinds, .fallback = "\"ollama\"", .help = "what it speaks" },
    { "slots", FIELD_COUNT, SHOWN | WRITES, 0, 1000, .fallback = "0",
      .help = "requests of one model at a time (OLLAMA_NUM_PARALLEL); 0: no limit, and no queue" },
    { "models", FIELD_MODELS, SHOWN | WRITES | NULLABLE, 1, 1000,
      .help = "the only ones it is asked for; null: all it has" },
    { "weight", FIELD_COUNT, SHOWN | WRITES, 0, 1000, .fallback = "1",
      .help = "share beside other backends; 0: standby" },
    { "drain", FIELD_BOOL, SHOWN | WRITES, .fallback = "false", .help = "finishes what it has and takes nothing new" },
    NOTE,
    STAMPS,
};
static const struct field backend_filters[] = { { "name", FIELD_BACKEND_NAME, .help = "only the one of this name" } };

static const struct field setting_fields[] = {
    { "name", FIELD_SETTING_NAME, SHOWN, .help = "a setting of gateways" },
    { "value", FIELD_ANY, SHOWN | CREATE | REQUIRED, .help = "as the gateway's file has it: see below" },
    STAMPS,
};
static const struct field setting_filters[] = { { "name", FIELD_SETTING_NAME, .help = "only the one of this name" } };

static const struct field gateway_fields[] = {
    { "id", FIELD_UUID, SHOWN, .help = "never changes" },
    { "name", FIELD_LABEL, SHOWN | CREATE | REQUIRED, .help = "of its node" },
    { "enrolled", FIELD_BOOL, SHOWN, .help = "it has used its secret, and is known by its key" },
    { "enroll_expires_at", FIELD_TIME, SHOWN | NULLABLE, .help = "until when the secret is good; null: there is none" },
    { "last_seen", FIELD_TIME, SHOWN | NULLABLE, .help = "when it was last heard, at most two seconds late" },
    { "desired_version", FIELD_COUNT, SHOWN, 0, INT64_MAX, .help = "the configuration it was sent" },
    { "applied_version", FIELD_COUNT, SHOWN, 0, INT64_MAX, .help = "the configuration it works by" },
    { "apply_error", FIELD_TEXT, SHOWN | NULLABLE, .help = "why it could not apply what it was sent" },
    { "software", FIELD_TEXT, SHOWN | NULLABLE, .help = "its version" },
    { "features", FIELD_TEXTS, SHOWN, 0, 100, .help = "what it understands" },
    { "address", FIELD_TEXT, SHOWN | NULLABLE, .help = "what it says of where it is" },
    { "resyncing", FIELD_BOOL, SHOWN, .help = "it was told to take everything anew, and has not done so yet" },
    { "note", FIELD_NOTE, SHOWN | WRITES, .fallback = "\"\"", .help = "for people" },
    { "version", FIELD_COUNT, SHOWN, 1, INT32_MAX, .help = "goes up with every change; what If-Match names" },
    { "created_at", FIELD_TIME, SHOWN, .help = "when it was made" },
    { "removed_at", FIELD_TIME, SHOWN | NULLABLE, .help = "when it was removed, for good" },
};

static const struct field admin_token_fields[] = {
    { "id", FIELD_UUID, SHOWN, .help = "never changes" },
    { "name", FIELD_LABEL, SHOWN | CREATE | REQUIRED, .help = "who acts with it: what the audit log says" },
    { "role", FIELD_CHOICE, SHOWN | CREATE | REQUIRED, .words = roles, .help = "what it may" },
    { "expires_in", FIELD_DURATION, CREATE, 60 * SECOND_MS, 3660 * DAY_MS, .fallback = "\"90d\"",
      .help = "how long it is good" },
    { "created_at", FIELD_TIME, SHOWN, .help = "when it was made" },
    { "expires_at", FIELD_TIME, SHOWN, .help = "until when it is good" },
    { "revoked_at", FIELD_TIME, SHOWN | NULLABLE, .help = "when it was revoked" },
    { "last_used_at", FIELD_TIME, SHOWN | NULLABLE, .help = "when it was last used" },
};

static const struct field audit_fields[] = {
    { "id", FIELD_COUNT, SHOWN, 1, INT64_MAX, .help = "in the order of writing" },
    { "at", FIELD_TIME, SHOWN, .help = "when" },
    { "actor", FIELD_TEXT, SHOWN, .help = "the token's name" },
    { "token_id", FIELD_UUID, SHOWN | NULLABLE, .help = "null: on the machine itself" },
    { "address", FIELD_TEXT, SHOWN | NULLABLE, .help = "from where" },
    { "request_id", FIELD_TEXT, SHOWN | NULLABLE, .help = "the answer's X-Request-Id" },
    { "action", FIELD_TEXT, SHOWN, .help = "what was done" },
    { "noun", FIELD_TEXT, SHOWN, .help = "to what" },
    { "object_id", FIELD_TEXT, SHOWN, .help = "to which" },
    { "before", FIELD_OBJECT, SHOWN | NULLABLE, .help = "what it was" },
    { "after", FIELD_OBJECT, SHOWN | NULLABLE, .help = "what it became" },
};
static const struct field audit_filters[] = {
    { "actor", FIELD_TEXT, .help = "only what this token did" },
    { "noun", FIELD_TEXT, .help = "only what was done to one of these" },
    { "object_id", FIELD_TEXT, .help = "only what was done to this one" },
    { "action", FIELD_TEXT, .help = "only this" },
    { "from", FIELD_TIME, .help = "only from then on" },
    { "to", FIELD_TIME, .help = "only before" },
};

#define FIELDS(name)  .fields = name##_fields, .field_count = COUNT(name##_fields)
#define FILTERS(name) .filters = name##_filters, .filter_count = COUNT(name##_filters)

const struct noun noun_user = { "user", "User", "users", "id", "name, or id", FIELDS(user), FILTERS(user) };
const struct noun noun_team = { "team", "Team", "teams", "id", "name, or id", FIELDS(team), FILTERS(name) };
const struct noun noun_key = { "key", "Key", "keys", "id", "id, public id, or USER%2FNAME", FIELDS(key), FILTERS(key) };
const struct noun noun_whitelist = { "whitelist",      "Range", "whitelist", "cidr", "the range, as in 10.0.0.0%2F16",
                                     FIELDS(whitelist) };
const struct noun noun_model = { "model", "Model", "models", "name", "name", FIELDS(model), FILTERS(model) };
const struct noun noun_backend = {
    "backend", "Backend", "backends", "name", "name", FIELDS(backend), FILTERS(backend)
};
const struct noun noun_gateway = {
    "gateway", "Gateway", "gateways", "id", "name, or id", FIELDS(gateway), FILTERS(name)
};
const struct noun noun_admin_token = { "admin_token", "AdminToken",        "admin-tokens", "id",
                                       "name, or id", FIELDS(admin_token), FILTERS(name) };
const struct noun noun_setting = {
    "setting", "Setting", "settings", "name", "name", FIELDS(setting), FILTERS(setting)
};
const struct noun noun_audit = { "audit", "AuditLine", "audit", "id", "number", FIELDS(audit), FILTERS(audit) };

const struct noun *const nouns[] = { &noun_user,    &noun_team,    &noun_key,         &noun_whitelist, &noun_model,
                                     &noun_backend, &noun_gateway, &noun_admin_token, &noun_setting,   &noun_audit };
const size_t noun_count = COUNT(nouns);
