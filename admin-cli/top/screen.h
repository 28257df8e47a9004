/*
 * screen - the terminal while `qwadm top` has it: the other screen, without a cursor, keys as they are pressed. However
 * the program ends (but for SIGKILL), the terminal is as it was. One at a time; main thread only.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

enum screen_news {
    SCREEN_NOTHING = 0,
    SCREEN_KEY = 1,     /* see screen_key() */
    SCREEN_RESIZED = 2, /* or come back after it was stopped: to be drawn anew */
    SCREEN_ENDS = 4,    /* a signal wants us to end: screen_close(), then screen_die() */
};

/* ERR_SYSTEM: standard input and output are no terminal. */
enum err screen_open(struct text *why);
void screen_close(void);
/* Can be read when there is news. */
int screen_fd(void);
/* Waits for at most that long. */
unsigned screen_news(int64_t wait_ms);
/* The next key that was pressed; 0: none. */
char screen_key(void);
void screen_size(unsigned *ret_width, unsigned *ret_height);
/* Shows lines, and nothing else. */
void screen_show(struct slice lines);
/* The signal that made us end does so, as whoever sent it expects; returns when there was none. */
void screen_die(void);
