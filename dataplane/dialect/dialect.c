#include "dialect.h"

#include "chat.h"
#include "digest.h"

#include <assert.h>

const struct dialect dialect_chat = {
    .name = "chat",
    .read = chat_read,
    .stream_type = "text/event-stream",
    .stream_event = chat_stream_event,
    .stream_finish = chat_stream_finish,
    .stream_error = chat_stream_error,
    .stream_heartbeat = chat_stream_heartbeat,
    .whole = chat_whole,
};

void answer_init(struct answer *answer, const struct dialect *dialect, const struct inference *inference,
                 struct slice request_id, int64_t created_s)
{
    static const char prefix[] = "chatcmpl-";
    enum { PREFIX = sizeof prefix - 1, LETTERS = 22 }; /* 26^22 is more than 2^103 */

    static_assert(PREFIX + LETTERS < sizeof answer->id);
    *answer = (struct answer){
        .dialect = dialect,
        .model = inference->model,
        .request_id = request_id,
        .created_s = created_s,
        .is_stream = inference->is_stream,
        .wants_usage = inference->wants_usage,
    };
    memcpy(answer->id, prefix, PREFIX);
    random_letters(answer->id + PREFIX, LETTERS);
}
