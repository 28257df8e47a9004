/*
 * One walk over the rows of shapes.c a direction: lift() from protobuf-c's struct to ours, sink() from ours to its.
 * What a row promises is held both ways, so nothing leaves that the other side would refuse.
 */
#include "codec.h"

#include <assert.h>

#include "arena.h"
#include "shapes.h"

/* One message being read or written: where memory comes from, where a complaint goes. */
struct turn {
    struct arena *arena;
    size_t budget; /* bytes that may yet be taken: what one frame may cost, whatever it claims */
    struct text *why;
};

static void *turn_take(struct turn *turn, size_t bytes)
{
    if (bytes > turn->budget)
        return NULL;
    turn->budget -= bytes;
    return arena_take(turn->arena, bytes);
}

static void *take_for_protobuf(void *turn, size_t bytes)
{
    return turn_take(turn, bytes);
}

static void leave_to_the_arena(void *turn, void *at)
{
    (void)turn;
    (void)at;
}

COLD static enum err complain(struct turn *turn, enum err err, const struct shape *shape, unsigned i, const char *what)
{
    text_printf(turn->why, "`%s` of a %s %s", shape->there->fields[i].name, shape->name, what);
    return err;
}

COLD static enum err no_room(struct turn *turn)
{
    text_add_literal(turn->why, "the message takes more memory than it may");
    return ERR_NO_MEMORY;
}

static enum err words_judge(struct turn *turn, const struct shape *shape, unsigned i, struct slice words)
{
    const struct row *row = &shape->rows[i];

    if (words.len > (row->kind == ROW_NAMES ? (uint32_t)CODEC_MAX_NAME : row->max))
        return complain(turn, ERR_BAD, shape, i, "is too long");
    if (words.len && (memchr(words.at, 0, words.len) || !utf8_valid(words)))
        return complain(turn, ERR_BAD, shape, i, "is not text");
    return ERR_OK;
}

static enum err slice_judge(struct turn *turn, const struct shape *shape, unsigned i, struct slice slice)
{
    const struct row *row = &shape->rows[i];

    if (!slice.len)
        return row->must ? complain(turn, ERR_BAD, shape, i, "is missing") : ERR_OK;
    if (row->kind == ROW_WORDS)
        return words_judge(turn, shape, i, slice);
    if (slice.len > row->max)
        return complain(turn, ERR_BAD, shape, i, "is too long");
    if (row->kind == ROW_EXACT && slice.len != row->max)
        return complain(turn, ERR_BAD, shape, i, "is too short");
    return ERR_OK;
}

static enum err number_judge(struct turn *turn, const struct shape *shape, unsigned i, uint64_t number)
{
    const struct row *row = &shape->rows[i];

    if (!number && row->must)
        return complain(turn, ERR_BAD, shape, i, "is missing");
    if (row->kind == ROW_CHOICE && number > row->max)
        return complain(turn, ERR_REFUSED, shape, i, "has a value that this version does not know");
    return ERR_OK;
}

static enum err whole_judge(struct turn *turn, const struct shape *shape, const void *ours)
{
    const char *wrong = shape->judge ? shape->judge(ours) : NULL;

    if (!wrong)
        return ERR_OK;
    text_add_string(turn->why, wrong);
    return ERR_BAD;
}

/* --- from protobuf-c's struct to ours -------------------------------------------------------------------- */

static enum err lift(struct turn *turn, const struct shape *shape, const ProtobufCMessage *theirs, void *ours);

static enum err lift_names(struct turn *turn, const struct shape *shape, unsigned i, const ProtobufCBinaryData *from,
                           size_t count, const struct slice **ret_names)
{
    struct slice *names = turn_take(turn, count * sizeof *names);

    if (!names)
        return no_room(turn);
    for (size_t n = 0; n < count; n++) {
        enum err err;
        names[n] = (struct slice){ (const char *)from[n].data, from[n].len };
        if ((err = words_judge(turn, shape, i, names[n])))
            return err;
    }
    *ret_names = names;
    return ERR_OK;
}

static enum err lift_structs(struct turn *turn, const struct shape *inner, ProtobufCMessage *const *from, size_t count,
                             const void **ret_structs)
{
    char *structs = turn_take(turn, count * inner->bytes);

    if (!structs)
        return no_room(turn);
    for (size_t n = 0; n < count; n++) {
        enum err err = lift(turn, inner, from[n], structs + n * inner->bytes);
        if (err)
            return err;
    }
    *ret_structs = structs;
    return ERR_OK;
}

