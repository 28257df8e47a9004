/*
 * An update is taken whole or not at all: its keys are gathered in the locksmith's batch, the rest in a copy of the
 * others, over which a snapshot is made by the tables that read the file. When both are good, and what the gateway
 * needs beside them is there, the batch is committed and all workers are told.
 *
 * But for one thing: what cannot be taken must not keep a key alive. The keys that such an update removes are shut out
 * all the same, at the version that is here; when what was wrong with the rest is mended, all of it comes once more.
 */
#include <stdlib.h>

#include "clock.h"
#include "conf.h"
#include "control_parts.h"
#include "log.h"
#include "model_name.h"

struct batch {
    struct control *control;
    struct others *others;
    bool has_others; /* some of them are touched */
    struct digest *cuts;
    size_t cut_count;
};

static enum err no_memory(struct text *why)
{
    text_add_literal(why, "there is no memory for what the control plane says");
    return ERR_NO_MEMORY;
}

/* ---- keys ---- */

/* Normalised, each with its NUL, in the arena. */
static enum err models_of(const struct qw_names *names, struct arena *arena, struct key_rule *rule, struct text *why)
{
    const char **models = arena_take(arena, (names->count + 1) * sizeof *models);
    char memory[2 * CODEC_MAX_NAME];

    if (!models)
        return no_memory(why);
    for (size_t i = 0; i < names->count; i++) {
        struct text name = text_over(memory, sizeof memory);
        if (!model_name_normalise(names->names[i], &name)) {
            text_printf(why, "the key %s may use ", rule->name);
            conf_add_quoted(why, names->names[i]);
            text_add_literal(why, ", which is not the name of a model");
            return ERR_BAD;
        }
        models[i] = conf_keep(arena, text_slice(&name));
        if (!models[i])
            return no_memory(why);
    }
    rule->models = models;
    rule->model_count = names->count;
    return ERR_OK;
}

static enum err allow_of(const struct qw_names *names, struct key_rule *rule, struct text *why)
{
    rule->has_allow = true;
    for (size_t i = 0; i < names->count; i++) {
        struct cidr cidr;
        char memory[MAX_SENTENCE];
        struct text what = text_over(memory, sizeof memory);
        if (cidr_parse(names->names[i], &cidr, &what) != ERR_OK) {
            text_printf(why, "the key %s has a range in allow that is wrong: %s", rule->name, text_string(&what));
            return ERR_BAD;
        }
        if (cidr_list_add(&rule->allow, cidr) != ERR_OK)
            return no_memory(why);
    }
    return ERR_OK;
}

static enum err key_put(struct batch *batch, const struct qw_key *key, struct arena *arena, struct text *why)
{
    struct key_rule rule = {
        .name = conf_keep(arena, key->name),
        .user = conf_keep(arena, key->user),
        .team = key->team.len ? conf_keep(arena, key->team) : NULL,
        .delegates = key->delegates,
        .class = key->class == QW_BATCH ? KEY_BATCH : KEY_INTERACTIVE,
        .expires_s = key->expires_s > INT64_MAX ? INT64_MAX : (int64_t)key->expires_s,
        .weight = key->weight ? key->weight : 1,
        .max_requests = key->rpm,
        .max_concurrent = key->max_concurrent,
    };
    enum err err = ERR_OK;

    if (!rule.name || !rule.user || (key->team.len && !rule.team))
        return no_memory(why);
    memcpy(rule.hash.bytes, key->hash.at, sizeof rule.hash.bytes);
    memcpy(rule.id, key->id.at, sizeof rule.id);
    if (key->models)
        err = models_of(key->models, arena, &rule, why);
    if (err == ERR_OK && key->allow)
        err = allow_of(key->allow, &rule, why);
    if (err == ERR_OK)
        err = locksmith_put(batch->control->smith, &rule, why);
    cidr_list_release(&rule.allow);
    return err;
}

static struct digest hash_in(const struct qw_removed *removed)
{
    struct digest hash;

    memcpy(hash.bytes, removed->hash.at, sizeof hash.bytes);
    return hash;
}

static enum err key_cut(struct batch *batch, const struct digest *hash, struct text *why)
{
    struct digest *more = realloc(batch->cuts, (batch->cut_count + 1) * sizeof *more);

    if (!more)
        return no_memory(why);
    batch->cuts = more;
    batch->cuts[batch->cut_count++] = *hash;
    return ERR_OK;
}

