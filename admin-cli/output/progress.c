#include <unistd.h>

#include "clock.h"
#include "output.h"

enum { PATIENCE_MS = 1000, BETWEEN_MS = 100, BAR = 30 };

void progress_begin(struct progress *progress, const struct output *output, const char *what, uint64_t total)
{
    *progress = (struct progress){
        .what = what, .total = total, .begun_ms = clock_ms(), .is_on = !output->is_quiet && isatty(STDERR_FILENO)
    };
}

static void draw(struct progress *progress, int64_t now_ms)
{
    unsigned width = 80, height;
    char bar[BAR * 3 + 1] = "";
    struct text line, cut;

    (void)terminal_size(STDERR_FILENO, &width, &height);
    text_init(&line, 1024);
    text_init(&cut, 4096);
    if (progress->total) {
        uint64_t full = progress->done >= progress->total ? BAR : progress->done * BAR / progress->total;

        for (unsigned i = 0; i < BAR; i++)
            strcat(bar, i < full ? "━" : "·");
        text_printf(&line, "%s %s %llu of %llu", progress->what, bar, (unsigned long long)progress->done,
                    (unsigned long long)progress->total);
    } else {
        text_printf(&line, "%s", progress->what);
        if (progress->done)
            text_printf(&line, " %llu", (unsigned long long)progress->done);
    }
    text_printf(&line, ", %lld s", (long long)((now_ms - progress->begun_ms) / 1000));
    text_add_literal(&cut, "\r\x1b[K");
    width_add(&cut, text_slice(&line), width > 1 ? width - 1 : 1, false, false);
    if (write(STDERR_FILENO, text_string(&cut), cut.len) < 0)
        progress->is_on = false;
    text_release(&line);
    text_release(&cut);
}

void progress_at(struct progress *progress, uint64_t done)
{
    int64_t now_ms = clock_ms();

    progress->done = done;
    if (!progress->is_on || now_ms - progress->begun_ms < PATIENCE_MS || now_ms - progress->shown_ms < BETWEEN_MS)
        return;
    progress->shown_ms = now_ms;
    progress->is_shown = true;
    draw(progress, now_ms);
}

void progress_end(struct progress *progress)
{
    if (progress->is_shown && write(STDERR_FILENO, "\r\x1b[K", 4) < 0)
        progress->is_on = false;
    progress->is_shown = false;
}
