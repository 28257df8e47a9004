#include "pieces.h"

#include <stdlib.h>

const char *result_name(enum http_result result)
{
    static const char *const names[] = { "done", "more", "bad", "too big" };

    return names[result];
}

static char *exact_copy(const char *at, size_t len)
{
    char *copy = malloc(len ? len : 1);

    CHECK(copy);
    if (len)
        memcpy(copy, at, len);
    return copy;
}

static void inside(const char *base, size_t len, struct slice slice)
{
    CHECK(slice.at == NULL || (slice.at >= base && slice.at + slice.len <= base + len));
}

static void check_inside(const struct outcome *outcome, size_t len)
{
    const struct http_head *head = &outcome->head;

    CHECK(head->bytes <= len);
    inside(outcome->bytes, head->bytes, head->method);
    inside(outcome->bytes, head->bytes, head->target);
    inside(outcome->bytes, head->bytes, head->path);
    inside(outcome->bytes, head->bytes, head->reason);
    for (unsigned i = 0; i < head->field_count; i++) {
        inside(outcome->bytes, head->bytes, head->fields[i].name);
        inside(outcome->bytes, head->bytes, head->fields[i].value);
    }
}

static void parse(struct outcome *outcome, enum side side, const char *at, size_t len, size_t max, size_t *scanned)
{
    size_t before = *scanned;

    outcome->bytes = exact_copy(at, len);
    outcome->why = "";
    outcome->result = side == REQUEST
                          ? http_parse_request(&outcome->head, outcome->bytes, len, max, scanned, &outcome->why)
                          : http_parse_response(&outcome->head, outcome->bytes, len, max, scanned,
                                                side == RESPONSE_TO_HEAD, &outcome->why);
    if (outcome->result == HTTP_MORE)
        CHECK(*scanned >= before && *scanned <= len);
    else
        CHECK_EQ(*scanned, 0);
    if (outcome->result == HTTP_DONE)
        check_inside(outcome, len);
}

void outcome_release(struct outcome *outcome)
{
    free(outcome->bytes);
    outcome->bytes = NULL;
}

static void same_slice(const struct outcome *a, struct slice of_a, const struct outcome *b, struct slice of_b)
{
    CHECK_EQ(of_a.len, of_b.len);
    CHECK_EQ(of_a.at ? of_a.at - a->bytes : -1, of_b.at ? of_b.at - b->bytes : -1);
}

static void same(const struct outcome *a, const struct outcome *b)
{
    CHECK_STR(result_name(a->result), strlen(result_name(a->result)), result_name(b->result));
    CHECK_STR(a->why, strlen(a->why), b->why);
    if (a->result != HTTP_DONE)
        return;
    CHECK_EQ(a->head.bytes, b->head.bytes);
    CHECK_EQ(a->head.framing, b->head.framing);
    CHECK_EQ(a->head.content_length, b->head.content_length);
    CHECK_EQ(a->head.keeps_alive, b->head.keeps_alive);
    CHECK_EQ(a->head.field_count, b->head.field_count);
    CHECK(memcmp(a->head.first, b->head.first, sizeof a->head.first) == 0);
    CHECK(memcmp(a->head.count, b->head.count, sizeof a->head.count) == 0);
    same_slice(a, a->head.path, b, b->head.path);
    for (unsigned i = 0; i < a->head.field_count; i++) {
        same_slice(a, a->head.fields[i].name, b, b->head.fields[i].name);
        same_slice(a, a->head.fields[i].value, b, b->head.fields[i].value);
    }
}

/* Gives the first `first` bytes, then `step` more at a time, until there is an outcome or nothing is left. */
static void check_cut(const struct outcome *wanted, enum side side, struct slice message, size_t max, size_t first,
                      size_t step)
{
    size_t scanned = 0;

    for (size_t len = first;; len = message.len - len < step ? message.len : len + step) {
        struct outcome outcome;
        parse(&outcome, side, message.at, len, max, &scanned);
        if (outcome.result != HTTP_MORE || len == message.len) {
            same(&outcome, wanted);
            outcome_release(&outcome);
            return;
        }
        outcome_release(&outcome);
    }
}

void outcome_of(struct outcome *ret_outcome, enum side side, struct slice message, size_t max_bytes)
{
    size_t scanned = 0;

    parse(ret_outcome, side, message.at, message.len, max_bytes, &scanned);
    for (size_t cut = 0; cut < message.len; cut += 1 + message.len / 700)
        check_cut(ret_outcome, side, message, max_bytes, cut, message.len);
    check_cut(ret_outcome, side, message, max_bytes, 0, message.len > 4096 ? 61 : 1);
}

static void feed(struct http_body *body, struct body_outcome *outcome, const char *at, size_t len)
{
    char *piece = exact_copy(at, len);

    for (size_t used = 0, step; outcome->result == HTTP_MORE && used < len; used += step) {
        struct slice payload;
        uint64_t seen = body->seen;
        outcome->result = http_body_next(body, piece + used, len - used, &step, &payload, &outcome->why);
        CHECK(step <= len - used && payload.len <= step);
        CHECK(outcome->result != HTTP_MORE || step > 0);
        inside(piece + used, step, payload);
        text_add_slice(&outcome->payload, payload);
        CHECK_EQ(body->seen - seen, payload.len);
        outcome->used += outcome->result == HTTP_BAD ? 0 : step;
    }
    free(piece);
}

static void decode(struct body_outcome *ret_outcome, enum http_framing framing, uint64_t length, struct slice message,
                   size_t first, size_t step)
{
    struct http_body body;
    struct slice payload;
    size_t used;

    *ret_outcome = (struct body_outcome){ .why = "" };
    text_init(&ret_outcome->payload, 1 << 24);
    http_body_init(&body, framing, length);
    ret_outcome->result = http_body_next(&body, NULL, 0, &used, &payload, &ret_outcome->why);
    CHECK_EQ(used, 0);
    for (size_t at = 0, len = first; ret_outcome->result == HTTP_MORE; at += len, len = step) {
        len = message.len - at < len ? message.len - at : len;
        feed(&body, ret_outcome, message.at + at, len);
        if (at + len == message.len)
            break;
    }
    if (ret_outcome->result != HTTP_MORE) /* it stays so */
        CHECK_EQ(http_body_next(&body, "0", 1, &used, &payload, &ret_outcome->why), ret_outcome->result);
}

void body_outcome_release(struct body_outcome *outcome)
{
    text_release(&outcome->payload);
}

static void check_body_cut(const struct body_outcome *wanted, enum http_framing framing, uint64_t length,
                           struct slice message, size_t first, size_t step)
{
    struct body_outcome outcome;

    decode(&outcome, framing, length, message, first, step);
    CHECK_EQ(outcome.result, wanted->result);
    CHECK_STR(outcome.why, strlen(outcome.why), wanted->why);
    CHECK_STR(text_string(&outcome.payload), outcome.payload.len, text_string(&wanted->payload));
    if (wanted->result != HTTP_BAD)
        CHECK_EQ(outcome.used, wanted->used);
    body_outcome_release(&outcome);
}

void body_outcome_of(struct body_outcome *ret_outcome, enum http_framing framing, uint64_t length, struct slice message)
{
    decode(ret_outcome, framing, length, message, message.len, 1);
    for (size_t cut = 1; cut < message.len; cut += 1 + message.len / 300) {
        check_body_cut(ret_outcome, framing, length, message, cut, message.len);
        check_body_cut(ret_outcome, framing, length, message, cut, 1 + cut % 3);
    }
    check_body_cut(ret_outcome, framing, length, message, 1, 1);
}
