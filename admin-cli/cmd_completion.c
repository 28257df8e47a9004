/* completion: what teaches a shell to complete our commands. */
#include "cmd.h"

enum ending completion(struct session *session)
{
    struct text out;
    enum err err;

    text_init(&out, 1 << 20);
    if (strcmp(session->call.argument, "bash") == 0)
        completion_add_bash(&out);
    else
        completion_add_zsh(&out);
    err = output_write(&session->output, text_slice(&out));
    text_release(&out);
    return err == ERR_OK ? END_DONE : END_REFUSED;
}
