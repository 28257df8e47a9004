#define HTTP_PORTABLE
#include "test_scan.c"
