/* welcome - who may ask: Ollama on loopback looks at Host, always at Origin, and turns strangers away with a bare 403.
 */
#pragma once
#include "http.h"

bool is_welcome(const struct http_request *req, const char *base);
