/* What the sources of the test node share: how it talks, how it gives up, and its two kinds of
 * clients. */
#ifndef TESTNODE_H
#define TESTNODE_H

#define _POSIX_C_SOURCE 200809L

#include "raftz.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>

/* A slice for "%.*s". */
#define TEXT(slice) (int)(slice).len, (slice).len > 0 ? (const char *)(slice).data : ""

#define KEY_BYTES 192
#define WORDS_BYTES 512

/* Prints one line as a whole and at once: what was acknowledged must be known to the test even if
 * this process dies right after. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* The same, with bytes in hexadecimal behind the words. */
__attribute__((format(printf, 2, 3))) void say_bytes(raftz_slice bytes, const char *format, ...);
/* Says why this program cannot go on, and ends it without waiting for the node's threads. */
_Noreturn void give_up(const char *why);
/* Gives up unless a call succeeded. Takes the error's place: an argument beside the call that fills
 * it may be read before it. */
void must(raftz_status status, raftz_error *const *error);
/* Zeroed. */
void *allocate(size_t count, size_t bytes);
/* By the clock that all processes of one machine share. */
uint64_t now_us(void);
void pause_ms(uint64_t millis);

/* Clients that write keys of their own, in testnode_load.c. */
struct load;
struct load *load_begin(raftz_node *node, const char *tag, unsigned life, unsigned count,
                        struct load *next);
/* Has the clients of this load and the next ones begin nothing more. */
void load_halt(struct load *load);
/* Waits for the writes that are on their way, and frees what was halted. */
void load_end(struct load *load);

/* Clients that do a bit of everything to a few keys and tell the history of it, in
 * testnode_mixed.c. */
struct mix {
    char tag[64];
    unsigned clients;
    /* Keys in use at a time; shared by all processes. */
    uint64_t keys;
    /* Pause between two calls of a client. */
    uint64_t pace_ms;
    /* Time after which a call must have ended. */
    uint32_t timeout_ms;
    uint64_t seed;
};
struct mixed;
struct mixed *mixed_begin(raftz_node *node, const struct mix *mix, struct mixed *next);
void mixed_halt(struct mixed *mixed);
void mixed_end(struct mixed *mixed);
/* One read through the log, as a call like any other. */
void mixed_read(raftz_node *node, const char *key, uint32_t timeout_ms);

#endif
