#include "refusal.h"

static const struct cause_row rows[CAUSE_COUNT] = { [CAUSE_NONE] = { 200, "", "", true, "" },
#define CAUSE_ROW(name, status, type, code, heals, message) [CAUSE_##name] = { status, type, code, heals, message },
                                                    CAUSES(CAUSE_ROW)
#undef CAUSE_ROW
};

const struct cause_row *cause_row(enum cause cause)
{
    return &rows[cause];
}

int64_t refusal_retry_after_s(int64_t wait_us)
{
    enum { SECOND_US = 1000000 };

    if (wait_us <= SECOND_US)
        return 1;
    if (wait_us >= (int64_t)REFUSAL_MAX_RETRY_AFTER_S * SECOND_US)
        return REFUSAL_MAX_RETRY_AFTER_S;
    return (wait_us + SECOND_US - 1) / SECOND_US;
}

unsigned refusal_status(const struct refusal *refusal)
{
    return refusal->status ? refusal->status : rows[refusal->cause].status;
}

struct slice refusal_message(const struct refusal *refusal)
{
    return refusal->message.len ? refusal->message : slice_of(rows[refusal->cause].message);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* Where `word` ends when the text begins with it, else NULL. A '?' in it stands for any one character or none. */
static const char *begins_with(const char *at, const char *end, const char *word)
{
    for (; *word; word++) {
        if (*word == '?') {
            const char *behind = at < end ? begins_with(at + 1, end, word + 1) : NULL;
            return behind ? behind : begins_with(at, end, word + 1);
        }
        if (at == end || lower(*at) != *word)
            return NULL;
        at++;
    }
    return at;
}

bool refusal_text_invites_retry(struct slice text)
{
    static const char *const words[] = {
        "429",
        "500",
        "501",
        "502",
        "503",
        "504",
        "529",
        "overloaded",
        "rate?limit",
        "too many requests",
        "service?unavailable",
        "server error",
        "internal error",
        "connection?error",
        "connection?refused",
        "other side closed",
        "fetch failed",
        "upstream?connect",
        "reset before headers",
    };

    for (size_t i = 0; i < text.len; i++)
        for (size_t k = 0; k < sizeof words / sizeof *words; k++)
            if (begins_with(text.at + i, text.at + text.len, words[k]))
                return true;
    return false;
}

/* Digits in groups of `size`, counted from the right. */
static void add_grouped(struct text *out, struct slice digits, size_t size, char between)
{
    for (size_t i = 0; i < digits.len; i++) {
        if (i && (digits.len - i) % size == 0)
            text_add_char(out, between);
        text_add_char(out, digits.at[i]);
    }
}

void refusal_add_number(struct text *out, uint64_t number)
{
    static const struct {
        size_t group;
        char between;
    } ways[] = { { 20, 0 }, { 3, ',' }, { 2, '_' } };
    char memory[48];
    struct text digits = { .at = memory, .room = sizeof memory, .max = sizeof memory - 1 };
    struct text plain;

    text_init(&plain, 20);
    text_add_u64(&plain, number);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        digits.len = 0;
        add_grouped(&digits, text_slice(&plain), ways[i].group, ways[i].between);
        if (!refusal_text_invites_retry(text_slice(&digits)))
            break;
    }
    text_release(&plain);
    text_add_slice(out, text_slice(&digits));
}