static enum err lift_list(struct turn *turn, const struct shape *shape, unsigned i, const void *theirs, size_t count,
                          char *ours)
{
    const struct row *row = &shape->rows[i];
    const void **to = (const void **)(void *)(ours + row->at);

    if (count > row->max)
        return complain(turn, ERR_BAD, shape, i, "has too many");
    *(size_t *)(void *)(ours + row->count_at) = count;
    if (!count)
        return ERR_OK;
    if (row->kind == ROW_NAMES)
        return lift_names(turn, shape, i, *(ProtobufCBinaryData *const *)theirs, count, (const struct slice **)to);
    if (row->kind == ROW_LIST)
        return lift_structs(turn, row->inner, *(ProtobufCMessage *const *const *)theirs, count, to);
    *to = *(const void *const *)theirs; /* numbers lie as they are wanted */
    return ERR_OK;
}

static enum err lift_inner(struct turn *turn, const struct shape *shape, unsigned i, const ProtobufCMessage *theirs,
                           char *ours)
{
    const struct row *row = &shape->rows[i];
    void *inner;

    if (!theirs)
        return row->must ? complain(turn, ERR_BAD, shape, i, "is missing") : ERR_OK;
    inner = turn_take(turn, row->inner->bytes);
    if (!inner)
        return no_room(turn);
    *(void **)(void *)(ours + row->at) = inner;
    return lift(turn, row->inner, theirs, inner);
}

static enum err lift_row(struct turn *turn, const struct shape *shape, unsigned i, const char *base, char *ours)
{
    const struct row *row = &shape->rows[i];
    const ProtobufCFieldDescriptor *field = &shape->there->fields[i];
    const void *from = base + field->offset;
    void *to = ours + row->at;

    switch (row->kind) {
    case ROW_FLAG:
        *(bool *)to = *(const protobuf_c_boolean *)from;
        return ERR_OK;
    case ROW_U64:
        *(uint64_t *)to = *(const uint64_t *)from;
        return number_judge(turn, shape, i, *(uint64_t *)to);
    case ROW_U32:
    case ROW_CHOICE:
        *(uint32_t *)to = *(const uint32_t *)from;
        return number_judge(turn, shape, i, *(uint32_t *)to);
    case ROW_WORDS:
    case ROW_BYTES:
    case ROW_EXACT: {
        const ProtobufCBinaryData *bytes = from;
        *(struct slice *)to = (struct slice){ (const char *)bytes->data, bytes->len };
        return slice_judge(turn, shape, i, *(struct slice *)to);
    }
    case ROW_INNER:
        return lift_inner(turn, shape, i, *(ProtobufCMessage *const *)from, ours);
    case ROW_NAMES:
    case ROW_LIST:
    case ROW_U32_LIST:
    case ROW_U64_LIST:
        return lift_list(turn, shape, i, from, *(const size_t *)(const void *)(base + field->quantifier_offset), ours);
    case ROW_CASE:
        if (*(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id)
            return ERR_OK;
        *(uint32_t *)(void *)(ours + shape->what_at) = field->id;
        return lift(turn, row->inner, *(ProtobufCMessage *const *)from, to);
    }
    return ERR_BAD;
}

/* Unknown fields that may not be overlooked. */
static enum err strangers_judge(struct turn *turn, const struct shape *shape, const ProtobufCMessage *theirs)
{
    for (unsigned i = 0; shape->restricts && i < theirs->n_unknown_fields; i++) {
        if (theirs->unknown_fields[i].tag >= HINTS_FROM)
            continue;
        text_printf(turn->why, "field %u of a %s is a restriction that this version does not know",
                    theirs->unknown_fields[i].tag, shape->name);
        return ERR_REFUSED;
    }
    return ERR_OK;
}

static enum err lift(struct turn *turn, const struct shape *shape, const ProtobufCMessage *theirs, void *ours)
{
    enum err err = strangers_judge(turn, shape, theirs);

