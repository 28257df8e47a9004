/* A question: its values on the way out, its rows and its failure on the way back. */
#include <assert.h>
#include <stdlib.h>

#include "parts.h"

enum { MORE_ATTEMPTS = 2 };

void list_init(struct question_list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

void list_add(struct question_list *list, struct question *question)
{
    question->next = NULL;
    *list->end = question;
    list->end = &question->next;
}

void list_add_front(struct question_list *list, struct question *question)
{
    question->next = list->first;
    list->first = question;
    if (!question->next)
        list->end = &question->next;
}

struct question *list_take(struct question_list *list)
{
    struct question *question = list->first;

    if (!question)
        return NULL;
    list->first = question->next;
    if (!list->first)
        list->end = &list->first;
    question->next = NULL;
    return question;
}

/* One piece of memory: the question, its parts, their rows, their values. */
enum err question_new(struct store *store, enum question_kind kind, const struct ask *asks, size_t count,
                      struct question **ret_question)
{
    size_t bytes = sizeof(struct question) + count * (sizeof(struct part) + sizeof(struct rows));
    size_t values_at = (bytes + 15) / 16 * 16;
    struct question *question;
    char *memory;

    bytes = values_at;
    for (size_t i = 0; i < count; i++) {
        size_t more = wire_values_bytes(asks[i].values, asks[i].count);
        if (more == SIZE_MAX)
            return ERR_BAD;
        bytes += more;
    }
    question = calloc(1, bytes);
    if (!question)
        return ERR_NO_MEMORY;
    *question = (struct question){ .store = store, .kind = kind, .part_count = count };
    question->parts = (struct part *)(void *)(question + 1);
    question->rows = (struct rows *)(void *)(question->parts + count);
    failure_init(&question->failure);
    memory = (char *)question + values_at;
    question->is_repeatable = count != 0;
    for (size_t i = 0; i < count; i++) {
        question->parts[i].statement = asks[i].statement;
        question->is_repeatable = question->is_repeatable && asks[i].statement->is_repeatable;
        wire_values_write(&question->parts[i].values, asks[i].values, asks[i].count, &memory);
    }
    *ret_question = question;
    return ERR_OK;
}

static void clear(struct question *question)
{
    for (size_t i = 0; i < question->part_count; i++)
        rows_release(&question->rows[i]);
    failure_release(&question->failure);
    failure_init(&question->failure);
    question->got = 0;
}

bool question_reset(struct question *question)
{
    if (++question->attempts >= question->store->options.connections + MORE_ATTEMPTS)
        return false;
    clear(question);
    return true;
}

void question_free(struct question *question)
{
    clear(question);
    if (!question->is_embedded)
        free(question);
}

static const char *what(const struct question *question)
{
    static const char *const names[] = {
        [QUESTION_BEGIN] = "BEGIN",       [QUESTION_COMMIT] = "COMMIT", [QUESTION_ROLLBACK] = "ROLLBACK",
        [QUESTION_GREETING] = "greeting", [QUESTION_LISTEN] = "LISTEN", [QUESTION_BEAT] = "sign of life",
    };

    if (question->kind == QUESTION_PREPARE)
        return question->store->statements[question->number]->name;
    if (question->part_count)
        return question->parts[question->got < question->part_count ? question->got : question->part_count - 1]
            .statement->name;
    return names[question->kind];
}

void question_take(struct question *question, PGresult *result)
{
    if (PQresultStatus(result) != PGRES_PIPELINE_ABORTED && !result_is_good(result)) {
        failure_from(&question->failure, what(question), result);
    } else if (question->failure.err == ERR_OK) {
        if (question->got < question->part_count) {
            question->rows[question->got].result = result;
            result = NULL;
        }
        question->got++;
    }
    PQclear(result);
}

bool question_is_undone(const struct question *question)
{
    size_t commands = question->part_count ? question->part_count : 1;

    switch (question->kind) {
    case QUESTION_ASK: /* an error before its end undoes all of it, if the database says it and not libpq for it; at its
                        * end, only one that left the connection alive */
        return question->failure.err != ERR_OK &&
               (question->failure.err != ERR_GONE || (question->got < commands && *question->failure.sqlstate));
    case QUESTION_COMMIT:
        return question->failure.err != ERR_OK && question->failure.err != ERR_GONE;
    default:
        return true;
    }
}

void question_answer(struct question *question, bool may_be_done)
{
    const struct failure *failure = &question->failure;
    bool is_good = failure->err == ERR_OK;
    struct answer answer = {
        .err = failure->err,
        .may_be_done = !is_good && may_be_done,
        .sqlstate = failure->sqlstate,
        .constraint = failure->constraint,
        .sentence = text_string(&failure->sentence),
        .message = text_string(&failure->message),
        .detail = text_string(&failure->detail),
        .rows = question->rows,
        .count = is_good ? question->part_count : 0,
    };
    struct store *store = question->store;

    if (question->on_answer) {
        store->depth++;
        question->on_answer(question->arg, &answer);
        store->depth--;
    }
    question_free(question);
}
