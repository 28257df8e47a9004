/* login: a token that is good is kept where the next command finds it. */
#include <errno.h>
#include <termios.h>
#include <unistd.h>

#include "cmd.h"

enum { TOKEN_BYTES = 512 };

/* Without showing what is typed. */
static void read_hidden(struct text *out)
{
    struct termios as_it_was, hidden;
    char line[TOKEN_BYTES + 2];
    bool is_terminal = tcgetattr(STDIN_FILENO, &as_it_was) == 0;
    bool has_line;

    if (is_terminal) {
        hidden = as_it_was;
        hidden.c_lflag &= ~(tcflag_t)ECHO;
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
        fputs("admin token: ", stderr);
    }
    has_line = fgets(line, sizeof line, stdin);
    if (is_terminal) {
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &as_it_was);
        fputc('\n', stderr);
    }
    if (has_line)
        text_add(out, line, strcspn(line, "\r\n"));
    explicit_bzero(line, sizeof line);
}

static enum ending find_token(struct session *session, struct text *out)
{
    struct text why;
    struct slice token;
    enum err err = ERR_OK;

    text_init(&why, 1 << 13);
    if (call_has(&session->call, "token-file"))
        err = config_read_secret(call_text(&session->call, "token-file"), out, &why);
    else if (getenv("QWADM_TOKEN") && *getenv("QWADM_TOKEN"))
        text_add_string(out, getenv("QWADM_TOKEN"));
    else
        read_hidden(out);
    token = slice_trim(text_slice(out));
    if (err != ERR_OK)
        complain("%s", text_string(&why));
    else if (!token.len)
        complain("no token was given: type it, pipe it in, or name its file with --token-file");
    text_release(&why);
    return err == ERR_OK && token.len ? END_DONE : END_USAGE;
}

enum ending login(struct session *session)
{
    struct text token, why;
    struct answer answer;
    struct remote_options options = {
        .server = session->config.server,
        .ca_file = session->config.ca_file,
        .program = "qwadm/" QG_VERSION,
        .timeout_ms = session->config.timeout_ms,
        .connect_timeout_ms = session->config.connect_timeout_ms,
        .retries = session->config.retries,
        .max_answer_bytes = session->config.max_answer_bytes,
        .allow_plain_http = session->config.allow_plain_http,
    };
    enum ending ending;

    text_init(&token, TOKEN_BYTES);
    text_init(&why, 1 << 13);
    ending = find_token(session, &token);
    options.token = text_string(&token);
    if (ending == END_DONE) {
        session->remote = remote_open(&options, &why);
        if (!session->remote) {
            complain("%s", text_string(&why));
            ending = END_USAGE;
        }
    }
    if (ending == END_DONE)
        ending = cmd_ask(session, &(struct ask){ .method = "GET", .path = "/admin/v1/whoami" }, &answer);
    if (ending == END_DONE) {
        const char *name = json_string_value(json_object_get(answer.body, "name"));
        const char *role = json_string_value(json_object_get(answer.body, "role"));

        if (!name || !role) {
            complain("%s does not say whose token it is: is it qwen-control?", session->config.server);
            ending = END_UNREACHABLE;
        } else if (config_keep(&session->config, text_string(&token), &why) != ERR_OK) {
            complain("%s", text_string(&why));
            ending = END_REFUSED;
        } else {
            tell(&session->output, "%s knows the token as %s, role %s; it is kept in %s", session->config.server, name,
                 role, session->config.own_file);
        }
        answer_release(&answer);
    }
    remote_close(session->remote); /* its options point to the token */
    session->remote = NULL;
    text_release_wiped(&token);
    text_release(&why);
    return ending;
}
