/* {"models":[{"model":"…","name":"…"},…]}: how Ollama lists the models that it has, and those that are loaded. */
#include "backend_parts.h"
#include "clock.h"
#include "json.h"
#include "model_name.h"
#include "snapshot.h"

enum { MAX_TEXT_BYTES = 4096 }; /* of a string in the list; a model whose name is longer is left out */

struct texts {
    struct text model, name, time;
};

/* The next value if it is a string; whatever else it is, it is passed over. */
static void read_text(struct json_reader *reader, struct text *out)
{
    struct json_string string;

    text_clear(out);
    if (json_peek(reader) != JSON_STRING)
        (void)json_skip(reader, NULL);
    else if (json_string(reader, &string))
        json_string_decode(&string, out);
}

static void read_entry(struct json_reader *reader, const struct listed_story *story, void *arg, struct texts *texts)
{
    struct json_string key;

    (void)json_object(reader, NULL);
    while (json_member(reader, NULL, &key)) {
        if (json_string_is(&key, "model"))
            read_text(reader, &texts->model);
        else if (json_string_is(&key, "name"))
            read_text(reader, &texts->name);
        else if (json_string_is(&key, story->time))
            read_text(reader, &texts->time);
        else if (!story->member(arg, &key, reader))
            (void)json_skip(reader, NULL);
    }
}

/* False: no memory. */
static bool tell_entry(const struct listed_story *story, void *arg, const struct texts *texts)
{
    const struct text *shown = texts->model.len ? &texts->model : &texts->name;
    struct listed listed = { .shown = text_string(shown) };
    struct text name;
    bool is_good;

    text_init(&name, 512);
    if (model_name_normalise(text_slice(shown), &name))
        listed.name = text_string(&name);
    listed.time_s = clock_parse_rfc3339(text_string(&texts->time), texts->time.len);
    is_good = story->entry(arg, &listed) && name.err != ERR_NO_MEMORY;
    text_release(&name);
    return is_good;
}

/* False: no memory. A list that lacks a model for that reason is worse than the last one. */
static bool take_entry(struct json_reader *reader, const struct listed_story *story, void *arg)
{
    struct texts texts;
    bool is_good;

    text_init(&texts.model, MAX_TEXT_BYTES);
    text_init(&texts.name, MAX_TEXT_BYTES);
    text_init(&texts.time, MAX_TEXT_BYTES);
    if (json_peek(reader) == JSON_OBJECT)
        read_entry(reader, story, arg, &texts);
    else
        (void)json_skip(reader, NULL);
    is_good = texts.model.err != ERR_NO_MEMORY && texts.name.err != ERR_NO_MEMORY && texts.time.err != ERR_NO_MEMORY &&
              tell_entry(story, arg, &texts);
    text_release(&texts.model);
    text_release(&texts.name);
    text_release(&texts.time);
    return is_good;
}

static bool read_models(struct json_reader *reader, const struct listed_story *story, void *arg)
{
    if (!json_array(reader))
        return false;
    while (json_element(reader))
        if (!take_entry(reader, story, arg))
            return false;
    return true;
}

bool listed_read(struct slice body, const struct listed_story *story, void *arg)
{
    struct json_reader reader;
    struct json_string key;
    bool is_good, has_list = false;

    json_open(&reader, body, JSON_MAX_DEPTH);
    is_good = json_object(&reader, NULL);
    while (is_good && json_member(&reader, NULL, &key)) {
        if (!has_list && json_string_is(&key, "models"))
            has_list = is_good = read_models(&reader, story, arg);
        else
            (void)json_skip(&reader, NULL);
    }
    return is_good && has_list && json_close(&reader);
}
