#include "pack.h"

#include <jansson.h>
#include <stdlib.h>

#include "arena.h"
#include "codec.h"
#include "digest.h"

enum { UUID_LETTERS = 36 };

/* One row being packed. */
struct packing {
    struct arena arena;
    uint8_t id[CODEC_ID_BYTES];
    struct digest hash;
    struct text *why;
    enum err err;
};

static void fail(struct packing *packing, const char *words)
{
    if (packing->err == ERR_OK)
        text_add_string(packing->why, words);
    packing->err = ERR_BAD;
}

/* --- what the members of a body say ---------------------------------------------------------------------- */

static struct slice text_of(struct packing *packing, const json_t *body, const char *name)
{
    const json_t *member = json_object_get(body, name);

    if (json_is_string(member))
        return (struct slice){ json_string_value(member), json_string_length(member) };
    if (member && !json_is_null(member))
        fail(packing, "a member is no text");
    return (struct slice){ 0 };
}

static uint64_t number_of(struct packing *packing, const json_t *body, const char *name, uint64_t most)
{
    const json_t *member = json_object_get(body, name);

    if (!member || json_is_null(member))
        return 0;
    if (!json_is_integer(member) || json_integer_value(member) < 0 || (uint64_t)json_integer_value(member) > most)
        fail(packing, "a member is no number, or out of range");
    return packing->err ? 0 : (uint64_t)json_integer_value(member);
}

static bool flag_of(struct packing *packing, const json_t *body, const char *name)
{
    const json_t *member = json_object_get(body, name);

    if (member && !json_is_null(member) && !json_is_boolean(member))
        fail(packing, "a member is neither true nor false");
    return json_is_true(member);
}

/* NULL: there is none. */
static const struct qw_names *names_of(struct packing *packing, const json_t *body, const char *name)
{
    const json_t *member = json_object_get(body, name);
    size_t count = json_array_size(member);
    struct qw_names *names;
    struct slice *words;

    if (!member || json_is_null(member))
        return NULL;
    names = ARENA_NEW(&packing->arena, struct qw_names);
    words = arena_take(&packing->arena, count * sizeof *words);
    if (!json_is_array(member) || !names || (!words && count)) {
        fail(packing, "a member is no list");
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *word = json_array_get(member, i);
        if (!json_is_string(word))
            fail(packing, "a list has something else than text in it");
        words[i] = (struct slice){ json_string_value(word), json_string_length(word) };
    }
    *names = (struct qw_names){ words, count };
    return names;
}

static const struct qw_number *number_or_none(struct packing *packing, const json_t *body, const char *name)
{
    const json_t *member = json_object_get(body, name);
    struct qw_number *number;

    if (!member || json_is_null(member))
        return NULL;
    number = ARENA_NEW(&packing->arena, struct qw_number);
    if (!number)
        fail(packing, err_text(ERR_NO_MEMORY));
    else
        number->value = number_of(packing, body, name, INT64_MAX);
    return number;
}

static bool is_digits(struct slice text)
{
    bool is_negative = text.len && text.at[0] == '-';

    for (size_t i = is_negative; i < text.len; i++)
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
    return text.len > is_negative;
}

/* "5m" goes as JSON's text, -1 as its number. */
static struct slice keep_alive_of(struct packing *packing, const json_t *body)
{
    struct slice text = text_of(packing, body, "keep_alive");
    char *quoted;

    if (!text.len || is_digits(text))
        return text;
    quoted = arena_take(&packing->arena, text.len + 2);
    if (!quoted || memchr(text.at, '"', text.len) || memchr(text.at, '\\', text.len)) {
        fail(packing, "keep_alive is no duration");
        return (struct slice){ 0 };
    }
    quoted[0] = quoted[text.len + 1] = '"';
    memcpy(quoted + 1, text.at, text.len);
    return (struct slice){ quoted, text.len + 2 };
}

static bool uuid_parse(struct slice text, uint8_t id[CODEC_ID_BYTES])
{
    char hex[2 * DIGEST_BYTES];
    struct digest padded;
    size_t count = 0;

    memset(hex, '0', sizeof hex);
    if (text.len != UUID_LETTERS)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (is_dash != (text.at[i] == '-'))
            return false;
        if (!is_dash)
            hex[count++] = text.at[i];
    }
    if (!digest_parse_hex((struct slice){ hex, sizeof hex }, &padded))
        return false;
    memcpy(id, padded.bytes, CODEC_ID_BYTES);
    return true;
}

