#include "journal.h"

#include <endian.h>

#include "digest.h"

enum { FORMAT = 1, MAGIC_BYTES = 8 };

static const char magic[MAGIC_BYTES + 1] = "QGJRNL\r\n";

static void add32(struct text *out, uint32_t number)
{
    number = htole32(number);
    text_add(out, (const char *)&number, sizeof number);
}

static void add64(struct text *out, uint64_t number)
{
    number = htole64(number);
    text_add(out, (const char *)&number, sizeof number);
}

static uint32_t get32(const char *at)
{
    uint32_t number;

    memcpy(&number, at, sizeof number);
    return le32toh(number);
}

static uint64_t get64(const char *at)
{
    uint64_t number;

    memcpy(&number, at, sizeof number);
    return le64toh(number);
}

/* Of all of it but the sum itself, which stands in the middle. */
static uint32_t sum_of_header(const char *at)
{
    uint32_t sum = crc32c_of(0, (struct slice){ at, MAGIC_BYTES + 4 });

    return crc32c_of(sum, (struct slice){ at + 16, 8 });
}

static uint32_t sum_of_record(const char *at, size_t changes)
{
    uint32_t sum = crc32c_of(0, (struct slice){ at, 4 });

    return crc32c_of(sum, (struct slice){ at + 8, 16 + changes });
}

void journal_add_header(struct text *out, uint64_t base)
{
    size_t start = out->len;
    uint32_t sum;

    text_add(out, magic, MAGIC_BYTES);
    add32(out, FORMAT);
    add32(out, 0);
    add64(out, base);
    if (out->err)
        return;
    sum = htole32(sum_of_header(out->at + start));
    memcpy(out->at + start + 12, &sum, sizeof sum);
}

void journal_add_record(struct text *out, struct slice changes, uint64_t from, uint64_t to)
{
    size_t start = out->len;
    uint32_t sum;

    add32(out, (uint32_t)changes.len);
    add32(out, 0);
    add64(out, from);
    add64(out, to);
    text_add_slice(out, changes);
    if (out->err)
        return;
    sum = htole32(sum_of_record(out->at + start, changes.len));
    memcpy(out->at + start + 4, &sum, sizeof sum);
}

bool journal_begin(struct slice bytes, struct journal_reading *ret_reading)
{
    if (bytes.len < JOURNAL_HEADER_BYTES || memcmp(bytes.at, magic, MAGIC_BYTES) != 0 ||
        get32(bytes.at + 8) != FORMAT || get32(bytes.at + 12) != sum_of_header(bytes.at))
        return false;
    *ret_reading = (struct journal_reading){
        .left = { bytes.at + JOURNAL_HEADER_BYTES, bytes.len - JOURNAL_HEADER_BYTES },
        .base = get64(bytes.at + 16),
        .good = JOURNAL_HEADER_BYTES,
    };
    return true;
}

bool journal_next(struct journal_reading *reading, struct journal_record *ret_record)
{
    struct slice left = reading->left;
    size_t changes;

    if (left.len < JOURNAL_RECORD_BYTES)
        return false;
    changes = get32(left.at);
    if (changes > JOURNAL_MAX_CHANGES || left.len - JOURNAL_RECORD_BYTES < changes ||
        get32(left.at + 4) != sum_of_record(left.at, changes))
        return false;
    *ret_record = (struct journal_record){
        .from = get64(left.at + 8),
        .to = get64(left.at + 16),
        .changes = { left.at + JOURNAL_RECORD_BYTES, changes },
    };
    reading->left.at += JOURNAL_RECORD_BYTES + changes;
    reading->left.len -= JOURNAL_RECORD_BYTES + changes;
    reading->good += JOURNAL_RECORD_BYTES + changes;
    return true;
}
