/*
 * The one table. To add a command: a name in COMMANDS (command.h), a row here, a function of that name in its noun's
 * cmd_*.c, a test; docs/qwadm.1 and the other texts that are kept are written by tests/e2e/test_qwadm_texts.py.
 */
#include "parts.h"

static const char *const formats[] = { "table", "json", "csv", NULL };
static const char *const colours[] = { "auto", "always", "never", NULL };
static const char *const states[] = { "active", "revoked", "expired", NULL };
static const char *const classes[] = { "interactive", "batch", NULL };
static const char *const roles[] = { "viewer", "operator", "billing", "owner", NULL };
static const char *const thinking[] = { "on", "off", "default", NULL };
static const char *const shells[] = { "bash", "zsh", NULL };

const struct flag everywhere[] = {
    { "output", 'o', FLAG_WORD, .words = formats, .help = "how answers are printed" },
    { "server", 's', FLAG_TEXT, .form = "URL", .help = "where qwen-control is: http://…, https://…, or unix:/PATH" },
    { "token-file", 0, FLAG_FILE, .help = "a file of mode 600 that holds the admin token" },
    { "ca-file", 0, FLAG_FILE, .help = "certificates that https is checked against, instead of the system's" },
    { "timeout", 0, FLAG_TEXT, .form = "DURATION", .help = "how long one answer may take (500ms, 30s)" },
    { "config", 0, FLAG_FILE, .help = "read this file of settings and no other" },
    { "color", 0, FLAG_WORD, .words = colours, .help = "colours; auto: on a terminal, unless NO_COLOR is set" },
    { "quiet", 'q', FLAG_YES, .help = "say nothing that is neither the answer nor an error" },
    { "help", 'h', FLAG_YES, .help = "say how this command is used" },
    { 0 },
};

/* What many commands take. */
static const struct flag confirms[] = {
    { "wait", 0, FLAG_SPAN, .fallback = "10s",
      .help = "how long to wait until every live gateway has confirmed it; 0s: not at all" },
    { 0 },
};
static const struct flag may_confirm[] = {
    { "wait", 0, FLAG_SPAN, .fallback = "0s", .help = "how long to wait until every live gateway has confirmed it" },
    { 0 },
};
static const struct flag if_version[] = {
    { "if-version", 0, FLAG_NUMBER, .form = "N", .min = 1, .max = INT32_MAX,
      .help = "only if it still has this version (`show -o json`), so that nobody's change is lost" },
    { 0 },
};
static const struct flag yes[] = {
    { "yes", 'y', FLAG_YES, .help = "do not ask; needed where nobody can be asked" },
    { 0 },
};
static const struct flag limits[] = {
    { "limit", 0, FLAG_NUMBER, .form = "N", .min = 0, .max = 1000000000,
      .help = "at most so many; 0: all. Without it a table has 1000 at most, json and csv have all" },
    { 0 },
};
static const struct flag note[] = {
    { "note", 0, FLAG_TEXT, .field = "note", .help = "words for whoever looks at it later" },
    { 0 },
};
static const struct flag resync_rules[] = {
    { "all", 'a', FLAG_YES, .help = "every gateway that has enrolled" },
    { "wait", 0, FLAG_SPAN, .fallback = "1m", .help = "how long to wait until it is done; 0s: not at all" },
    { 0 },
};
static const struct flag by_name[] = {
    { "name", 'n', FLAG_TEXT, .form = "NAME", .field = "name", .help = "only what has this name" },
    { 0 },
};
static const struct flag new_name[] = {
    { "name", 'n', FLAG_TEXT, .form = "NAME", .field = "name", .help = "call it so from here on" },
    { 0 },
};

/* Keys ----------------------------------------------------------------------------------------------------------- */

