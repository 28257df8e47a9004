/*
 * key import: a CSV file becomes keys, all or none.
 *
 * The file is read and judged as a whole first, and every bad line is named. Secrets are made here and only their
 * hashes are sent, so that sending again is harmless. They are written to --out, which is new and its owner's alone,
 * before anything is sent: whatever happens then, no key is made whose secret nobody has. Where the server refuses, the
 * file goes again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cidr.h"
#include "clock.h"
#include "cmd_key.h"
#include "csv.h"
#include "secret.h"

enum { MAX_KEYS = 1000, MAX_FILE = 16 << 20, SHOWN_COMPLAINTS = 50, SENTENCE = 1 << 14, MAX_RPM = 1000000 };

/* What a title may be, and how its cells are read. */
enum title {
    T_USER,
    T_NAME,
    T_EXPIRES,
    T_MODELS,
    T_RPM,
    T_MAX_CONCURRENT,
    T_ALLOW,
    T_DELEGATE,
    T_NOTE,
    T_SECRET,
    T_SHA256,
    T_PREFIX,
    TITLES
};
static const char *const titles[TITLES] = { "user",  "name",     "expires", "models", "rpm",    "max_concurrent",
                                            "allow", "delegate", "note",    "secret", "sha256", "prefix" };

struct import {
    struct session *session;
    const char *file;
    struct text bytes;
    enum title order[CSV_MAX_CELLS];
    unsigned columns;
    json_t *keys;
    unsigned lines[MAX_KEYS]; /* of each key, for what the server says of it */
    struct text secrets;      /* the CSV of them */
    unsigned bad;
};

/* A bad line ----------------------------------------------------------------------------------------------------- */