static enum err key_remove(struct batch *batch, const struct qw_removed *removed, struct text *why)
{
    struct digest hash = hash_in(removed);
    enum err err = removed->cuts ? key_cut(batch, &hash, why) : ERR_OK;

    return err == ERR_OK ? locksmith_remove(batch->control->smith, &hash, why) : err;
}

/* ---- gathering ---- */

static bool is_key_removal(const struct qw_change *change)
{
    return change->what == QW_CHANGE_REMOVED && change->removed.noun == QW_KEY;
}

static enum err take_one(struct batch *batch, const struct qw_change *change, struct arena *arena, struct text *why)
{
    if (change->what == QW_KEY)
        return key_put(batch, &change->key, arena, why);
    if (is_key_removal(change))
        return key_remove(batch, &change->removed, why);
    batch->has_others = true;
    if (change->what == QW_CHANGE_REMOVED) {
        others_remove(batch->others, change->removed.noun, change->removed.name);
        return ERR_OK;
    }
    return others_put(batch->others, change, why);
}

/* Of a change that is about a key; else NULL. */
static const char *hash_of(const struct qw_change *change)
{
    if (change->what == QW_KEY)
        return change->key.hash.at;
    return is_key_removal(change) ? change->removed.hash.at : NULL;
}

/* Which of them are followed by another one about the same key. NULL: no memory. */
static bool *find_followed(const struct qw_change *changes, size_t count, struct arena *arena)
{
    size_t room = 64, at;
    const char **seen;
    bool *followed = arena_take(arena, count + 1);

    while (room < 2 * count)
        room *= 2;
    seen = arena_take(arena, room * sizeof *seen);
    for (size_t i = count; seen && followed && i-- > 0;) {
        const char *hash = hash_of(&changes[i]);
        if (!hash)
            continue;
        memcpy(&at, hash, sizeof at);
        for (at &= room - 1; seen[at] && memcmp(seen[at], hash, CODEC_HASH_BYTES) != 0;)
            at = (at + 1) & (room - 1);
        followed[i] = seen[at];
        seen[at] = hash;
    }
    return seen ? followed : NULL;
}

/*
 * What was wrong with a key and was put right later is not wrong any more; but a removal that cuts counts also where
 * the key came back, since requests are to end.
 */
static enum err take_all(struct batch *batch, struct slice bytes, struct text *why)
{
    const struct qw_change *changes;
    struct arena arena, words;
    bool *followed = NULL;
    size_t count = 0;
    enum err err;

    arena_init(&arena);
    err = changes_unpack(bytes, &arena, &changes, &count, why);
    if (err == ERR_OK && !(followed = find_followed(changes, count, &arena)))
        err = no_memory(why);
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        if (followed[i] && !(is_key_removal(&changes[i]) && changes[i].removed.cuts))
            continue;
        arena_init(&words);
        err = take_one(batch, &changes[i], &words, why);
        arena_release(&words);
    }
    arena_release(&arena);
    return err;
}

/* ---- taking over ---- */

struct snapshot *overlay(struct snapshot *file, const struct others *others, uint64_t version, struct text *why,
                         struct text *warnings)
{
    struct snapshot *snapshot = NULL;
    struct conf *tree;
    char name[64];
    struct text text = text_over(name, sizeof name);

    text_printf(&text, "version %llu of the control plane", (unsigned long long)version);
    tree = others_tree(others, name, why);
    if (tree)
        snapshot = snapshot_over(file, tree, why, warnings);
    conf_free(tree);
    if (!snapshot && !why->len)
        (void)no_memory(why);
    return snapshot;
}

void warn_lines(const struct text *lines)
{
    struct slice rest = text_slice(lines);

    while (rest.len) {
        const char *end = memchr(rest.at, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.at) : rest.len;
        if (len)
            log_warn("%.*s", (int)len, rest.at);
        rest = (struct slice){ rest.at + len + (end != NULL), rest.len - len - (end != NULL) };
    }
}

/* Those of turns that no worker has confirmed yet stay. False: no memory. */
static bool owe_cuts(struct control *control, const struct batch *batch)
{
    struct digest *all;

    if (!batch->cut_count)
        return true;
    all = realloc(control->cuts, (control->cut_count + batch->cut_count) * sizeof *all);
    if (!all)
        return false;
    memcpy(all + control->cut_count, batch->cuts, batch->cut_count * sizeof *all);
    control->cuts = all;
    control->cut_count += batch->cut_count;
    return true;
}