static const struct flag key_owner[] = {
    { "user", 'u', FLAG_TEXT, .form = "USER", .field = "user", .is_required = true, .help = "whose key it is" },
    { "name", 'n', FLAG_TEXT, .form = "NAME", .field = "name", .is_required = true,
      .help = "what the user calls it; the user has no other of this name" },
    { 0 },
};
static const struct flag key_rules[] = {
    { "expires", 0, FLAG_WHEN, .field = "expires", .is_clearable = true,
      .help = "when it ends to let anybody in: a time from now (90d), a date, a time, or never" },
    { "models", 0, FLAG_LIST, .form = "MODEL,…", .field = "models", .is_clearable = true,
      .help = "only these models; \"\": all, those of later too" },
    { "rpm", 0, FLAG_NUMBER, .form = "N", .min = 1, .max = 1000000, .field = "rpm", .is_clearable = true,
      .help = "requests in 60 seconds, on each gateway: with three gateways up to three times as many in all; \"\": as "
              "the gateways' own rate_limit says" },
    { "max-concurrent", 0, FLAG_NUMBER, .form = "N", .min = 1, .max = 1000000, .field = "max_concurrent",
      .is_clearable = true, .help = "requests at the same time, on each gateway; \"\": any number" },
    { "allow", 0, FLAG_LIST, .form = "RANGE,…", .field = "allow", .is_clearable = true,
      .help = "only from these addresses or ranges (10.0.0.0/16); \"\": from everywhere" },
    { "delegate", 0, FLAG_YES, .field = "delegate", .has_no = true,
      .help = "it belongs to a front end, which may name the person it speaks for" },
    { 0 },
};
static const struct flag key_maker[] = {
    { "create-user", 0, FLAG_YES, .field = "create_user", .help = "make the user where there is none of that name" },
    { 0 },
};
static const struct flag key_filters[] = {
    { "user", 'u', FLAG_TEXT, .form = "USER", .field = "user", .help = "only this user's" },
    { "team", 0, FLAG_TEXT, .form = "TEAM", .field = "team", .help = "only those of this team's users" },
    { "state", 0, FLAG_WORD, .words = states, .field = "state", .help = "only those that are so" },
    { "prefix", 0, FLAG_TEXT, .form = "ID", .field = "prefix", .help = "only the one with this public id" },
    { "expires-before", 0, FLAG_WHEN, .field = "expires_before", .help = "only those that end before that" },
    { 0 },
};
static const struct flag key_cut[] = {
    { "cut", 0, FLAG_YES, .help = "also end what it has running; else that may finish" },
    { 0 },
};
static const struct flag key_keep[] = {
    { "keep", 0, FLAG_SPAN, .fallback = "24h", .field = "keep_for",
      .help = "how long the old secret goes on letting in" },
    { 0 },
};
static const struct flag key_importing[] = {
    { "out", 0, FLAG_FILE, .help = "write the secrets to this new file, with mode 600; without it to standard output" },
    { "create-users", 0, FLAG_YES, .field = "create_users", .help = "make users where there are none of their names" },
    { "dry-run", 0, FLAG_YES, .help = "only read and check the file" },
    { 0 },
};

/* Users ---------------------------------------------------------------------------------------------------------- */

static const struct flag user_rules[] = {
    { "team", 0, FLAG_TEXT, .form = "TEAM", .field = "team", .is_clearable = true, .help = "the team it belongs to" },
    { "weight", 0, FLAG_NUMBER, .form = "N", .min = 1, .max = 1000, .field = "weight",
      .help = "its share when several wait: twice the weight, twice the turns" },
    { "class", 0, FLAG_WORD, .words = classes, .field = "class", .help = "batch waits while interactive users wait" },
    { 0 },
};
static const struct flag user_filters[] = {
    { "team", 0, FLAG_TEXT, .form = "TEAM", .field = "team", .help = "only those of this team" },
    { "disabled", 0, FLAG_YES, .field = "disabled", .has_no = true, .help = "only those that are disabled" },
    { 0 },
};