static void refuse(struct import *import, unsigned line, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void refuse(struct import *import, unsigned line, const char *format, ...)
{
    struct text words;
    va_list args;

    if (import->bad++ >= SHOWN_COMPLAINTS)
        return;
    text_init(&words, SENTENCE);
    va_start(args, format);
    text_vprintf(&words, format, args);
    va_end(args);
    complain("%s:%u: %s", import->file, line, text_string(&words));
    text_release(&words);
}

/* Reading -------------------------------------------------------------------------------------------------------- */

static enum ending read_file(struct import *import)
{
    int fd = strcmp(import->file, "-") == 0 ? dup(STDIN_FILENO) : open(import->file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t len = -1;

    while (fd >= 0 && text_reserve(&import->bytes, 1 << 16)) {
        len = read(fd, import->bytes.at + import->bytes.len, 1 << 16);
        if (len < 0 && errno == EINTR)
            continue;
        if (len <= 0)
            break;
        import->bytes.len += (size_t)len;
    }
    if (import->bytes.err)
        complain("%s is longer than %d MiB", import->file, MAX_FILE >> 20);
    else if (fd < 0 || len < 0)
        complain("%s cannot be read: %s", import->file, strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    return fd < 0 || len < 0 || import->bytes.err ? END_USAGE : END_DONE;
}

static bool read_titles(struct import *import, const struct csv_record *record)
{
    bool is_there[TITLES] = { false };

    if (record->why) {
        refuse(import, record->line, "%s", record->why);
        return false;
    }
    for (unsigned i = 0; i < record->count; i++) {
        struct slice title = slice_trim(record->cells[i]);
        unsigned known = 0;

        while (known < TITLES && !slice_is_nocase(title, slice_of(titles[known])))
            known++;
        if (known == TITLES) {
            const char *near = suggest(title, titles, TITLES);

            refuse(import, record->line, "there is no title \"%.*s\"%s%s%s", (int)(title.len > 64 ? 64 : title.len),
                   title.at, near ? ": did you mean " : "; qwadm key import --help names them", near ? near : "",
                   near ? "?" : "");
            return false;
        }
        if (is_there[known]) {
            refuse(import, record->line, "the title %s stands there twice", titles[known]);
            return false;
        }
        is_there[known] = true;
        import->order[i] = (enum title)known;
    }
    import->columns = record->count;
    if (is_there[T_USER] && is_there[T_NAME])
        return true;
    refuse(import, record->line, "the first line must name the columns, user and name among them");
    return false;
}

/* Cells ---------------------------------------------------------------------------------------------------------- */

static bool is_line_of_text(struct slice cell)
{
    if (!utf8_valid(cell))
        return false;
    for (size_t i = 0; i < cell.len; i++)
        if ((unsigned char)cell.at[i] < 0x20 || cell.at[i] == 0x7f)
            return false;
    return true;
}

static bool set_number(struct import *import, unsigned line, json_t *key, const char *field, struct slice cell)
{
    int64_t number = 0;

    for (size_t i = 0; i < cell.len; i++)
        number =
            cell.at[i] < '0' || cell.at[i] > '9' || number > MAX_RPM ? MAX_RPM + 1 : number * 10 + (cell.at[i] - '0');
    if (number >= 1 && number <= MAX_RPM)
        return json_object_set_new(key, field, json_integer(number)) == 0;
    refuse(import, line, "%s must be a whole number from 1 to %d, not \"%.*s\"", field, MAX_RPM, (int)cell.len,
           cell.at);
    return false;
}

/* Separated by spaces, commas or semicolons. */
static bool set_list(struct import *import, unsigned line, json_t *key, const char *field, struct slice cell,
                     bool is_ranges)
{
    json_t *list = json_array();
    struct text why;
    bool is_good = true;

    text_init(&why, SENTENCE);
    for (size_t i = 0, len; i < cell.len && is_good; i += len + 1) {
        struct slice item = { cell.at + i, 0 };
        struct cidr range;

        while (i + item.len < cell.len && !memchr(" ,;", item.at[item.len], 3))
            item.len++;
        len = item.len;
        if (!len)
            continue;
        is_good = !is_ranges || cidr_parse(item, &range, &why) == ERR_OK;
        (void)json_array_append_new(list, json_stringn(item.at, item.len));
    }
    if (!is_good)
        refuse(import, line, "%s: %s", field, text_string(&why));
    text_release(&why);
    if (is_good && json_array_size(list))
        return json_object_set_new(key, field, list) == 0;
    json_decref(list);
    return is_good;
}

static bool set_when(struct import *import, unsigned line, json_t *key, struct slice cell)
{
    struct text words;
    int64_t ms, seconds;

    text_init(&words, 128);
    if (span_parse(cell, &ms)) {
        (void)json_object_set_new(key, "expires_in", json_stringn(cell.at, cell.len));
    } else if (when_parse(cell, &seconds)) {
        text_printf(&words, "%.*s%s", (int)cell.len, cell.at, cell.len == strlen("2027-01-31") ? "T00:00:00Z" : "");
        (void)json_object_set_new(key, "expires_at", json_string(text_string(&words)));
    } else if (!slice_is(cell, SLICE("never"))) {
        text_release(&words);
        refuse(import, line,
               "expires must be a time from now (90d), a date (2027-01-31), a time or never, not \"%.*s\"",
               (int)cell.len, cell.at);
        return false;
    }
    text_release(&words);
    return true;
}

static bool set_flag(struct import *import, unsigned line, json_t *key, struct slice cell)
{
    bool says_yes =
        slice_is_nocase(cell, SLICE("yes")) || slice_is_nocase(cell, SLICE("true")) || slice_is(cell, SLICE("1"));
    bool says_no =
        slice_is_nocase(cell, SLICE("no")) || slice_is_nocase(cell, SLICE("false")) || slice_is(cell, SLICE("0"));

    if (says_yes || says_no)
        return json_object_set_new(key, "delegate", json_boolean(says_yes)) == 0;
    refuse(import, line, "delegate must be yes or no, not \"%.*s\"", (int)cell.len, cell.at);
    return false;
}

static bool set_hash(struct import *import, unsigned line, json_t *key, struct slice cell)
{
    struct digest digest;
    struct text hex;

    if (slice_starts(cell, SLICE("sha256:")))
        cell = (struct slice){ cell.at + 7, cell.len - 7 };
    if (!digest_parse_hex(cell, &digest)) {
        refuse(import, line, "sha256 must be 64 hexadecimal digits");
        return false;
    }
    text_init(&hex, DIGEST_HEX);
    digest_add_hex(&hex, &digest);
    (void)json_object_set_new(key, "hash", json_string(text_string(&hex)));
    text_release(&hex);
    return true;
}

/* One that is in use already: only its hash goes on from here. */
static bool set_secret(struct import *import, unsigned line, json_t *key, struct slice cell)
{
    struct secret secret;
    struct text words;
    bool is_good;

    text_init(&words, SENTENCE);
    is_good = secret_parse(cell, &secret, &words) == ERR_OK;
    if (is_good) {
        text_clear(&words);
        digest_add_hex(&words, &secret.hash);
        (void)json_object_set_new(key, "hash", json_string(text_string(&words)));
        if (secret.public_id.len)
            (void)json_object_set_new(key, "prefix", json_stringn(secret.public_id.at, secret.public_id.len));
    } else {
        refuse(import, line, "secret: %s", text_string(&words));
    }
    text_release(&words);
    return is_good;
}

static bool set_cell(struct import *import, unsigned line, json_t *key, enum title title, struct slice cell)
{
    if (!is_line_of_text(cell)) {
        refuse(import, line, "%s must be one line of UTF-8", titles[title]);
        return false;
    }
    if (title != T_NOTE)
        cell = slice_trim(cell);
    if (!cell.len)
        return true;
    switch (title) {
    case T_RPM:
    case T_MAX_CONCURRENT:
        return set_number(import, line, key, titles[title], cell);
    case T_MODELS:
    case T_ALLOW:
        return set_list(import, line, key, titles[title], cell, title == T_ALLOW);
    case T_EXPIRES:
        return set_when(import, line, key, cell);
    case T_DELEGATE:
        return set_flag(import, line, key, cell);
    case T_SECRET:
        return set_secret(import, line, key, cell);
    case T_SHA256:
        return set_hash(import, line, key, cell);
    default:
        return json_object_set_new(key, titles[title], json_stringn(cell.at, cell.len)) == 0;
    }
}

/* A key gets its secret, of which the server is told the hash, and the caller of this program all. */
static void make_secret(struct import *import, json_t *key)
{
    struct text secret, hex;
    struct digest hash;
    struct secret parsed;

    text_init(&secret, SECRET_MAX_BYTES);
    text_init(&hex, DIGEST_HEX);
    secret_make_key(&secret);
    secret_hash(text_slice(&secret), &hash);
    digest_add_hex(&hex, &hash);
    if (secret_parse(text_slice(&secret), &parsed, &hex) == ERR_OK)
        (void)json_object_set_new(key, "prefix", json_stringn(parsed.public_id.at, parsed.public_id.len));
    (void)json_object_set_new(key, "hash", json_string(text_string(&hex)));
    csv_add_cell(&import->secrets, slice_of(json_string_value(json_object_get(key, "user"))));
    text_add_char(&import->secrets, ',');
    csv_add_cell(&import->secrets, slice_of(json_string_value(json_object_get(key, "name"))));
    text_add_char(&import->secrets, ',');
    csv_add_cell(&import->secrets, slice_of(json_string_value(json_object_get(key, "prefix"))));
    text_add_char(&import->secrets, ',');
    csv_add_cell(&import->secrets, text_slice(&secret));
    csv_add_end(&import->secrets);
    text_release_wiped(&secret);
    text_release(&hex);
}

/* Lines ---------------------------------------------------------------------------------------------------------- */

/* The line that has this user's key of this name already; 0: none. */
static unsigned find_twin(const json_t *seen, const json_t *key, struct text *label)
{
    const char *user = json_string_value(json_object_get(key, "user"));
    const char *name = json_string_value(json_object_get(key, "name"));

    text_printf(label, "%s/%s", user, name);
    return (unsigned)json_integer_value(json_object_get(seen, text_string(label)));
}

static json_t *read_line(struct import *import, const struct csv_record *record)
{
    json_t *key = json_object();
    bool is_good = key;

    if (record->why) {
        refuse(import, record->line, "%s", record->why);
        is_good = false;
    } else if (record->count != import->columns) {
        refuse(import, record->line, "it has %u cell%s, but there are %u titles", record->count,
               record->count == 1 ? "" : "s", import->columns);
        is_good = false;
    }
    for (unsigned i = 0; is_good && i < record->count; i++)
        is_good = set_cell(import, record->line, key, import->order[i], record->cells[i]);
    for (unsigned i = T_USER; is_good && i <= T_NAME; i++) {
        if (!json_object_get(key, titles[i])) {
            refuse(import, record->line, "%s is missing", titles[i]);
            is_good = false;
        }
    }
    if (is_good && json_object_get(key, "prefix") && !json_object_get(key, "hash")) {
        refuse(import, record->line, "prefix goes with sha256: a new key gets its own");
        is_good = false;
    }
    if (is_good)
        return key;
    json_decref(key);
    return NULL;
}

static void take_line(struct import *import, const struct csv_record *record, json_t *seen)
{
    size_t count = json_array_size(import->keys);
    json_t *key = read_line(import, record);
    const char *hash = json_string_value(json_object_get(key, "hash"));
    json_int_t same = hash ? json_integer_value(json_object_get(seen, hash)) : 0;
    struct text label;
    unsigned twin;

    if (!key)
        return;
    text_init(&label, SENTENCE);
    twin = find_twin(seen, key, &label);
    if (twin) {
        refuse(import, record->line, "key %s stands in line %u already", text_string(&label), twin);
    } else if (same) {
        refuse(import, record->line, "its secret stands in line %d already", (int)same);
    } else if (count == MAX_KEYS) {
        refuse(import, record->line, "there are more than %d keys: divide the file", MAX_KEYS);
    } else {
        (void)json_object_set_new(seen, text_string(&label), json_integer(record->line));
        if (hash)
            (void)json_object_set_new(seen, hash, json_integer(record->line));
        import->lines[count] = record->line;
        (void)json_array_append(import->keys, key);
    }
    text_release(&label);
    json_decref(key);
}

static enum ending read_keys(struct import *import)
{
    struct csv csv;
    struct csv_record record;
    json_t *seen = json_object(), *key;
    size_t i;

    csv_open(&csv, text_slice(&import->bytes));
    csv_record_init(&record);
    if (!csv_next(&csv, &record))
        refuse(import, 1, "the file is empty: its first line names the columns, user and name among them");
    else if (read_titles(import, &record))
        while (csv_next(&csv, &record) && import->bad <= MAX_KEYS)
            take_line(import, &record, seen);
    csv_record_release(&record);
    json_decref(seen);
    if (!import->bad && !json_array_size(import->keys))
        refuse(import, 2, "no key stands behind the titles");
    if (import->bad > SHOWN_COMPLAINTS)
        complain("and %u more", import->bad - SHOWN_COMPLAINTS);
    if (import->bad) {
        complain("nothing was done: %u line%s of %s must be mended first", import->bad, import->bad == 1 ? "" : "s",
                 import->file);
        return END_USAGE;
    }
    json_array_foreach(import->keys, i, key)
    {
        if (!json_object_get(key, "hash"))
            make_secret(import, key);
    }
    return import->secrets.err ? END_REFUSED : END_DONE;
}

/* Secrets to a file ---------------------------------------------------------------------------------------------- */

static enum ending write_secrets(struct import *import, const char *out)
{
    int fd = open(out, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    const char *at = import->secrets.at;
    size_t left = import->secrets.len;

    if (fd < 0) {
        complain(errno == EEXIST ? "%s is there already: --out makes a new file" : "%s cannot be made: %s", out,
                 strerror(errno));
        return END_USAGE;
    }
    while (left) {
        ssize_t count = write(fd, at, left);

        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            break;
        at += count;
        left -= (size_t)count;
    }
    if (!left && fsync(fd) == 0 && close(fd) == 0)
        return END_DONE;
    complain("%s cannot be written: %s; nothing was done", out, strerror(errno));
    (void)unlink(out);
    return END_REFUSED;
}

/* Sending -------------------------------------------------------------------------------------------------------- */

/* "/keys/17/rpm" is line 19's. False: no line is named. */
static bool name_lines(const struct import *import, const json_t *errors)
{
    bool has_named = false;
    size_t i;
    json_t *each;

    json_array_foreach(errors, i, each)
    {
        const char *pointer = json_string_value(json_object_get(each, "pointer"));
        const char *detail = json_string_value(json_object_get(each, "detail"));
        char *end;
        unsigned long at;

        if (!pointer || strncmp(pointer, "/keys/", 6) != 0)
            continue;
        at = strtoul(pointer + 6, &end, 10);
        if (end == pointer + 6 || at >= json_array_size(import->keys))
            continue;
        complain("%s:%u: %s%s%s", import->file, import->lines[at], *end == '/' ? end + 1 : "", *end == '/' ? ": " : "",
                 detail ? detail : "refused");
        has_named = true;
    }
    return has_named;
}

static void on_tick(void *arg)
{
    struct progress *progress = arg;

    progress_at(progress, progress->done);
}

static enum ending send_keys(struct import *import, struct answer *ret_answer)
{
    struct session *session = import->session;
    json_t *body =
        json_pack("{s:O, s:b}", "keys", import->keys, "create_users", call_says_yes(&session->call, "create-users"));
    char *dumped = json_dumps(body, JSON_COMPACT);
    struct progress progress;
    struct text why, what;
    enum err err;

    json_decref(body);
    text_init(&why, SENTENCE);
    text_init(&what, 128);
    text_printf(&what, "importing %zu keys", json_array_size(import->keys));
    progress_begin(&progress, &session->output, text_string(&what), 0);
    remote_wait_with(session->remote, &(struct remote_waiting){ .fd = -1, .on_tick = on_tick, .arg = &progress });
    err = remote_ask(
        session->remote,
        &(struct ask){ .method = "POST", .path = "/admin/v1/keys/import", .body = slice_of(dumped), .is_keyed = true },
        ret_answer, &why);
    progress_end(&progress);
    if (err != ERR_OK) {
        if (err != ERR_REFUSED || !name_lines(import, json_object_get(ret_answer->body, "errors")))
            complain("%s", text_string(&why));
        if (err == ERR_REFUSED)
            complain("nothing was done");
        answer_release(ret_answer);
    }
    text_release(&why);
    text_release(&what);
    free(dumped);
    return err == ERR_OK ? END_DONE : err == ERR_GONE ? END_UNREACHABLE : END_REFUSED;
}

static enum ending import_keys(struct import *import)
{
    struct session *session = import->session;
    const char *out = call_text(&session->call, "out");
    int64_t begun_ms = clock_ms();
    struct answer answer;
    struct text words;
    enum ending ending;

    if (call_says_yes(&session->call, "dry-run")) {
        tell(&session->output, "%zu keys; nothing was done", json_array_size(import->keys));
        return END_DONE;
    }
    ending = out ? write_secrets(import, out) : END_DONE;
    if (ending != END_DONE)
        return ending;
    ending = send_keys(import, &answer);
    if (ending != END_DONE && out) {
        if (ending == END_REFUSED)
            (void)unlink(out);
        else
            complain("%s stays: should the keys have been made all the same, their secrets are in it", out);
        return ending;
    }
    if (ending != END_DONE)
        return ending;
    if (!out && output_write(&session->output, text_slice(&import->secrets)) != ERR_OK)
        ending = END_REFUSED;
    text_init(&words, SENTENCE);
    text_printf(&words, "%zu keys were made%s%s", json_array_size(import->keys), out ? "; their secrets are in " : "",
                out ? out : "");
    if (ending == END_DONE)
        ending = cmd_confirm(session, &answer, begun_ms, text_string(&words));
    text_release(&words);
    answer_release(&answer);
    return ending;
}

enum ending key_import(struct session *session)
{
    struct import *import = calloc(1, sizeof *import);
    enum ending ending;

    if (!import) {
        complain("%s", err_text(ERR_NO_MEMORY));
        return END_REFUSED;
    }
    import->session = session;
    import->file = session->call.argument;
    import->keys = json_array();
    text_init(&import->bytes, MAX_FILE);
    text_init(&import->secrets, MAX_FILE);
    text_add_literal(&import->secrets, "user,name,id,secret\r\n");
    ending = read_file(import);
    if (ending == END_DONE)
        ending = read_keys(import);
    if (ending == END_DONE)
        ending = import_keys(import);
    json_decref(import->keys);
    text_release_wiped(&import->bytes);
    text_release_wiped(&import->secrets);
    free(import);
    return ending;
}