    for (unsigned i = 0; !err && i < shape->row_count; i++)
        err = lift_row(turn, shape, i, (const char *)theirs, ours);
    if (err)
        return err;
    if (shape->has_what && !shape->may_be_unknown && !*(uint32_t *)(void *)((char *)ours + shape->what_at)) {
        text_printf(turn->why, "a %s of a sort that this version does not know", shape->name);
        return ERR_REFUSED;
    }
    return whole_judge(turn, shape, ours);
}

static enum err shape_unpack(const struct shape *shape, struct slice bytes, struct arena *arena, void *ret_ours,
                             struct text *why)
{
    enum { FIXED_BUDGET = 64 * 1024, BUDGET_A_BYTE = 64 };
    struct turn turn = { .arena = arena, .budget = FIXED_BUDGET + BUDGET_A_BYTE * bytes.len, .why = why };
    ProtobufCAllocator allocator = { take_for_protobuf, leave_to_the_arena, &turn };
    ProtobufCMessage *theirs;

    memset(ret_ours, 0, shape->bytes);
    theirs = protobuf_c_message_unpack(shape->there, &allocator, bytes.len, (const uint8_t *)bytes.at);
    if (!theirs) {
        text_printf(why, "not a %s", shape->name);
        return ERR_BAD;
    }
    return lift(&turn, shape, theirs, ret_ours);
}

/* --- from our struct to protobuf-c's --------------------------------------------------------------------- */

static enum err sink(struct turn *turn, const struct shape *shape, const void *ours, ProtobufCMessage **ret_theirs);

static enum err sink_names(struct turn *turn, const struct shape *shape, unsigned i, const struct slice *names,
                           size_t count, ProtobufCBinaryData **ret_theirs)
{
    ProtobufCBinaryData *theirs = turn_take(turn, count * sizeof *theirs);

    if (!theirs)
        return no_room(turn);
    for (size_t n = 0; n < count; n++) {
        enum err err = words_judge(turn, shape, i, names[n]);
        if (err)
            return err;
        theirs[n] = (ProtobufCBinaryData){ names[n].len, (uint8_t *)(uintptr_t)names[n].at };
    }
    *ret_theirs = theirs;
    return ERR_OK;
}

static enum err sink_structs(struct turn *turn, const struct shape *inner, const char *structs, size_t count,
                             ProtobufCMessage ***ret_theirs)
{
    ProtobufCMessage **theirs = turn_take(turn, count * sizeof *theirs);

    if (!theirs)
        return no_room(turn);
    for (size_t n = 0; n < count; n++) {
        enum err err = sink(turn, inner, structs + n * inner->bytes, &theirs[n]);
        if (err)
            return err;
    }
    *ret_theirs = theirs;
    return ERR_OK;
}

static enum err sink_list(struct turn *turn, const struct shape *shape, unsigned i, const char *ours, void *to,
                          size_t *ret_count)
{
    const struct row *row = &shape->rows[i];
    const void *from = *(const void *const *)(const void *)(ours + row->at);
    size_t count = *(const size_t *)(const void *)(ours + row->count_at);

    if (count > row->max)
        return complain(turn, ERR_BAD, shape, i, "has too many");
    *ret_count = count;
    if (!count)
        return ERR_OK;
    if (row->kind == ROW_NAMES)
        return sink_names(turn, shape, i, from, count, to);
    if (row->kind == ROW_LIST)
        return sink_structs(turn, row->inner, from, count, to);
    *(const void **)to = from;
    return ERR_OK;
}

static enum err sink_row(struct turn *turn, const struct shape *shape, unsigned i, const char *ours, char *base)
{
    const struct row *row = &shape->rows[i];
    const ProtobufCFieldDescriptor *field = &shape->there->fields[i];
    const void *from = ours + row->at;
    void *to = base + field->offset;