/* What gateways go by -------------------------------------------------------------------------------------------- */

static const struct flag model_rules[] = {
    { "alias-of", 0, FLAG_TEXT, .form = "MODEL", .field = "alias_of", .is_clearable = true,
      .help = "it is another name of that model" },
    { "backend-model", 0, FLAG_TEXT, .form = "MODEL", .field = "backend_model", .is_clearable = true,
      .help = "what backends call it, where that is not its own name" },
    { "num-ctx", 0, FLAG_NUMBER, .form = "N", .min = 4, .max = 100000000, .field = "num_ctx", .is_clearable = true,
      .help = "the context it is loaded with, in tokens" },
    { "keep-alive", 0, FLAG_TEXT, .form = "DURATION", .field = "keep_alive", .is_clearable = true,
      .help = "how long it stays loaded (30m; -1: for ever)" },
    { "max-prompt-chars", 0, FLAG_NUMBER, .form = "N", .min = 0, .max = 1000000000, .field = "max_prompt_chars",
      .is_clearable = true, .help = "longest prompt, in characters; 0: no limit" },
    { "max-system-chars", 0, FLAG_NUMBER, .form = "N", .min = 0, .max = 1000000000, .field = "max_system_chars",
      .is_clearable = true, .help = "longest system text, in characters; 0: no limit" },
    { "think", 0, FLAG_WORD, .words = thinking, .field = "think", .help = "whether it thinks unless a caller says" },
    { "preload", 0, FLAG_YES, .field = "preload", .has_no = true, .help = "have it loaded before callers come" },
    { 0 },
};
static const struct flag backend_url[] = {
    { "url", 0, FLAG_TEXT, .form = "URL", .field = "url", .is_required = true,
      .help = "http://HOST:PORT of its Ollama" },
    { 0 },
};
static const struct flag backend_new_url[] = {
    { "url", 0, FLAG_TEXT, .form = "URL", .field = "url", .help = "http://HOST:PORT of its Ollama" },
    { 0 },
};
static const struct flag backend_rules[] = {
    { "slots", 0, FLAG_NUMBER, .form = "N", .min = 0, .max = 1000, .field = "slots",
      .help = "requests at the same time: its OLLAMA_NUM_PARALLEL; 0: the gateways do not queue for it" },
    { "models", 0, FLAG_LIST, .form = "MODEL,…", .field = "models", .is_clearable = true,
      .help = "use it for these models only" },
    { "weight", 0, FLAG_NUMBER, .form = "N", .min = 0, .max = 1000, .field = "weight",
      .help = "its share of requests; 0: only when no other can" },
    { "drain", 0, FLAG_YES, .field = "drain", .has_no = true, .help = "finish what runs, take nothing new" },
    { 0 },
};

/* Operation ------------------------------------------------------------------------------------------------------ */

static const struct flag admin_token_rules[] = {
    { "role", 0, FLAG_WORD, .words = roles, .field = "role", .is_required = true,
      .help = "viewer sees, operator changes too, owner also makes admin tokens" },
    { "expires", 0, FLAG_SPAN, .fallback = "90d", .field = "expires_in", .help = "how long it is valid" },
    { 0 },
};
static const struct flag audit_filters[] = {
    { "actor", 0, FLAG_TEXT, .form = "NAME", .field = "actor",
      .help = "only what was done with the admin token of this name" },
    { "noun", 0, FLAG_TEXT, .form = "NOUN", .field = "noun", .help = "only what was done to users, keys …: `key`" },
    { "object", 0, FLAG_TEXT, .form = "ID", .field = "object_id", .help = "only what was done to this one, by its id" },
    { "action", 0, FLAG_TEXT, .form = "WORD", .field = "action", .help = "only this action: `key_revoke`" },
    { "from", 0, FLAG_WHEN, .field = "from", .is_past = true,
      .help = "only from that time on; a span (24h) counts back from now" },
    { "to", 0, FLAG_WHEN, .field = "to", .is_past = true, .help = "only before that time" },
    { 0 },
};
static const struct flag top_flags[] = {
    { "interval", 0, FLAG_SPAN, .fallback = "1s", .help = "how often it looks, 1s to 1h" },
    { "once", 0, FLAG_YES, .help = "print one picture and end" },
    { 0 },
};

