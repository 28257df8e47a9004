/* Requests: heads whole and in pieces, then their bodies. And the small grammars on the same bytes. */
#include "http_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* What was decoded is text without controls, no longer than what was written. */
static void try_percent_decode(struct slice segment)
{
    struct text out;

    text_init(&out, 1 << 20);
    if (http_percent_decode(segment, &out)) {
        MUST(out.len <= segment.len && utf8_valid(text_slice(&out)));
        for (size_t i = 0; i < out.len; i++)
            MUST((unsigned char)out.at[i] >= 0x20 && out.at[i] != 0x7f);
    } else {
        MUST(out.len == 0);
    }
    text_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct slice all = { (const char *)bytes, len };

    try_message(true, bytes, len);
    try_percent_decode(all);
    (void)http_list_has(all, SLICE("close"));
    return 0;
}
