#include "err.h"

static const char *const texts[ERR_COUNT] = { [ERR_OK] = "no error",
#define ERR_TEXT(name, text) [ERR_##name] = text,
                                              ERRORS(ERR_TEXT)
#undef ERR_TEXT
};

const char *err_text(enum err err)
{
    return (unsigned)err < ERR_COUNT ? texts[err] : "unknown error";
}