#define ROW(id, ...) [COMMAND_##id] = { __VA_ARGS__ }
#define A_KEY        .argument = "KEY", .argument_help = "its id, its public id (the part after qk_), or USER/NAME"
#define A_USER       .argument = "USER", .argument_help = "its name or id"
#define A_TEAM       .argument = "TEAM", .argument_help = "its name or id"
#define A_RANGE      .argument = "RANGE", .argument_help = "an address or a range (10.0.0.0/16)"
#define A_MODEL      .argument = "MODEL", .argument_help = "its name"
#define A_BACKEND    .argument = "BACKEND", .argument_help = "its name"
#define A_GATEWAY    .argument = "GATEWAY", .argument_help = "its name or id"
#define A_TOKEN      .argument = "TOKEN", .argument_help = "its name or id"
#define NEW_NAME     .argument = "NAME", .argument_help = "what it is to be called"

const struct command commands[COMMAND_COUNT] = {
    ROW(key_create, "key", "create", .help = "make a key and print its secret, once",
        .more =
            "The secret alone goes to standard output, everything else to standard error; with -o json or csv it is a "
            "field of the answer. It is kept nowhere: who loses it needs a new one (`qwadm key rotate`).",
        .example =
            "qwadm key create --user alice --name laptop --expires 90d --models qwen3:32b --rpm 30 --allow 10.0.0.0/16",
        .flags = { key_owner, key_rules, note, key_maker, may_confirm }),
    ROW(key_list, "key", "list", .help = "list keys", .example = "qwadm key list --user alice --state active",
        .flags = { key_filters, by_name, limits }),
    ROW(key_show, "key", "show", A_KEY, .help = "show one key, without its secret",
        .example = "qwadm key show alice/laptop"),
    ROW(key_update, "key", "update", A_KEY, .help = "change what a key may do",
        .more =
            "What is not named stays. An empty value takes away what was set: --models \"\" allows all models again, "
            "--expires never has it never end.",
        .example = "qwadm key update alice/laptop --rpm 60 --expires 30d",
        .flags = { new_name, key_rules, note, if_version, may_confirm }),
    ROW(key_revoke, "key", "revoke", A_KEY, .help = "take a key away for good, and wait until no live gateway takes it",
        .more =
            "It returns when every live gateway has confirmed, and says how long that took. Gateways that are not "
            "heard of are named, with the time until which they may go on accepting the key, and the exit status is 4.",
        .example = "qwadm key revoke alice/laptop --cut --yes", .flags = { key_cut, confirms, yes },
        .is_destructive = true),
    ROW(key_rotate, "key", "rotate", A_KEY, .help = "make a new secret for a key, and keep the old one for a while",
        .more = "The new key has the old one's name and rules; the old one is renamed and ends after --keep.",
        .example = "qwadm key rotate alice/laptop --keep 24h", .flags = { key_keep, may_confirm }),
    ROW(key_import, "key", "import", .argument = "FILE.csv",
        .argument_help = "a line of titles, then a line a key; \"-\" is standard input",
        .help = "make up to 1000 keys from a CSV file, all or none",
        .more =
            "Titles: user and name, which every line needs; expires, models, rpm, max_concurrent, allow, delegate, "
            "note as for `key create` (several models or ranges with spaces or commas between). A key that is in use "
            "already and is to go on has its secret there, or sha256 and, if it has one, prefix: its public id. Every "
            "bad line is named, and then nothing is done. Other secrets are made here and printed as CSV (user, name, "
            "id, secret); only hashes are sent.",
        .example = "qwadm key import people.csv --create-users --out secrets.csv",
        .flags = { key_importing, may_confirm }),

    ROW(user_create, "user", "create", NEW_NAME, .help = "make a user",
        .example = "qwadm user create alice --team research --weight 2", .flags = { user_rules, note }),
    ROW(user_list, "user", "list", .help = "list users", .example = "qwadm user list --team research",
        .flags = { user_filters, by_name, limits }),
    ROW(user_show, "user", "show", A_USER, .help = "show one user", .example = "qwadm user show alice"),
    ROW(user_update, "user", "update", A_USER, .help = "change a user", .more = "What is not named stays.",
        .example = "qwadm user update alice --class batch",
        .flags = { new_name, user_rules, note, if_version, may_confirm }),
    ROW(user_disable, "user", "disable", A_USER, .help = "let none of a user's keys in until it is enabled again",
        .more = "It waits for the gateways as `key revoke` does.", .example = "qwadm user disable alice",
        .flags = { if_version, confirms }),
    ROW(user_enable, "user", "enable", A_USER, .help = "let a disabled user's keys in again",
        .example = "qwadm user enable alice", .flags = { if_version, may_confirm }),
    ROW(user_delete, "user", "delete", A_USER, .help = "remove a user and revoke its keys, for good",
        .more = "It waits for the gateways as `key revoke` does.", .example = "qwadm user delete alice --yes",
        .flags = { if_version, confirms, yes }, .is_destructive = true),

    ROW(team_create, "team", "create", NEW_NAME, .help = "make a team",
        .example = "qwadm team create research --note \"third floor\"", .flags = { note }),
    ROW(team_list, "team", "list", .help = "list teams", .example = "qwadm team list", .flags = { by_name, limits }),
    ROW(team_show, "team", "show", A_TEAM, .help = "show one team", .example = "qwadm team show research"),
    ROW(team_update, "team", "update", A_TEAM, .help = "change a team",
        .example = "qwadm team update research --name science", .flags = { new_name, note, if_version, may_confirm }),
    ROW(team_delete, "team", "delete", A_TEAM, .help = "remove a team that has no users",
        .example = "qwadm team delete research --yes", .flags = { if_version, may_confirm, yes },
        .is_destructive = true),

    ROW(whitelist_add, "whitelist", "add", A_RANGE, .help = "let callers from a range of addresses connect",
        .more = "While the list is empty, callers from everywhere may connect.",
        .example = "qwadm whitelist add 10.0.0.0/16 --note office", .flags = { note, may_confirm }),
    ROW(whitelist_list, "whitelist", "list", .help = "list the ranges that may connect",
        .example = "qwadm whitelist list", .flags = { limits }),
    ROW(whitelist_remove, "whitelist", "remove", A_RANGE, .help = "no longer let callers from a range connect",
        .more = "It waits for the gateways as `key revoke` does. When the last range goes, callers from everywhere may "
                "connect.",
        .example = "qwadm whitelist remove 10.0.0.0/16 --yes", .flags = { if_version, confirms, yes },
        .is_destructive = true),

    ROW(model_create, "model", "create", NEW_NAME, .help = "configure a model that callers may name",
        .example = "qwadm model create assistant --alias-of qwen3:32b", .flags = { model_rules, note, may_confirm }),
    ROW(model_list, "model", "list", .help = "list configured models", .example = "qwadm model list",
        .flags = { by_name, limits }),
    ROW(model_show, "model", "show", A_MODEL, .help = "show one configured model",
        .example = "qwadm model show qwen3:32b"),
    ROW(model_update, "model", "update", A_MODEL, .help = "change a configured model",
        .more = "What is not named stays. An empty value takes away what was set.",
        .example = "qwadm model update qwen3:32b --num-ctx 32768 --keep-alive 30m",
        .flags = { model_rules, note, if_version, may_confirm }),
    ROW(model_delete, "model", "delete", A_MODEL, .help = "remove a model's configuration",
        .example = "qwadm model delete assistant --yes", .flags = { if_version, may_confirm, yes },
        .is_destructive = true),

    ROW(backend_create, "backend", "create", NEW_NAME, .help = "have gateways use a model server",
        .example = "qwadm backend create gpu1 --url http://10.0.0.5:11434 --slots 4",
        .flags = { backend_url, backend_rules, note, may_confirm }),
    ROW(backend_list, "backend", "list", .help = "list backends", .example = "qwadm backend list",
        .flags = { by_name, limits }),
    ROW(backend_show, "backend", "show", A_BACKEND, .help = "show one backend", .example = "qwadm backend show gpu1"),
    ROW(backend_update, "backend", "update", A_BACKEND, .help = "change a backend", .more = "What is not named stays.",
        .example = "qwadm backend update gpu1 --drain",
        .flags = { backend_new_url, backend_rules, note, if_version, may_confirm }),
    ROW(backend_delete, "backend", "delete", A_BACKEND, .help = "have gateways use a backend no longer",
        .example = "qwadm backend delete gpu1 --yes", .flags = { if_version, may_confirm, yes },
        .is_destructive = true),

    ROW(gateway_enroll, "gateway", "enroll", NEW_NAME,
        .help = "print a secret with which a gateway of this name joins, once",
        .more =
            "The secret alone goes to standard output: put it into the file that the gateway's "
            "control.enroll_secret_file "
            "names. It is good for one gateway and for as long as is said. For a gateway that lost its own key it is "
            "made again in the same way.",
        .example = "qwadm gateway enroll gw1 > /etc/qwen-gateway/enroll-secret", .flags = { note }),
    ROW(gateway_list, "gateway", "list", .help = "list gateways, and how far each has followed",
        .example = "qwadm gateway list", .flags = { by_name, limits }),
    ROW(gateway_show, "gateway", "show", A_GATEWAY, .help = "show one gateway", .example = "qwadm gateway show gw1"),
    ROW(gateway_resync, "gateway", "resync", .argument = "GATEWAY|--all",
        .argument_help = "its name or id; or all of them", .instead = "all",
        .help = "have a gateway forget what it holds and take everything anew",
        .more =
            "It is for after the database was restored from a backup: gateways may hold keys that were revoked in what "
            "was lost. They serve all the while. It returns when they have done it, and says how long that took; those "
            "that have not are named, do it when they are there again, and it ends with 4.",
        .example = "qwadm gateway resync --all", .flags = { resync_rules }),
    ROW(gateway_remove, "gateway", "remove", A_GATEWAY,
        .help = "tell a gateway nothing more, and refuse its key for good",
        .more =
            "It goes on serving what it knows until its max_staleness is over: stop it, or take its keys away first.",
        .example = "qwadm gateway remove gw1 --yes", .flags = { if_version, yes }, .is_destructive = true),

    ROW(admin_token_create, "admin-token", "create", NEW_NAME, .help = "make a token for this API and print it, once",
        .more = "The token alone goes to standard output.",
        .example = "qwadm admin-token create dashboard --role viewer --expires 365d", .flags = { admin_token_rules }),
    ROW(admin_token_list, "admin-token", "list", .help = "list admin tokens, without their secrets",
        .example = "qwadm admin-token list", .flags = { limits }),
    ROW(admin_token_revoke, "admin-token", "revoke", A_TOKEN, .help = "take an admin token away for good",
        .example = "qwadm admin-token revoke dashboard --yes", .flags = { yes }, .is_destructive = true),

    ROW(audit_list, "audit", "list", .help = "list who did what, from where, when, newest first",
        .more = "-o json has what it was before and after.", .example = "qwadm audit list --actor alice --from 24h",
        .flags = { audit_filters, limits }),
    ROW(status, "status", "", .help = "say how the control plane and its gateways are", .example = "qwadm status"),
    ROW(top, "top", "", .help = "watch gateways, models and users live",
        .more =
            "Running and waiting requests, requests and tokens a second, and the time to the first token: half, 95 and "
            "99 of a hundred are faster. q ends it, space looks at once.",
        .example = "qwadm top", .flags = { top_flags }),
    ROW(login, "login", "", .help = "keep an admin token, after asking the server whether it is good",
        .more =
            "The token is read from --token-file, from QWADM_TOKEN, from the terminal, or from standard input where "
            "that is none. It is written, with the server, to ~/.config/qwadm.yaml (or to --config), which only its "
            "owner can read.",
        .example = "qwadm login --server https://gateway.example.com < token"),
    ROW(completion, "completion", "", .argument = "SHELL", .argument_help = "bash or zsh", .argument_words = shells,
        .help = "print what teaches a shell to complete qwadm's commands",
        .example = "source <(qwadm completion bash)"),
};