/* --- a noun each ----------------------------------------------------------------------------------------- */

static void read_key(struct packing *packing, struct slice id, const json_t *body, struct qw_change *change)
{
    struct slice hex = text_of(packing, body, "hash"), class = text_of(packing, body, "class");

    if (!uuid_parse(id, packing->id) || !digest_parse_hex(hex, &packing->hash)) {
        fail(packing, "it has no id, or no hash");
        return;
    }
    if (flag_of(packing, body, "gone")) {
        change->what = QW_CHANGE_REMOVED;
        change->removed = (struct qw_removed){ .noun = QW_KEY,
                                               .id = { (const char *)packing->id, sizeof packing->id },
                                               .cuts = flag_of(packing, body, "cut"),
                                               .hash = { (const char *)packing->hash.bytes, DIGEST_BYTES } };
        return;
    }
    if (!slice_is(class, SLICE("interactive")) && !slice_is(class, SLICE("batch")))
        fail(packing, "its class is not known");
    change->key = (struct qw_key){
        .id = { (const char *)packing->id, sizeof packing->id },
        .hash = { (const char *)packing->hash.bytes, DIGEST_BYTES },
        .user = text_of(packing, body, "user"),
        .team = text_of(packing, body, "team"),
        .name = text_of(packing, body, "name"),
        .delegates = flag_of(packing, body, "delegate"),
        .class = slice_is(class, SLICE("batch")) ? QW_BATCH : QW_INTERACTIVE,
        .expires_s = number_of(packing, body, "expires", INT64_MAX),
        .weight = (uint32_t)number_of(packing, body, "weight", UINT32_MAX),
        .rpm = (uint32_t)number_of(packing, body, "rpm", UINT32_MAX),
        .max_concurrent = (uint32_t)number_of(packing, body, "max_concurrent", UINT32_MAX),
        .models = names_of(packing, body, "models"),
        .allow = names_of(packing, body, "allow"),
    };
}

static void read_range(struct packing *packing, struct slice id, const json_t *body, struct qw_change *change)
{
    (void)packing;
    (void)body;
    change->range.cidr = id;
}

static void read_model(struct packing *packing, struct slice id, const json_t *body, struct qw_change *change)
{
    const json_t *think = json_object_get(body, "think");
    bool thinks = flag_of(packing, body, "think");

    change->model = (struct qw_model){
        .name = id,
        .backend_model = text_of(packing, body, "backend_model"),
        .num_ctx = number_of(packing, body, "num_ctx", INT64_MAX),
        .keep_alive = keep_alive_of(packing, body),
        .preloads = flag_of(packing, body, "preload"),
        .max_prompt_chars = number_or_none(packing, body, "max_prompt_chars"),
        .max_system_chars = number_or_none(packing, body, "max_system_chars"),
        .think = !think || json_is_null(think) ? QW_THINK_NOT_SAID
                 : thinks                      ? QW_THINK_ON
                                               : QW_THINK_OFF,
    };
}

/* Weight 0 is standby. */
static void read_backend(struct packing *packing, struct slice id, const json_t *body, struct qw_change *change)
{
    const json_t *weight = json_object_get(body, "weight");

    change->backend = (struct qw_backend){
        .name = id,
        .url = text_of(packing, body, "url"),
        .kind = text_of(packing, body, "kind"),
        .slots = (uint32_t)number_of(packing, body, "slots", UINT32_MAX),
        .weight = (uint32_t)number_of(packing, body, "weight", UINT32_MAX),
        .is_standby = json_is_integer(weight) && json_integer_value(weight) == 0,
        .drains = flag_of(packing, body, "drain"),
        .models = names_of(packing, body, "models"),
    };
}

static void read_setting(struct packing *packing, struct slice id, const json_t *body, struct qw_change *change)
{
    const json_t *value = json_object_get(body, "value");
    char *json = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

    if (json)
        change->setting = (struct qw_setting){ id, arena_copy(&packing->arena, slice_of(json)) };
    else
        fail(packing, "it has no value");
    free(json);
}

static const struct noun {
    const char *kind;
    enum qw_noun noun;
    void (*read)(struct packing *packing, struct slice id, const json_t *body, struct qw_change *change);
} nouns[] = {
    { "key", QW_KEY, read_key },
    { "range", QW_RANGE, read_range },
    { "model", QW_MODEL, read_model },
    { "backend", QW_BACKEND, read_backend },
    { "setting", QW_SETTING, read_setting },
};

