/*
 * worker - one thread: its loop, its listeners, its connections. The first also serves the control side.
 * Obeys the settings in books: mute, blackhole, cutting everything.
 */
#pragma once
#include "books.h"
#include "loop.h"

struct conn;

struct listener {
    struct source source;
    struct worker *worker;
    int fd; /* -1: closed */
    bool is_control;
};

struct worker {
    struct loop loop;
    pthread_t thread;
    unsigned number;
    struct arena arena;
    struct listener model;
    struct listener control;
    struct conn *conns;   /* all open ones */
    struct conn *dead;    /* to be freed at the end of the turn */
    struct conn *granted; /* got a slot from another thread; the books' lock */
    bool is_blackhole;
    uint64_t drops;  /* obeyed so far */
    uint64_t obeyed; /* version of the settings that is in force here; atomic */
};

/* How to open the model's listening socket again after mute. Set once. */
struct address {
    int family;
    uint16_t port;
    char host[64]; /* numeric */
};

/* false: ret_why says what is wrong with the text. */
bool address_read(struct address *address, const char *text, struct bytes *ret_why);
/* -1: errno says why. With port 0 the chosen port is stored. */
int address_bind(struct address *address, bool is_shared);

/* Starts the threads; listening goes on from here. control may be NULL. */
void workers_start(unsigned count, const struct address *model, int control_fd);
void workers_stop(void);
/* Puts new settings in force on every thread before it returns. Called on the first worker's thread. */
void workers_obey(struct worker *self, const struct settings *settings);
