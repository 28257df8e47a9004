/* qwadm: the command line, what it goes by, and the command. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd.h"

#define ACTION(id) [COMMAND_##id] = id,
static enum ending (*const actions[COMMAND_COUNT])(struct session *) = { COMMANDS(ACTION) };
#undef ACTION

enum { WHY_BYTES = 1 << 14, PAGE_BYTES = 1 << 20 };

static int print(const struct text *out)
{
    struct output output;

    output_open(&output, OUTPUT_TABLE, COLOUR_NEVER, false);
    return output_write(&output, text_slice(out)) == ERR_OK ? END_DONE : END_REFUSED;
}

static void add_setting(void *arg, const char *title, const char *help)
{
    page_add_setting(arg, title, help);
}

static void add_page(struct text *out)
{
    page_add(out);
    page_add_title(
        out, "SETTINGS",
        "Of each setting the first that says it holds: a flag; QWADM_ and its name in upper case in the environment; "
        "~/.config/qwadm.yaml (under XDG_CONFIG_HOME, if that is set); /etc/qwadm.yaml.");
    config_describe(add_setting, out);
    page_add_end(out);
}

/* What is asked of the program itself. False: something else is. */
static bool is_about_itself(const struct call *call, int *ret_status)
{
    struct text out;

    if (!call->wants_version && !call->wants_man_page && !call->wants_help)
        return false;
    text_init(&out, PAGE_BYTES);
    if (call->wants_version)
        text_add_literal(&out, "qwadm " QG_VERSION "\n");
    else if (call->wants_man_page)
        add_page(&out);
    else if (call->id < COMMAND_COUNT)
        help_add_command(&commands[call->id], &out);
    else if (call->help_noun)
        help_add_noun(call->help_noun, &out);
    else
        help_add_program(&out);
    *ret_status = print(&out);
    text_release(&out);
    return true;
}

static enum ending open_remote(struct session *session, struct text *why)
{
    struct config *config = &session->config;
    struct remote_options options = {
        .server = config->server,
        .ca_file = config->ca_file,
        .program = "qwadm/" QG_VERSION,
        .timeout_ms = config->timeout_ms,
        .connect_timeout_ms = config->connect_timeout_ms,
        .retries = config->retries,
        .max_answer_bytes = config->max_answer_bytes,
        .allow_plain_http = config->allow_plain_http,
    };

    if (config_read_token(config, why) != ERR_OK)
        return END_USAGE;
    options.token = config->token;
    session->remote = remote_open(&options, why);
    return session->remote ? END_DONE : END_USAGE;
}

static enum ending run(struct session *session, struct text *why)
{
    const struct call *call = &session->call;
    const struct config_flag flags[] = {
        { "server", "--server", call_text(call, "server") },
        { "token_file", "--token-file", call_text(call, "token-file") },
        { "ca_file", "--ca-file", call_text(call, "ca-file") },
        { "timeout", "--timeout", call_text(call, "timeout") },
        { "output", "--output", call_text(call, "output") },
        { "color", "--color", call_text(call, "color") },
        { 0 },
    };
    enum ending ending = END_DONE;

    if (config_load(&session->config, call_text(call, "config"), call->id == COMMAND_login, flags, why) != ERR_OK)
        return END_USAGE;
    output_open(&session->output, (enum output_format)session->config.output, (enum output_colour)session->config.color,
                call_says_yes(call, "quiet"));
    if (call->id != COMMAND_login && call->id != COMMAND_completion)
        ending = open_remote(session, why);
    return ending == END_DONE ? actions[call->id](session) : ending;
}

int main(int argc, char **argv)
{
    static struct session session;
    struct text why;
    int status;

    text_init(&why, WHY_BYTES);
    if (call_parse(&session.call, argc, argv, &why) != ERR_OK) {
        complain("%s", text_string(&why));
        status = END_USAGE;
    } else if (!is_about_itself(&session.call, &status)) {
        status = (int)run(&session, &why);
        if (why.len)
            complain("%s", text_string(&why));
        remote_close(session.remote);
        config_release(&session.config);
    }
    text_release(&why);
    return status;
}
