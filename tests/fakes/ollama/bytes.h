/*
 * bytes - a buffer that grows, and slices of other people's buffers.
 * Owned by whoever declared it; zero-initialised is empty; bytes_release() frees. Not for sharing between
 * threads. Running out of memory ends the program: this is a tool for tests. Sizes are in bytes.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slice {
    const char *at;
    size_t len;
};

struct bytes {
    char *at;
    size_t len;
    size_t cap;
};

#define SLICE(literal) ((struct slice){ (literal), sizeof(literal) - 1 })

void bytes_need(struct bytes *b, size_t more); /* room for that many more */
void bytes_add(struct bytes *b, const void *at, size_t len);
void bytes_text(struct bytes *b, const char *text);
void bytes_slice(struct bytes *b, struct slice s);
void bytes_number(struct bytes *b, uint64_t number);
void bytes_hex(struct bytes *b, uint64_t number);
void bytes_print(struct bytes *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bytes_release(struct bytes *b); /* empty again, nothing held */

struct slice slice_of(const char *text);
struct slice slice_copy(struct slice s); /* free((char *)copy.at) */
bool slice_is(struct slice s, const char *text);
bool slice_is_caseless(struct slice s, const char *text);
bool slice_starts(struct slice s, const char *text);
bool slice_ends_caseless(struct slice s, const char *text);

/* The string with its quotes as Go's encoding/json writes it: < > & U+2028 U+2029 escaped, bad UTF-8 as \ufffd. */
void bytes_json(struct bytes *b, struct slice s);

/* Length of the UTF-8 character at the start of s, 0 if it is not one. */
size_t utf8_length(const char *at, size_t len);

void *must_alloc(size_t size); /* zeroed */