static const struct noun *noun_of(struct slice kind)
{
    for (unsigned i = 0; i < sizeof nouns / sizeof *nouns; i++)
        if (slice_is(kind, slice_of(nouns[i].kind)))
            return &nouns[i];
    return NULL;
}

/* What does not fit is taken back. */
static enum err append(const struct qw_change *change, struct text *out, struct text *why)
{
    size_t before = out->len;
    enum err err = change_pack(change, out, why);

    if (err != ERR_OK && out->err == ERR_OK && out->len > before) {
        out->len = before;
        out->at[before] = 0;
    }
    return err;
}

/* Nobody is let in by what cannot be told. */
static void take_away(const struct packing *packing, struct text *out)
{
    static const struct digest none;
    char memory[256];
    struct text why = text_over(memory, sizeof memory);
    const struct qw_change gone = {
        QW_CHANGE_REMOVED,
        .removed = { .noun = QW_KEY,
                     .id = { (const char *)packing->id, sizeof packing->id },
                     .hash = { (const char *)packing->hash.bytes, DIGEST_BYTES } },
    };

    if (!digest_is(&packing->hash, &none))
        (void)!append(&gone, out, &why);
}

enum err pack_logged(struct slice kind, struct slice id, struct slice body, struct text *out, struct text *why)
{
    const struct noun *noun = noun_of(kind);
    struct packing packing = { .why = why };
    struct qw_change change = { .what = noun ? noun->noun : 0 };
    json_t *json = body.at ? json_loadb(body.at, body.len, JSON_REJECT_DUPLICATES, NULL) : NULL;

    arena_init(&packing.arena);
    if (!noun || (body.at && !json_is_object(json)))
        fail(&packing, noun ? "its body is no object" : "its kind is not known");
    else if (json)
        noun->read(&packing, id, json, &change);
    else if (noun->noun == QW_KEY)
        fail(&packing, "a key went without its hash");
    else
        change = (struct qw_change){ QW_CHANGE_REMOVED, .removed = { .noun = noun->noun, .name = id } };
    if (packing.err == ERR_OK)
        packing.err = append(&change, out, why);
    if (packing.err != ERR_OK && noun && noun->noun == QW_KEY)
        take_away(&packing, out);
    json_decref(json);
    arena_release(&packing.arena);
    return packing.err;
}

/* --- from columns ---------------------------------------------------------------------------------------- */

static const struct qw_names *words_of(struct packing *packing, const struct slice *words)
{
    struct qw_names *names;
    struct slice *list;
    size_t count = 0;

    if (!words)
        return NULL;
    for (size_t i = 0; i < words->len; i++)
        count += words->at[i] == ' ';
    names = ARENA_NEW(&packing->arena, struct qw_names);
    list = arena_take(&packing->arena, (count + 1) * sizeof *list);
    if (!names || !list) {
        fail(packing, err_text(ERR_NO_MEMORY));
        return NULL;
    }
    *names = (struct qw_names){ list, words->len ? count + 1 : 0 };
    for (struct slice rest = *words; rest.len;) {
        const char *space = memchr(rest.at, ' ', rest.len);
        size_t len = space ? (size_t)(space - rest.at) : rest.len;
        *list++ = (struct slice){ rest.at, len };
        rest = (struct slice){ rest.at + len + (space != NULL), rest.len - len - (space != NULL) };
    }
    return names;
}

enum err pack_key(const struct key_row *row, struct text *out, struct text *why)
{
    struct packing packing = { .why = why };
    struct qw_change change = { .what = QW_KEY };

    arena_init(&packing.arena);
    if (!uuid_parse(row->id, packing.id))
        fail(&packing, "it has no id");
    change.key = (struct qw_key){
        .id = { (const char *)packing.id, sizeof packing.id },
        .hash = { (const char *)row->hash, sizeof row->hash },
        .user = row->user,
        .team = row->team,
        .name = row->name,
        .delegates = row->delegates,
        .class = slice_is(row->class, SLICE("batch")) ? QW_BATCH : QW_INTERACTIVE,
        .expires_s = (uint64_t)row->expires_s,
        .weight = (uint32_t)row->weight,
        .rpm = (uint32_t)row->rpm,
        .max_concurrent = (uint32_t)row->max_concurrent,
        .models = words_of(&packing, row->models),
        .allow = words_of(&packing, row->allow),
    };
    if (packing.err == ERR_OK)
        packing.err = append(&change, out, why);
    arena_release(&packing.arena);
    return packing.err;
}