static const struct {
    const char *noun, *help;
} nouns[] = {
    { "key", "what lets callers in" },
    { "user", "whose keys they are, and between whom the queue is fair" },
    { "team", "users that belong together" },
    { "whitelist", "from where callers may connect" },
    { "model", "what callers may name" },
    { "backend", "where models run" },
    { "gateway", "where callers come in" },
    { "admin-token", "who may use this API" },
    { "audit", "who did what" },
};

const struct exit_status exit_statuses[] = {
    { END_DONE, "done" },
    { END_REFUSED, "the server refused it, or it could not be done here; standard error says why" },
    { END_USAGE, "the command line or a file of settings is wrong; nothing was sent" },
    { END_UNREACHABLE, "the server cannot be reached, or gave no answer that can be understood" },
    { END_UNCONFIRMED, "done, but not every gateway has confirmed it" },
};
const unsigned exit_status_count = sizeof exit_statuses / sizeof *exit_statuses;

enum command_id noun_first(const char *noun)
{
    for (enum command_id id = 0; id < COMMAND_COUNT; id++)
        if (strcmp(commands[id].noun, noun) == 0)
            return id;
    return COMMAND_COUNT;
}

bool is_first_of_noun(enum command_id id)
{
    return id == 0 || strcmp(commands[id].noun, commands[id - 1].noun) != 0;
}

