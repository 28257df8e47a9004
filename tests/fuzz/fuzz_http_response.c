/* Answers: heads whole and in pieces, then their bodies. */
#include "http_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    try_message(false, bytes, len);
    return 0;
}
