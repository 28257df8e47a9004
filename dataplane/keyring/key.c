/* How a key lies in memory, what a rule must hold, and copies that outlive a ring. */
#include "parts.h"

#include <assert.h>

enum { WORDS_AT = offsetof(struct key, words), SHOWN_DIGITS = 8 };

/* Two lines, with names of up to 35 bytes in all. */
static_assert(WORDS_AT == 93 && KEY_NAME_MAX_BYTES <= UINT8_MAX && KEY_WEIGHT_MAX <= UINT16_MAX);

/* Of a word that has more than ASCII: valid, without control characters and spaces that look like none. */
static bool is_plain_utf8(struct slice word)
{
    static const char *const spaces[] = {
        "\u00a0", "\u1680", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff"
    };

    if (!utf8_valid(word))
        return false;
    for (size_t i = 0; i + 1 < word.len; i++) {
        unsigned char c = (unsigned char)word.at[i], next = (unsigned char)word.at[i + 1];
        if (c == 0xc2 && next < 0xa0) /* U+0080 to U+009F */
            return false;
        if (c == 0xe2 && next == 0x80 && (unsigned char)word.at[i + 2] <= 0x8f) /* U+2000 to U+200F */
            return false;
    }
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if (slice_has(word, slice_of(spaces[i])))
            return false;
    return true;
}

/* What would break a line of the log, or let one name look like another. */
bool key_word_is_good(struct slice word)
{
    unsigned char seen = 0;

    if (!word.len || word.len > KEY_NAME_MAX_BYTES || word.at[0] == '!')
        return false;
    for (size_t i = 0; i < word.len; i++) {
        unsigned char c = (unsigned char)word.at[i];
        if (c <= ' ' || c == 0x7f || c == '/' || c == '=' || c == '"')
            return false;
        seen |= c;
    }
    return seen < 0x80 || is_plain_utf8(word); /* a million keys are read at a start */
}

bool key_model_is_good(const char *name)
{
    size_t len = strlen(name);

    if (!len || len > KEY_MODEL_MAX_BYTES)
        return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] >= 0x7f || (name[i] >= 'A' && name[i] <= 'Z'))
            return false;
    return true;
}

static const char *wrong_with_lists(const struct key_rule *rule)
{
    if (rule->models && (!rule->model_count || rule->model_count > KEY_LIST_MAX))
        return "must name 1 to 4096 models, or allow all";
    for (size_t i = 0; rule->models && i < rule->model_count; i++)
        if (!key_model_is_good(rule->models[i]))
            return "names a model that could be none";
    if (rule->has_allow && (!rule->allow.count || rule->allow.count > KEY_LIST_MAX))
        return "must name 1 to 4096 ranges of addresses, or allow all";
    for (size_t i = 0; rule->has_allow && i < rule->allow.count; i++)
        if (rule->allow.items[i].bits > 128)
            return "names a range of addresses that is none";
    return NULL;
}

static const char *wrong_with(const struct key_rule *rule)
{
    if (!key_word_is_good(slice_of(rule->name)))
        return "has a name that cannot stand in a log";
    if (!key_word_is_good(slice_of(rule->user)))
        return "has a user whose name cannot stand in a log";
    if (rule->team && *rule->team && !key_word_is_good(slice_of(rule->team)))
        return "has a team whose name cannot stand in a log";
    if (!rule->weight || rule->weight > KEY_WEIGHT_MAX)
        return "must have a weight from 1 to 1000";
    if ((unsigned)rule->think > KEY_THINK_OFF || (unsigned)rule->class > KEY_BATCH)
        return "asks for what this version does not know";
    if (rule->has_max_prompt_chars && rule->max_prompt_chars > UINT32_MAX)
        return "has a limit of characters that is none";
    if (rule->expires_s < 0)
        return "expires before 1970";
    return wrong_with_lists(rule);
}

enum err rule_check(const struct key_rule *rule, struct text *why)
{
    const char *wrong = wrong_with(rule);
    struct text hex;

    if (!wrong)
        return ERR_OK;
    if (!why)
        return ERR_BAD;
    text_init(&hex, DIGEST_HEX);
    digest_add_hex(&hex, &rule->hash);
    text_printf(why, "the key sha256:%.*s… %s", SHOWN_DIGITS, text_string(&hex), wrong);
    text_release(&hex);
    return ERR_BAD;
}

static size_t aligned(size_t bytes)
{
    return (bytes + KEY_ALIGN - 1) / KEY_ALIGN * KEY_ALIGN;
}

size_t key_copy_bytes(const struct key *key)
{
    size_t before_team = (size_t)key->name_bytes + key->user_bytes + 2;

    return WORDS_AT + before_team + strlen(key->words + before_team) + 1;
}

size_t key_room(const struct key *key)
{
    return aligned(key_copy_bytes(key));
}

size_t rule_room(const struct key_rule *rule)
{
    return aligned(WORDS_AT + strlen(rule->name) + strlen(rule->user) + (rule->team ? strlen(rule->team) : 0) + 3);
}

static char *put_word(char *at, const char *word, size_t len)
{
    memcpy(at, word, len);
    return at + len + 1;
}

void key_write(struct key *key, const struct key_rule *rule)
{
    char *at = key->words;

    key->hash = rule->hash;
    memcpy(key->id, rule->id, sizeof key->id);
    key->expires_s = rule->expires_s;
    key->max_prompt_chars = rule->has_max_prompt_chars ? (uint32_t)rule->max_prompt_chars : 0;
    key->max_requests = rule->max_requests;
    key->max_total_requests = rule->max_total_requests;
    key->max_concurrent = rule->max_concurrent;
    key->weight = (uint16_t)rule->weight;
    key->is_plain = rule->is_plain;
    key->delegates = rule->delegates;
    key->has_max_prompt_chars = rule->has_max_prompt_chars;
    key->think = rule->think;
    key->class = rule->class;
    key->name_bytes = (uint8_t)strlen(rule->name);
    key->user_bytes = (uint8_t)strlen(rule->user);
    at = put_word(at, rule->name, key->name_bytes);
    at = put_word(at, rule->user, key->user_bytes);
    if (rule->team)
        (void)put_word(at, rule->team, strlen(rule->team));
}

void key_ref_lists(const struct key *key)
{
    if (key->models)
        list_ref(list_holding_models(key->models));
    if (key->allow)
        list_ref(list_holding_ranges(key->allow));
}

void key_unref_lists(const struct key *key)
{
    if (key->models)
        list_unref(list_holding_models(key->models));
    if (key->allow)
        list_unref(list_holding_ranges(key->allow));
}

const struct key *key_copy(const struct key *key, void *memory)
{
    memcpy(memory, key, key_copy_bytes(key));
    key_ref_lists(key);
    return memory;
}

void key_let_go(const struct key *copy)
{
    key_unref_lists(copy);
}
