/* Codes that are checked, not secret: base64 and CRC-32. */
#include "digest.h"

/* 1 for the 64 characters of the alphabet. */
static const uint8_t in_alphabet[256] = {
    ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1, ['0' ... '9'] = 1, ['+'] = 1, ['/'] = 1,
};

bool base64_is_valid(struct slice text, size_t *ret_bytes)
{
    const unsigned char *at = (const unsigned char *)text.at;
    size_t padding = 0;
    size_t len = text.len;

    if (len % 4 != 0)
        return false;
    while (len && padding < 2 && at[len - 1] == '=') {
        padding++;
        len--;
    }
    for (size_t i = 0; i < len;) {
        /* Eight at a time without a branch between: images are megabytes. */
        uint8_t good = 1;
        size_t stop = len - i < 8 ? len : i + 8;
        for (; i < stop; i++)
            good &= in_alphabet[at[i]];
        if (!good)
            return false;
    }
    *ret_bytes = text.len / 4 * 3 - padding;
    return true;
}

uint32_t crc32_of(struct slice bytes)
{
    /* The reflected polynomial 0xedb88320, four bits a step: short texts only pass here, and 16 words fit a line. */
    static const uint32_t steps[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = 0xffffffffu;

    for (size_t i = 0; i < bytes.len; i++) {
        crc ^= (uint8_t)bytes.at[i];
        crc = crc >> 4 ^ steps[crc & 15];
        crc = crc >> 4 ^ steps[crc & 15];
    }
    return ~crc;
}