    switch (row->kind) {
    case ROW_FLAG:
        *(protobuf_c_boolean *)to = *(const bool *)from;
        return ERR_OK;
    case ROW_U64:
        *(uint64_t *)to = *(const uint64_t *)from;
        return number_judge(turn, shape, i, *(uint64_t *)to);
    case ROW_U32:
    case ROW_CHOICE:
        *(uint32_t *)to = *(const uint32_t *)from;
        return number_judge(turn, shape, i, *(uint32_t *)to);
    case ROW_WORDS:
    case ROW_BYTES:
    case ROW_EXACT: {
        const struct slice *slice = from;
        *(ProtobufCBinaryData *)to = (ProtobufCBinaryData){ slice->len, (uint8_t *)(uintptr_t)slice->at };
        return slice_judge(turn, shape, i, *slice);
    }
    case ROW_INNER:
        from = *(const void *const *)from;
        if (!from)
            return row->must ? complain(turn, ERR_BAD, shape, i, "is missing") : ERR_OK;
        return sink(turn, row->inner, from, to);
    case ROW_NAMES:
    case ROW_LIST:
    case ROW_U32_LIST:
    case ROW_U64_LIST:
        return sink_list(turn, shape, i, ours, to, (size_t *)(void *)(base + field->quantifier_offset));
    case ROW_CASE:
        if (*(const uint32_t *)(const void *)(ours + shape->what_at) != field->id)
            return ERR_OK;
        *(uint32_t *)(void *)(base + field->quantifier_offset) = field->id;
        return sink(turn, row->inner, from, to);
    }
    return ERR_BAD;
}

static enum err sink(struct turn *turn, const struct shape *shape, const void *ours, ProtobufCMessage **ret_theirs)
{
    ProtobufCMessage *theirs = turn_take(turn, shape->there->sizeof_message);
    enum err err = shape->row_count ? whole_judge(turn, shape, ours) : ERR_OK;

    if (!theirs)
        return no_room(turn);
    protobuf_c_message_init(shape->there, theirs);
    assert(shape->row_count == shape->there->n_fields);
    for (unsigned i = 0; !err && i < shape->row_count; i++)
        err = sink_row(turn, shape, i, ours, (char *)theirs);
    *ret_theirs = theirs;
    return err;
}

/* Appends it, after `head` bytes that head_write() fills in when the length is known. */
static enum err shape_pack(const struct shape *shape, const void *ours, struct text *out, struct text *why,
                           void (*head)(struct text *out, size_t len))
{
    struct arena arena;
    struct turn turn = { .arena = &arena, .budget = 64u * CODEC_MAX_BYTES, .why = why };
    ProtobufCMessage *theirs = NULL;
    enum err err;
    size_t len;

    arena_init(&arena);
    err = sink(&turn, shape, ours, &theirs);
    if (!err && (len = protobuf_c_message_get_packed_size(theirs)) > CODEC_MAX_BYTES) {
        text_printf(why, "a %s of %zu bytes is longer than a frame", shape->name, len);
        err = ERR_TOO_LONG;
    } else if (!err) {
        if (head)
            head(out, len);
        if (text_reserve(out, len))
            out->len += protobuf_c_message_pack(theirs, (uint8_t *)out->at + out->len);
        if ((err = out->err))
            text_add_string(why, err_text(err));
        else if (out->at)
            out->at[out->len] = 0;
    }
    arena_release(&arena);
    return err;
}

/* --- frames ---------------------------------------------------------------------------------------------- */

/* A tag or a length of at most 32 bits; false: cut off, or longer than it need be. */
static bool varint_take(struct slice *bytes, uint32_t *ret_number)
{
    uint64_t number = 0;

    for (unsigned i = 0; i < 5 && i < bytes->len; i++) {
        uint8_t byte = (uint8_t)bytes->at[i];
        number |= (uint64_t)(byte & 0x7f) << 7 * i;
        if (byte & 0x80)
            continue;
        if (number > UINT32_MAX || (i && !byte))
            return false;
        *ret_number = (uint32_t)number;
        *bytes = (struct slice){ bytes->at + i + 1, bytes->len - i - 1 };
        return true;
    }
    return false;
}

enum { WIRE_BYTES = 2, WIRE_BITS = 3 };

/* One field that is a message: its tag and its inside. */
static bool inside_take(struct slice *bytes, uint32_t *ret_tag, struct slice *ret_inside)
{
    uint32_t tag, len;

    if (!varint_take(bytes, &tag) || (tag & ((1u << WIRE_BITS) - 1)) != WIRE_BYTES || !(tag >> WIRE_BITS) ||
        !varint_take(bytes, &len) || len > bytes->len)
        return false;
    *ret_tag = tag >> WIRE_BITS;
    *ret_inside = (struct slice){ bytes->at, len };
    *bytes = (struct slice){ bytes->at + len, bytes->len - len };
    return true;
}

static void varint_add(struct text *out, uint64_t number)
{
    for (; number > 0x7f; number >>= 7)
        text_add_char(out, (char)(number | 0x80));
    text_add_char(out, (char)number);
}

enum err message_pack(const struct qw_message *message, struct text *out, struct text *why)
{
    assert(message->what > 0 && message->what < QW_WHATS);
    return shape_pack(&envelope_shape, message, out, why, NULL);
}

enum err message_unpack(struct slice frame, struct arena *arena, struct qw_message *ret_message, struct text *why)
{
    struct slice rest = frame, inside;
    uint32_t tag;

