/* top: looks again and again, and shows it. One question at a time is on its way; keys and signals interrupt it. */
#include <errno.h>
#include <unistd.h>

#include "clock.h"
#include "cmd.h"
#include "screen.h"
#include "top.h"

#define SECOND INT64_C(1000)

enum { ONCE_WIDTH = 120, ONCE_HEIGHT = 60, FRAME_BYTES = 1 << 20, WHY_BYTES = 1 << 14 };

struct watching {
    struct session *session;
    struct top_view view;
    json_t *load, *status;
    struct text why; /* why there is nothing newer */
    int64_t seen_ms, due_ms, interval_ms;
    bool is_over;
    enum ending ending;
};

static void draw(struct watching *watching)
{
    struct text frame;

    watching->view.load = watching->load;
    watching->view.status = watching->status;
    watching->view.why = watching->why.len ? text_string(&watching->why) : NULL;
    watching->view.age_ms = watching->seen_ms ? clock_ms() - watching->seen_ms : 0;
    watching->view.wall_ms = clock_wall_ms();
    screen_size(&watching->view.width, &watching->view.height);
    text_init(&frame, FRAME_BYTES);
    top_add_frame(&watching->view, &frame);
    screen_show(text_slice(&frame));
    text_release(&frame);
}

static void take_news(struct watching *watching, unsigned news)
{
    if (news & SCREEN_ENDS)
        watching->is_over = true;
    for (char key; (key = screen_key());) {
        if (key == 'q' || key == 'Q')
            watching->is_over = true;
        else if (key == ' ')
            watching->due_ms = 0;
    }
    if (!watching->is_over && news & SCREEN_RESIZED)
        draw(watching);
}

/* ERR_AGAIN: keys or signals came first, and have been taken; the question is to be asked anew. */
static enum err ask(struct watching *watching, const char *path, json_t **into)
{
    struct answer answer;
    struct text why;
    enum err err;

    text_init(&why, WHY_BYTES);
    do {
        text_clear(&why);
        err = remote_ask(watching->session->remote, &(struct ask){ .method = "GET", .path = path }, &answer, &why);
        if (err == ERR_AGAIN) {
            answer_release(&answer);
            take_news(watching, screen_news(0));
        }
    } while (err == ERR_AGAIN && !watching->is_over);
    if (err == ERR_OK) {
        json_decref(*into);
        *into = json_incref(answer.body);
    } else if (err != ERR_AGAIN) {
        text_clear(&watching->why);
        text_add_slice(&watching->why, text_slice(&why));
        watching->ending = err == ERR_GONE ? END_UNREACHABLE : END_REFUSED;
    }
    if (err != ERR_AGAIN)
        answer_release(&answer);
    text_release(&why);
    return err;
}

static enum err look(struct watching *watching)
{
    enum err err = ask(watching, "/admin/v1/load", &watching->load);

    if (err == ERR_OK)
        err = ask(watching, "/admin/v1/status", &watching->status);
    if (err == ERR_OK) {
        watching->seen_ms = clock_ms();
        watching->ending = END_DONE;
        text_clear(&watching->why);
    }
    return err;
}

static void watch(struct watching *watching)
{
    draw(watching);
    while (!watching->is_over) {
        int64_t now_ms = clock_ms();

        if (now_ms >= watching->due_ms) {
            watching->due_ms = now_ms + watching->interval_ms;
            (void)look(watching);
            if (!watching->is_over)
                draw(watching);
        } else {
            take_news(watching, screen_news(watching->due_ms - now_ms));
        }
    }
}

static enum ending show_once(struct watching *watching)
{
    struct output *output = &watching->session->output;
    unsigned height;
    struct text frame;
    enum err err;

    if (look(watching) != ERR_OK) {
        complain("%s", text_string(&watching->why));
        return watching->ending;
    }
    if (output->format != OUTPUT_TABLE) {
        const struct column columns[] = {
            { NULL, "window_s", CELL_NUMBER, 0, NULL },
            { NULL, "gateways", CELL_TEXT, 0, NULL },
            { NULL, "models", CELL_TEXT, 0, NULL },
            { NULL, "users", CELL_TEXT, 0, NULL },
        };

        return output_object(output, columns, sizeof columns / sizeof *columns, watching->load) == ERR_OK ? END_DONE
                                                                                                          : END_REFUSED;
    }
    watching->view.load = watching->load;
    watching->view.status = watching->status;
    watching->view.wall_ms = clock_wall_ms();
    if (!terminal_size(STDOUT_FILENO, &watching->view.width, &height))
        watching->view.width = ONCE_WIDTH;
    watching->view.height = ONCE_HEIGHT;
    text_init(&frame, FRAME_BYTES);
    top_add_frame(&watching->view, &frame);
    err = output_write(output, text_slice(&frame));
    text_release(&frame);
    return err == ERR_OK ? END_DONE : END_REFUSED;
}

enum ending top(struct session *session)
{
    struct watching watching = {
        .session = session,
        .view = { .server = session->config.server, .has_colour = session->output.has_colour },
        .interval_ms = call_span_ms(&session->call, "interval"),
    };
    struct text why;

    text_init(&watching.why, WHY_BYTES);
    text_init(&why, WHY_BYTES);
    if (watching.interval_ms < SECOND || watching.interval_ms > 3600 * SECOND) {
        complain("--interval must be 1s to 1h");
        watching.ending = END_USAGE;
    } else if (call_says_yes(&session->call, "once")) {
        watching.ending = show_once(&watching);
    } else if (screen_open(&why) != ERR_OK) {
        complain("%s", text_string(&why));
        watching.ending = END_USAGE;
    } else {
        watching.view.is_live = true;
        remote_wait_with(session->remote, &(struct remote_waiting){ .fd = screen_fd() });
        watch(&watching);
        screen_close();
        if (watching.why.len)
            complain("%s", text_string(&watching.why));
    }
    json_decref(watching.load);
    json_decref(watching.status);
    text_release(&watching.why);
    text_release(&why);
    screen_die();
    return watching.ending;
}
