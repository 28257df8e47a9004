#include <jansson.h>
#include <stdio.h>

#include "check.h"
#include "output.h"
#include "top.h"

static const char load[] =
    "{'window_s':10,'gateways':["
    "{'name':'gw1','live':true,'running':12,'waiting':3,'applied_version':42,'apply_error':null,'heard_ms_ago':210,"
    "'backends':[{'name':'gpu1','up':true,'running':8,'waiting':3},{'name':'gpu2','up':false,'running':0,'waiting':0}]}"
    ","
    "{'name':'gw2','live':false,'running':0,'waiting':0,'applied_version':40,'apply_error':null,'heard_ms_ago':93000,'"
    "backends':[]}],"
    "'models':[{'model':'qwen3:32b','running':12,'waiting':3,'requests_per_s':2.5,'prompt_tokens_per_s':12345,"
    "'completion_tokens_per_s':640.2,'first_token_ms':{'p50':180,'p95':900,'p99':2500},"
    "'duration_ms':{'p50':4200,'p95':20000,'p99':61000}}],"
    "'users':[{'user':'alice','requests':25,'refused':1,'prompt_tokens':123456,'completion_tokens':6402},"
    "{'user':'bob\\u001b[2J','requests':3,'refused':0,'prompt_tokens':12,'completion_tokens':7}]}";
static const char status[] = "{'version':'0.1.0','database':{'up':true,'reason':''},'config_version':42,"
                             "'gateways':{'enrolled':2,'live':1,'behind':1},'uptime_s':60}";

static json_t *read(const char *words)
{
    char text[4096];
    size_t len = strlen(words);
    json_t *value;

    for (size_t i = 0; i <= len; i++)
        text[i] = words[i] == '\'' ? '"' : words[i];
    value = json_loads(text, 0, NULL);
    CHECK(value);
    return value;
}

static void frame(unsigned width, unsigned height, const char *load_words, const char *why, struct text *out)
{
    json_t *load_is = load_words ? read(load_words) : NULL, *status_is = load_words ? read(status) : NULL;
    struct top_view view = { .load = load_is,
                             .status = status_is,
                             .server = "http://127.0.0.1:18800",
                             .why = why,
                             .age_ms = 7000,
                             .wall_ms = INT64_C(1795406400000),
                             .width = width,
                             .height = height };

    text_init(out, 1 << 20);
    top_add_frame(&view, out);
    json_decref(load_is);
    json_decref(status_is);
}

TEST(the_picture_of_80_columns)
{
    struct text out;

    frame(80, 24, load, NULL, &out);
    CHECK_STR(text_string(&out), out.len,
              "qwadm top  2026-11-23T04:00:00Z  http://127.0.0.1:18800\n"
              "gateways 1 live of 2, 1 behind  configuration 42\n"
              "running 12  waiting 3  requests/s 2.5  tokens/s in 12.3k out 640\n"
              "\n"
              "GATEWAY         STATE     RUN   WAIT   APPLIED   HEARD  BACKENDS RUN+WAIT\n"
              "gw1             live       12      3        42   210ms  gpu1 8+3  gpu2 down\n"
              "gw2             silent      0      0        40   93.0s\n"
              "\n"
              "MODEL                 RUN   WAIT   REQ/S    IN/S   OUT/S   FIRST     99%   WHOLE\n"
              "qwen3:32b              12      3     2.5   12.3k     640   180ms    2.5s    4.2s\n"
              "\n"
              "USER                                    REQUESTS  REFUSED  TOKENS IN  TOKENS OUT\n"
              "alice                                         25        1       123k        6.4k\n"
              "bob\\x1b[2J                                     3        0         12           7\n");
    text_release(&out);
}

static void measure(const struct text *out, unsigned width, unsigned height)
{
    struct slice rest = text_slice(out);
    unsigned lines = 0;

    while (rest.len) {
        const char *end = memchr(rest.at, '\n', rest.len);
        size_t len = (size_t)(end - rest.at);

        CHECK(end && width_of((struct slice){ rest.at, len }) <= width);
        rest = (struct slice){ end + 1, rest.len - len - 1 };
        lines++;
    }
    CHECK(lines <= height);
}

TEST(it_fits_every_terminal)
{
    for (unsigned width = 20; width < 220; width += 7) {
        for (unsigned height = 6; height < 60; height++) {
            struct text out;

            frame(width, height, load, NULL, &out);
            measure(&out, width, height);
            CHECK(!memchr(out.at, '\x1b', out.len));
            text_release(&out);
        }
    }
}

TEST(before_the_first_answer_it_says_that_it_asks)
{
    struct text out;

    frame(80, 24, NULL, NULL, &out);
    CHECK(strstr(text_string(&out), "asking the server"));
    measure(&out, 80, 24);
    text_release(&out);
}

TEST(what_is_old_is_shown_as_old)
{
    struct text out;

    frame(80, 24, load, "http://127.0.0.1:18800 cannot be reached", &out);
    CHECK(strstr(text_string(&out), "no news for 7 s: http://127.0.0.1:18800 cannot be reached"));
    CHECK(strstr(text_string(&out), "qwen3:32b"));
    text_release(&out);
}

TEST(more_rows_than_lines_are_counted)
{
    json_t *value = read(load), *users = json_array();
    struct top_view view = { .load = value, .server = "x", .width = 80, .height = 24 };
    struct text out;

    for (int i = 0; i < 500; i++)
        json_array_append_new(users, json_pack("{s:s, s:i}", "user", "somebody", "requests", i));
    json_object_set_new(value, "users", users);
    text_init(&out, 1 << 20);
    top_add_frame(&view, &out);
    measure(&out, 80, 24);
    CHECK(strstr(text_string(&out), " more\n"));
    text_release(&out);
    json_decref(value);
}

TEST(a_strange_answer_is_shown_as_far_as_it_goes)
{
    static const char *const strange[] = {
        "{}",
        "{'gateways':{},'models':7,'users':null}",
        "{'gateways':[{}],'models':[{'model':7,'first_token_ms':[]}],'users':['x']}",
        "{'gateways':[{'name':'a','running':-5,'waiting':1e300,'heard_ms_ago':'x','backends':[null,{}]}],'models':[]}",
    };

    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        struct text out;

        frame(80, 24, strange[i], NULL, &out);
        measure(&out, 80, 24);
        text_release(&out);
    }
}
