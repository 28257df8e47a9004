/*
 * parts - what the files of this room share. Not a door: others include snapshot.h.
 *
 * load.c      the story: file, table, checks, index
 * settings.c  the one table of settings
 * endpoint.c  places: listen addresses, URLs, ranges
 * backends.c  backends, ollama_api
 * keys.c      valid_keys, and the ring of them;  hash.c  --hash-key
 * models.c    models
 * control.c   control;  over.c  what the control plane says over the file
 * print.c     everything shown to people
 */
#pragma once
#include "arena.h"
#include "conf.h"
#include "keyring.h"
#include "model_name.h"
#include "secret.h"
#include "snapshot.h"

enum { NAME_MAX_BYTES = KEY_NAME_MAX_BYTES, SETTINGS_MAX = 80 };

struct snapshot_memory {
    struct arena arena; /* everything that the snapshot points to but the address lists */
    const char *file;
    unsigned setting_lines[SETTINGS_MAX];              /* one a row of the table; 0: the default */
    unsigned *key_lines, *model_lines, *backend_lines; /* beside snapshot->keys, ->models and ->backends */
    bool has_clear_keys;                               /* a key stands in the file in clear */
    bool says_whitelist;                               /* the file has whitelist.enabled */
    struct snapshot *base; /* the file's own, counted, whose arena and lists this one uses as well; NULL: none */
};

extern const struct conf_table settings_table; /* fills a struct snapshot */
extern const struct conf_table key_table;      /* fills a struct key_entry */
extern const struct conf_table model_table;    /* fills a struct model */
extern const struct conf_table backend_table;  /* fills a struct backend_rule */

/* One map of valid_keys while it is read. */
struct key_entry {
    struct key_rule key;
    const char *public_id; /* of a qk_ key */
    unsigned source_count; /* of key, key_sha256 and key_file: how many were given */
    bool is_clear;         /* the secret itself stands in the file */
    struct snapshot *snapshot;
    struct text *warnings; /* may be NULL */
};

/* The struct around a field, for printers that need more than the field. */
#define HOLDER(type, member, field) ((const type *)(const void *)((const char *)(field)-offsetof(type, member)))

/* Readers of rows, and their printers. */
enum err endpoint_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err ollama_api_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err url_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field); /* a rule's */
enum err backends_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err cidrs_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err hosts_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err keys_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err models_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err think_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err control_urls_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err path_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err word_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
enum err plain_name_read(struct conf_reading *, const struct conf_row *, const struct conf_node *, void *field);
void control_urls_print(const void *field, struct text *out);
void word_print(const void *field, struct text *out);
void endpoint_print(const void *field, struct text *out);
void ollama_api_print(const void *field, struct text *out);
void backends_print(const void *field, struct text *out);
void cidrs_print(const void *field, struct text *out);
void hosts_print(const void *field, struct text *out);
void keys_print(const void *field, struct text *out);
void models_print(const void *field, struct text *out);

/* What reading->owner points to. */
struct snapshot_reading {
    struct snapshot *snapshot;
    struct text *warnings; /* may be NULL */
};

/* A model's name in a list, normalised, in the arena; refused where it is none, or a cloud's. */
enum err model_name_read(struct conf_reading *reading, const struct conf_node *node, const char **ret_name);
/* "http://HOST:PORT" */
void backend_url_print(const struct backend_rule *rule, struct text *out);
/* A line each for backends that work, but not as anybody means. */
void backends_warn(const struct conf *conf, const struct snapshot *snapshot, struct text *warnings);
/* Why it is no address of a control plane, as words that follow its key; NULL: it is one. */
const char *link_url_wrong(struct slice text);
enum err check_control(const struct conf *conf, const struct snapshot *snapshot, struct text *why);
/* Empty, with one reference; NULL: no memory. */
struct snapshot *snapshot_new(const char *file);
/* " in line 7", where sentences about this tree name lines. */
void add_line_number(const struct conf *conf, unsigned line, struct text *out);
/* Do both stand for one host and port? Without asking a resolver. */
bool backend_is_same_place(const struct backend_rule *one, const struct backend_rule *other);

/* Says that there is no memory, about that node. Returns ERR_NO_MEMORY. */
enum err no_memory(struct conf_reading *reading, const struct conf_node *node);

/* Makes snapshot->keyring of snapshot->keys. ERR_BAD or ERR_NO_MEMORY with a sentence. */
enum err keys_make_ring(const struct conf *conf, struct snapshot *snapshot, struct text *why);