static void take_ring(struct control *control)
{
    (void)keyring_unref(control->ring);
    control->ring = locksmith_ring(control->smith);
}

static void next_turn(struct control *control)
{
    control->turn++;
    control->adopted_ms = clock_ms();
    (void)control_look_at_age(control, control->adopted_ms); /* the first version ends a refusal */
    control_tell(control);
}

/* Everything is in the batch. Its others become ours; nothing of it is left when it could not be. */
static enum err take_over(struct batch *batch, uint64_t to, bool is_quiet, struct text *why)
{
    struct control *control = batch->control;
    struct snapshot *fresh = NULL;
    enum err err = ERR_OK;
    struct text warnings;

    text_init(&warnings, 64 << 10);
    if (batch->has_others) {
        fresh = overlay(control->file, batch->others, to, why, &warnings);
        err = fresh ? ERR_OK : ERR_BAD;
    }
    if (err == ERR_OK && !owe_cuts(control, batch))
        err = no_memory(why);
    if (err == ERR_OK && fresh && !is_quiet && !control->options.prepare(control->options.arg, fresh))
        err = no_memory(why);
    if (err == ERR_OK)
        err = locksmith_commit(control->smith, why);
    if (err == ERR_OK) {
        if (fresh) {
            (void)snapshot_unref(control->snapshot);
            control->snapshot = snapshot_ref(fresh);
            others_release(&control->others);
            control->others = *batch->others;
            *batch->others = (struct others){ 0 };
            warn_lines(&warnings);
        }
        take_ring(control);
        control->held = to;
    }
    (void)snapshot_unref(fresh);
    text_release(&warnings);
    if (err == ERR_OK && !is_quiet)
        next_turn(control);
    return err;
}

/* ---- what cannot be taken ---- */

/* The batch gets those that are in the ring and do not come back; `packed` as well, for the journal. */
static enum err gather_removals(struct batch *batch, struct slice bytes, struct text *packed, struct text *why)
{
    const struct qw_change *changes;
    struct arena arena;
    bool *followed = NULL;
    size_t count = 0;
    enum err err;

    arena_init(&arena);
    err = changes_unpack(bytes, &arena, &changes, &count, why);
    if (err == ERR_OK && !(followed = find_followed(changes, count, &arena)))
        err = no_memory(why);
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        struct digest hash;
        if (!is_key_removal(&changes[i]))
            continue;
        hash = hash_in(&changes[i].removed);
        if (changes[i].removed.cuts)
            err = key_cut(batch, &hash, why);
        if (err != ERR_OK || followed[i] || !keyring_find(batch->control->ring, &hash))
            continue;
        err = locksmith_remove(batch->control->smith, &hash, why);
        if (err == ERR_OK)
            err = change_pack(&changes[i], packed, why);
    }
    arena_release(&arena);
    return err;
}

/*
 * The keys that these changes remove, out of the ring. Nothing else of them counts, and the version stays: they come
 * again, and to remove what is gone is no error. A ring without some of its version's keys may lie on the disk.
 */
static void shut_out(struct control *control, struct slice changes, bool is_quiet)
{
    struct batch batch = { .control = control };
    struct text packed, why;
    enum err err;

    text_init(&packed, SIZE_MAX / 4);
    text_init(&why, MAX_SENTENCE);
    if (!control->ring) /* at a start */
        take_ring(control);
    locksmith_begin_removals(control->smith);
    err = gather_removals(&batch, changes, &packed, &why);
    if (err == ERR_OK && !is_quiet && !owe_cuts(control, &batch))
        err = no_memory(&why);
    if (err == ERR_OK && packed.len)
        err = locksmith_commit(control->smith, &why);
    else
        locksmith_abandon(control->smith);
    if (err == ERR_OK && packed.len) {
        take_ring(control);
        if (!is_quiet)
            disk_note(control, text_slice(&packed), control->held, control->held);
    }
    if (err != ERR_OK) /* it is tried again with the whole */
        log_error("keys that are revoked could not be shut out: %s", text_string(&why));
    else if (!is_quiet && (packed.len || batch.cut_count))
        next_turn(control);
    free(batch.cuts);
    text_release(&packed);
    text_release(&why);
}