    if (frame.len > CODEC_MAX_BYTES) {
        text_printf(why, "a message of %zu bytes", frame.len);
        return ERR_TOO_LONG;
    }
    if (!inside_take(&rest, &tag, &inside) || rest.len) {
        text_add_literal(why, "not a message");
        return ERR_BAD;
    }
    if (tag >= QW_WHATS) {
        text_printf(why, "a message of sort %u, which this version does not know", tag);
        return ERR_REFUSED;
    }
    return shape_unpack(&envelope_shape, frame, arena, ret_message, why);
}

static void change_head(struct text *out, size_t len)
{
    varint_add(out, 1u << WIRE_BITS | WIRE_BYTES);
    varint_add(out, len);
}

enum err change_pack(const struct qw_change *change, struct text *out, struct text *why)
{
    assert(change->what > 0 && change->what <= QW_CHANGE_REMOVED);
    return shape_pack(&change_shape, change, out, why, change_head);
}

static enum err changes_count(struct slice bytes, size_t *ret_count, struct text *why)
{
    enum { SHORTEST = 4 }; /* a change says what it is, and something about it */
    struct slice inside;
    uint32_t tag;

    *ret_count = 0;
    while (bytes.len) {
        if (!inside_take(&bytes, &tag, &inside) || (tag == 1 && inside.len < SHORTEST)) {
            text_add_literal(why, "not a list of changes");
            return ERR_BAD;
        }
        if (tag != 1) {
            text_printf(why, "changes with a field %u, which this version does not know", tag);
            return ERR_REFUSED;
        }
        ++*ret_count;
    }
    return ERR_OK;
}

enum err changes_unpack(struct slice bytes, struct arena *arena, const struct qw_change **ret_changes,
                        size_t *ret_count, struct text *why)
{
    struct qw_change *changes;
    struct slice inside;
    size_t count;
    uint32_t tag;
    enum err err = changes_count(bytes, &count, why);

    if (err)
        return err;
    changes = arena_take(arena, count * sizeof *changes);
    if (!changes) {
        text_add_string(why, err_text(ERR_NO_MEMORY));
        return ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < count; i++)
        if (!inside_take(&bytes, &tag, &inside) || (err = shape_unpack(&change_shape, inside, arena, &changes[i], why)))
            return err;
    *ret_changes = changes;
    *ret_count = count;
    return ERR_OK;
}

const char *message_name(enum qw_what what)
{
    return (unsigned)what - 1 < QW_WHATS - 1 ? envelope_shape.rows[what - 1].inner->name : "unknown message";
}

const char *reason_name(enum qw_reason reason)
{
    static const char *const names[QW_REASONS] = {
        [QW_HELLO_FIRST] = "hello_first",
        [QW_BAD_MESSAGE] = "bad_message",
        [QW_VERSION] = "version",
        [QW_IDENTITY] = "identity",
        [QW_SECRET] = "secret",
        [QW_REMOVED] = "removed",
        [QW_BUSY] = "busy",
        [QW_NOT_LEADER] = "not_leader",
        [QW_UNSUPPORTED] = "unsupported",
        [QW_UNAVAILABLE] = "unavailable",
    };
    return (unsigned)reason < QW_REASONS && names[reason] ? names[reason] : "not_said";
}

unsigned histogram_step(uint64_t us)
{
    unsigned octave;

    if (us < 8)
        return (unsigned)us;
    octave = 63 - (unsigned)__builtin_clzll(us); /* 3 … 63 */
    return (octave - 2) * 8 + (unsigned)(us >> (octave - 3) & 7);
}

uint64_t histogram_floor_us(unsigned step)
{
    return step < 8 ? step : (uint64_t)(8 + step % 8) << (step / 8 - 1);
}
