#include "screen.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

#include "output.h"

static const char enter[] = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J";
static const char leave[] = "\x1b[?25h\x1b[?1049l";
static const int ending_signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
static const int crashing_signals[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL };
enum {
    ENDING = sizeof ending_signals / sizeof *ending_signals,
    CRASHING = sizeof crashing_signals / sizeof *crashing_signals
};

static struct {
    struct termios as_it_was;
    int pipe[2]; /* a byte a signal */
    int epoll;
    volatile sig_atomic_t is_ours; /* the terminal */
    volatile sig_atomic_t died_of;
    char keys[32];
    size_t key_count;
} screen = { .pipe = { -1, -1 }, .epoll = -1 };

/* Safe within a signal handler. */
static void give_terminal_back(void)
{
    if (!screen.is_ours)
        return;
    screen.is_ours = 0;
    if (write(STDOUT_FILENO, leave, sizeof leave - 1) < 0)
        return;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &screen.as_it_was);
}

static void take_terminal(void)
{
    struct termios raw = screen.as_it_was;

    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    screen.is_ours = 1;
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    if (write(STDOUT_FILENO, enter, sizeof enter - 1) < 0)
        screen.died_of = SIGHUP;
}

static void on_signal(int number)
{
    int error = errno;
    char byte = (char)number;

    if (write(screen.pipe[1], &byte, 1) < 0)
        screen.died_of = number; /* the pipe is full: somebody insists */
    errno = error;
}

static void on_crash(int number)
{
    give_terminal_back();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static void handle(int number, void (*handler)(int), int flags)
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(number, &action, NULL);
}

static enum err watch(int fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

    return epoll_ctl(screen.epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? ERR_OK : ERR_SYSTEM;
}

enum err screen_open(struct text *why)
{
    if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &screen.as_it_was) != 0) {
        text_add_literal(why, "top needs a terminal; --once prints one picture anywhere");
        return ERR_SYSTEM;
    }
    screen.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (screen.epoll < 0 || pipe2(screen.pipe, O_CLOEXEC | O_NONBLOCK) != 0 || watch(screen.pipe[0]) != ERR_OK ||
        watch(STDIN_FILENO) != ERR_OK) {
        text_printf(why, "the terminal cannot be watched: %s", strerror(errno));
        return ERR_SYSTEM;
    }
    for (unsigned i = 0; i < ENDING; i++)
        handle(ending_signals[i], on_signal, SA_RESTART);
    for (unsigned i = 0; i < CRASHING; i++)
        handle(crashing_signals[i], on_crash, 0);
    handle(SIGWINCH, on_signal, SA_RESTART);
    handle(SIGTSTP, on_signal, SA_RESTART);
    handle(SIGCONT, on_signal, SA_RESTART);
    (void)atexit(give_terminal_back);
    take_terminal();
    return ERR_OK;
}

void screen_close(void)
{
    give_terminal_back();
    for (unsigned i = 0; i < ENDING; i++)
        handle(ending_signals[i], SIG_DFL, 0);
    handle(SIGWINCH, SIG_DFL, 0);
    handle(SIGTSTP, SIG_DFL, 0);
    handle(SIGCONT, SIG_DFL, 0);
    (void)close(screen.epoll);
    (void)close(screen.pipe[0]);
    (void)close(screen.pipe[1]);
}

int screen_fd(void)
{
    return screen.epoll;
}

/* Stops as a shell expects, with the terminal given back, and takes it again when it is told to go on. */
static void stop(void)
{
    give_terminal_back();
    handle(SIGTSTP, SIG_DFL, 0);
    (void)raise(SIGTSTP);
    handle(SIGTSTP, on_signal, SA_RESTART);
    take_terminal();
}

static unsigned read_signals(void)
{
    unsigned news = SCREEN_NOTHING;
    char number;

    while (read(screen.pipe[0], &number, 1) == 1) {
        if (number == SIGTSTP)
            stop();
        if (number == SIGTSTP || number == SIGWINCH || number == SIGCONT) {
            news |= SCREEN_RESIZED;
        } else {
            screen.died_of = number;
            news |= SCREEN_ENDS;
        }
    }
    return news;
}

static unsigned read_keys(void)
{
    struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
    ssize_t count;

    if (poll(&input, 1, 0) <= 0)
        return SCREEN_NOTHING;
    count = read(STDIN_FILENO, screen.keys + screen.key_count, sizeof screen.keys - screen.key_count);
    if (count > 0) {
        screen.key_count += (size_t)count;
        return SCREEN_KEY;
    }
    if (input.revents & (POLLHUP | POLLERR) || count == 0) { /* the terminal is gone */
        screen.died_of = SIGHUP;
        return SCREEN_ENDS;
    }
    return SCREEN_NOTHING;
}

unsigned screen_news(int64_t wait_ms)
{
    struct epoll_event event;
    unsigned news = SCREEN_NOTHING;

    if (!screen.key_count && !screen.died_of)
        (void)epoll_wait(screen.epoll, &event, 1, (int)wait_ms);
    news |= read_signals();
    news |= screen.key_count == sizeof screen.keys ? SCREEN_KEY : read_keys();
    return news | (screen.key_count ? SCREEN_KEY : 0) | (screen.died_of ? SCREEN_ENDS : 0);
}

char screen_key(void)
{
    char key;

    if (!screen.key_count)
        return 0;
    key = screen.keys[0];
    memmove(screen.keys, screen.keys + 1, --screen.key_count);
    return key;
}

void screen_size(unsigned *ret_width, unsigned *ret_height)
{
    if (!terminal_size(STDOUT_FILENO, ret_width, ret_height)) {
        *ret_width = 80;
        *ret_height = 24;
    }
}

void screen_show(struct slice lines)
{
    struct text out;
    const char *at;
    size_t left, done = 0;

    text_init(&out, lines.len * 2 + 4096);
    text_add_literal(&out, "\x1b[H");
    for (size_t i = 0; i < lines.len; i++) {
        if (lines.at[i] != '\n')
            text_add_char(&out, lines.at[i]);
        else if (i + 1 < lines.len) /* no newline behind the last, which would scroll */
            text_add_literal(&out, "\x1b[K\r\n");
    }
    text_add_literal(&out, "\x1b[K\x1b[J");
    at = text_string(&out);
    left = out.len;
    while (done < left) {
        ssize_t count = write(STDOUT_FILENO, at + done, left - done);

        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            break;
        done += (size_t)count;
    }
    text_release(&out);
}

void screen_die(void)
{
    if (!screen.died_of)
        return;
    (void)signal((int)screen.died_of, SIG_DFL);
    (void)raise((int)screen.died_of);
}
