/* CRC-32C. The processor has an instruction for it, eight bytes at a time; where it does not, tables do the same. */
#include "digest.h"

#include <pthread.h>

enum { TABLES = 8 };

static uint32_t tables[TABLES][256];

static void make_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t sum = i;
        for (unsigned bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0x82f63b78u : 0); /* the reflected polynomial */
        tables[0][i] = sum;
    }
    for (unsigned k = 1; k < TABLES; k++)
        for (unsigned i = 0; i < 256; i++)
            tables[k][i] = tables[k - 1][i] >> 8 ^ tables[0][tables[k - 1][i] & 255];
}

static uint32_t crc32c_by_tables(uint32_t sum, const uint8_t *at, size_t len)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, make_tables);
    for (; len >= 8; at += 8, len -= 8) {
        sum ^= (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        sum = tables[7][sum & 255] ^ tables[6][sum >> 8 & 255] ^ tables[5][sum >> 16 & 255] ^ tables[4][sum >> 24] ^
              tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
    }
    for (; len; at++, len--)
        sum = sum >> 8 ^ tables[0][(sum ^ *at) & 255];
    return sum;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc32c_by_processor(uint32_t sum, const uint8_t *at, size_t len)
{
    uint64_t wide = sum;

    for (; len >= 8; at += 8, len -= 8) {
        uint64_t eight;
        memcpy(&eight, at, sizeof eight);
        wide = __builtin_ia32_crc32di(wide, eight);
    }
    sum = (uint32_t)wide;
    for (; len; at++, len--)
        sum = __builtin_ia32_crc32qi(sum, *at);
    return sum;
}
#endif

uint32_t crc32c_of_portably(uint32_t sum, struct slice bytes)
{
    return ~crc32c_by_tables(~sum, (const uint8_t *)bytes.at, bytes.len);
}

uint32_t crc32c_of(uint32_t sum, struct slice bytes)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc32c_by_processor(~sum, (const uint8_t *)bytes.at, bytes.len);
#endif
    return crc32c_of_portably(sum, bytes);
}