/* The same of a snapshot all of which is in the batch: whom it does not know is out. */
static void shut_out_others(struct control *control)
{
    struct text why;
    size_t count;

    text_init(&why, MAX_SENTENCE);
    if (locksmith_commit_removals(control->smith, &count, &why) != ERR_OK) {
        log_error("keys that are revoked could not be shut out: %s", text_string(&why));
    } else if (count) {
        take_ring(control);
        disk_note_ring(control);
        next_turn(control);
    }
    text_release(&why);
}

/* ---- changes ---- */

static enum err apply(struct control *control, struct slice changes, uint64_t to, bool is_quiet, struct text *why)
{
    struct others others;
    struct batch batch = { .control = control, .others = &others };
    enum err err = others_copy(&control->others, &others);

    if (err != ERR_OK)
        return no_memory(why);
    err = locksmith_begin(control->smith, control->held, to, why);
    if (err == ERR_OK) {
        err = take_all(&batch, changes, why);
        if (err == ERR_OK)
            err = take_over(&batch, to, is_quiet, why);
        if (err != ERR_OK)
            shut_out(control, changes, is_quiet);
    }
    free(batch.cuts);
    others_release(&others);
    return err;
}

enum err apply_quietly(struct control *control, struct slice changes, uint64_t to, struct text *why)
{
    if (to == control->held) { /* removals of what could not be taken */
        shut_out(control, changes, true);
        return ERR_OK;
    }
    return apply(control, changes, to, true, why);
}

enum err apply_changes(struct control *control, const struct qw_update *update, struct text *why)
{
    uint64_t from = control->held;
    enum err err;

    fetch_end(control);
    if (update->from != from) {
        text_printf(why, "the control plane sent changes from version %llu to %llu, but version %llu is what is here",
                    (unsigned long long)update->from, (unsigned long long)update->to, (unsigned long long)from);
        return ERR_REFUSED;
    }
    err = apply(control, update->changes, update->to, false, why);
    if (err == ERR_OK)
        disk_note(control, update->changes, from, update->to);
    return err;
}

/* ---- a snapshot, piece by piece ---- */

void fetch_end(struct control *control)
{
    if (!control->fetch.is_open)
        return;
    locksmith_abandon(control->smith);
    others_release(&control->fetch.others);
    control->fetch = (struct fetch){ 0 };
}

static void fetch_begin(struct control *control, const struct qw_update *update)
{
    fetch_end(control);
    control->fetch = (struct fetch){ .is_open = true, .version = update->to, .count = update->chunk->count };
    digest_begin(&control->fetch.run);
    locksmith_begin_whole(control->smith, update->to);
}

static enum err fetch_finish(struct control *control, struct slice checksum, struct text *why)
{
    struct fetch *fetch = &control->fetch;
    struct batch batch = { .control = control, .others = &fetch->others, .has_others = true };
    struct digest sum;
    bool is_other;
    enum err err;

    digest_end(&fetch->run, &sum);
    if (checksum.len && memcmp(checksum.at, sum.bytes, sizeof sum.bytes) != 0) {
        text_printf(why, "the pieces of version %llu do not make what the control plane has", //
                    (unsigned long long)fetch->version);
        return ERR_BAD;
    }
    is_other = control->wants_resync || fetch->version < control->held;
    control->switched = 0; /* it may be another content of the same version */
    err = take_over(&batch, fetch->version, false, why);
    if (err == ERR_BAD)
        shut_out_others(control);
    if (err != ERR_OK)
        return err;
    others_release(&fetch->others);
    control->fetch = (struct fetch){ 0 }; /* the batch is committed */
    control->wants_resync = false;
    disk_note_whole(control, is_other);
    return ERR_OK;
}

enum err apply_piece(struct control *control, const struct qw_update *update, struct text *why)
{
    struct fetch *fetch = &control->fetch;
    struct batch batch = { .control = control, .others = &fetch->others };
    enum err err;

    if (update->chunk->index == 0)
        fetch_begin(control, update);
    if (!fetch->is_open || fetch->version != update->to || fetch->next != update->chunk->index ||
        fetch->count != update->chunk->count) {
        fetch_end(control); /* its snapshot is another one by now: from the first piece on */
        return ERR_AGAIN;
    }
    digest_add(&fetch->run, update->changes);
    err = take_all(&batch, update->changes, why);
    free(batch.cuts);
    fetch->next++;
    if (err == ERR_OK && fetch->next == fetch->count)
        err = fetch_finish(control, update->checksum, why);
    if (err != ERR_OK)
        fetch_end(control);
    return err;
}
