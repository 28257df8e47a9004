/*
 * err - what can go wrong in the world, as one enum and one table of texts.
 * Rooms return it, the story decides, and the one who decides logs, once. assert() is for our own mistakes.
 */
#pragma once

/*
 * On a function that hardly ever runs (refusals, errors, growing): the compiler takes a branch that leads to it for one
 * not taken, and moves it out of the way. What a request does lies closer together then, in fewer cache lines.
 */
#define COLD __attribute__((cold))

#define ERRORS(X)                       \
    X(AGAIN, "not yet")                 \
    X(BAD, "not well formed")           \
    X(TOO_LONG, "longer than allowed")  \
    X(NO_MEMORY, "out of memory")       \
    X(NOT_FOUND, "not found")           \
    X(FULL, "full")                     \
    X(LIMIT, "over the limit")          \
    X(TIMEOUT, "took too long")         \
    X(GONE, "the other side went away") \
    X(REFUSED, "refused")               \
    X(SYSTEM, "the system said no")

enum [[nodiscard]] err{ ERR_OK = 0,
#define ERR_ENUM(name, text) ERR_##name,
                        ERRORS(ERR_ENUM)
#undef ERR_ENUM
                            ERR_COUNT };

/* A short lower-case phrase, never NULL. */
const char *err_text(enum err err);
