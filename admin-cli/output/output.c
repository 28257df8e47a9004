#include "output.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool terminal_size(int fd, unsigned *ret_width, unsigned *ret_height)
{
    struct winsize size;

    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || !size.ws_col || !size.ws_row)
        return false;
    *ret_width = size.ws_col;
    *ret_height = size.ws_row;
    return true;
}

void output_open(struct output *output, enum output_format format, enum output_colour colour, bool is_quiet)
{
    const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");
    unsigned height;

    *output = (struct output){ .format = format, .is_quiet = is_quiet, .is_terminal = isatty(STDOUT_FILENO) };
    if (output->is_terminal && !terminal_size(STDOUT_FILENO, &output->width, &height))
        output->width = 80;
    output->has_colour =
        colour == COLOUR_ALWAYS || (colour == COLOUR_AUTO && output->is_terminal && !(no_colour && *no_colour) &&
                                    terminal && strcmp(terminal, "dumb") != 0);
}

static enum err write_all(int fd, struct slice bytes)
{
    while (bytes.len) {
        ssize_t count = write(fd, bytes.at, bytes.len);

        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return ERR_SYSTEM;
        bytes.at += count;
        bytes.len -= (size_t)count;
    }
    return ERR_OK;
}

enum err output_write(struct output *output, struct slice bytes)
{
    if (output->has_failed)
        return ERR_SYSTEM;
    if (write_all(STDOUT_FILENO, bytes) == ERR_OK)
        return ERR_OK;
    output->has_failed = true;
    complain("standard output cannot be written: %s", strerror(errno));
    return ERR_SYSTEM;
}

static void say(const char *before, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
static void say(const char *before, const char *format, va_list args)
{
    struct text words, safe;

    text_init(&words, 1 << 20);
    text_init(&safe, 8 << 20);
    text_vprintf(&words, format, args);
    text_add_string(&safe, before);
    safe_add(&safe, text_slice(&words), true);
    text_add_char(&safe, '\n');
    (void)write_all(STDERR_FILENO, text_slice(&safe));
    text_release(&words);
    text_release(&safe);
}

void complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say("qwadm: ", format, args);
    va_end(args);
}

void tell(const struct output *output, const char *format, ...)
{
    va_list args;

    if (output->is_quiet)
        return;
    va_start(args, format);
    say("", format, args);
    va_end(args);
}

bool can_ask(void)
{
    return isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

bool person_says_yes(const char *question)
{
    struct text safe;
    char answer[16];

    if (!can_ask())
        return false;
    text_init(&safe, 1 << 16);
    safe_add(&safe, slice_of(question), false);
    text_add_literal(&safe, " [y/N] ");
    (void)write_all(STDERR_FILENO, text_slice(&safe));
    text_release(&safe);
    if (!fgets(answer, sizeof answer, stdin)) {
        (void)write_all(STDERR_FILENO, SLICE("\n"));
        return false;
    }
    return answer[0] == 'y' || answer[0] == 'Y';
}
