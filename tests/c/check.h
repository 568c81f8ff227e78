/* What every C test shares: checks that end the program with words, and waits that a watchdog bounds. */
#ifndef CHECK_H
#define CHECK_H

#include <pthread.h>
#include <raftz.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Where calls leave their error; WANT looks at it and frees it. */
static _Thread_local raftz_error *failure;

static inline _Noreturn void failed(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    fflush(stderr);
    _exit(1);
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failed(__FILE__, __LINE__, #condition);                                                \
        }                                                                                          \
    } while (0)

static inline void want(raftz_status wanted, raftz_status status, const char *file, int line,
                        const char *call) {
    if (status != wanted) {
        fprintf(stderr, "%s:%d: %s\n  is %s, not %s: %s\n", file, line, call,
                raftz_status_name(status), raftz_status_name(wanted),
                raftz_error_message(failure));
        fflush(stderr);
        _exit(1);
    }
    if (failure != NULL && raftz_error_status(failure) != status) {
        failed(file, line, "the error's status is not the call's");
    }
    raftz_error_free(failure);
    failure = NULL;
}

#define WANT(wanted, call) want((wanted), (call), __FILE__, __LINE__, #call)
#define OK(call) WANT(RAFTZ_OK, call)

/* How much slower than usual this run is, as under a checker that interprets every instruction. */
static inline unsigned slowness(void) {
    const char *text = getenv("RAFTZ_C_SLOWNESS");
    return text == NULL ? 1 : (unsigned)atoi(text);
}

/* A test that hangs must end, and say so by its end. */
static inline void watchdog(unsigned seconds) {
    alarm(seconds * slowness());
}

static inline uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Between two looks at something that changes by itself. */
static inline void moment(void) {
    struct timespec some = {0, 2000000};
    nanosleep(&some, NULL);
}

/* Counts what callbacks do; who waits for a number of them is bounded by the watchdog. */
struct tally {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t count;
};
#define TALLY_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static inline void tally_add(struct tally *tally, uint64_t count) {
    pthread_mutex_lock(&tally->lock);
    tally->count += count;
    pthread_cond_broadcast(&tally->changed);
    pthread_mutex_unlock(&tally->lock);
}

static inline uint64_t tally_now(struct tally *tally) {
    pthread_mutex_lock(&tally->lock);
    uint64_t count = tally->count;
    pthread_mutex_unlock(&tally->lock);
    return count;
}

static inline void tally_wait(struct tally *tally, uint64_t count) {
    pthread_mutex_lock(&tally->lock);
    while (tally->count < count) {
        pthread_cond_wait(&tally->changed, &tally->lock);
    }
    pthread_mutex_unlock(&tally->lock);
}

static inline int same(raftz_slice slice, const char *text) {
    return slice.len == strlen(text) && (slice.len == 0 || memcmp(slice.data, text, slice.len) == 0);
}

static inline int has(raftz_slice slice, const char *text) {
    size_t len = strlen(text);
    for (size_t at = 0; at + len <= slice.len; at++) {
        if (memcmp(slice.data + at, text, len) == 0) {
            return 1;
        }
    }
    return 0;
}

#endif