const char *noun_help(const char *noun)
{
    for (size_t i = 0; i < sizeof nouns / sizeof *nouns; i++)
        if (strcmp(nouns[i].noun, noun) == 0)
            return nouns[i].help;
    return commands[noun_first(noun)].help;
}

const struct flag *command_flag(const struct command *command, unsigned i)
{
    for (unsigned list = 0; list < sizeof command->flags / sizeof *command->flags && command->flags[list]; list++)
        for (const struct flag *flag = command->flags[list]; flag->name; flag++)
            if (i-- == 0)
                return flag;
    return NULL;
}

void command_add_name(const struct command *command, struct text *out)
{
    text_add_string(out, command->noun);
    if (*command->verb) {
        text_add_char(out, ' ');
        text_add_string(out, command->verb);
    }
}

const char *flag_form(const struct flag *flag)
{
    static const char *const forms[] = {
        [FLAG_TEXT] = "TEXT", [FLAG_NUMBER] = "N",      [FLAG_LIST] = "ITEM,…", [FLAG_FILE] = "FILE",
        [FLAG_WORD] = "WORD", [FLAG_SPAN] = "DURATION", [FLAG_WHEN] = "WHEN",
    };

    return flag->form ? flag->form : forms[flag->kind];
}

void flag_add_words(const struct flag *flag, char between, struct text *out)
{
    for (const char *const *word = flag->words; *word; word++) {
        if (word != flag->words)
            text_add_char(out, between);
        text_add_string(out, *word);
    }
}
