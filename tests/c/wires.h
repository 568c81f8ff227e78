/* A transport within this process, with threads of its own, as simple as the interface allows: wires between posts, one
 * post for each node. It can do one thing wrong, or in a way of its own, if a test wants that. */
#ifndef WIRES_H
#define WIRES_H

#include "check.h"

enum way {
    PLAIN,
    /* Good in their own way. */
    HANDS_OVER,
    TAKES_ONE,
    FROM_MANY_THREADS,
    /* What raftz has to live with. */
    DOUBLES,
    LATE_AGAIN,
    LOSES,
    FLIPS_BITS,
    SEND_FAILS,
    /* From the send on that `after` says. */
    BLOCKS,
    /* Whenever it is asked. */
    OPEN_FAILS
};

#define POSTS_MAX 4
#define COURIERS 3

struct post;

/* One end of a wire. */
struct wire_end {
    struct post *post;
    struct wire *wire;
    uint64_t link;
    bool is_ended;
    /* More was given than was taken. */
    bool is_held;
    /* Why it is ended. */
    char words[256];
};

struct wire {
    struct wire_end ends[2];
    unsigned held;
};

/* What is on its way to one end; without bytes it is the end of the wire. */
struct letter {
    struct letter *next;
    struct wire_end *to;
    size_t len;
    uint8_t *bytes;
};

struct post {
    uint64_t id;
    struct wires *wires;
    /* Changed by the test while nodes run. */
    _Atomic enum way way;
    _Atomic uint64_t after;
    bool has_no_stop;
    /* Of one open; behind the lock of the wires. */
    raftz_links *links;
    /* Whom the node wants to be dialled, and has not been answered. */
    bool is_wanted[POSTS_MAX];
    pthread_t couriers[COURIERS];
    unsigned courier_count;
    bool is_ending, is_stopped;
    pthread_cond_t work;
    struct letter *first, **last, *kept;
    uint64_t letters;
    /* What was sent last on a wire that leads nowhere. */
    uint8_t *caught;
    size_t caught_len;
    /* For the test. */
    struct tally opened, destroyed, up, ended, sends, blocked, delivered, refused;
};

struct wires {
    pthread_mutex_t lock;
    struct post posts[POSTS_MAX];
    bool is_cut[POSTS_MAX][POSTS_MAX];
    pthread_t dialler;
    bool is_ending;
};

static inline void wires_lock(struct wires *wires) {
    pthread_mutex_lock(&wires->lock);
}

static inline void wires_unlock(struct wires *wires) {
    pthread_mutex_unlock(&wires->lock);
}

/* With the lock. */
static inline void wire_release(struct wire *wire) {
    if (--wire->held == 0) {
        free(wire);
    }
}

static inline void letter_free(struct letter *letter) {
    wire_release(letter->to->wire);
    free(letter->bytes);
    free(letter);
}

/* With the lock. */
static inline void post_letter(struct wire_end *to, uint8_t *bytes, size_t len) {
    struct post *post = to->post;
    struct letter *letter = malloc(sizeof *letter);
    CHECK(letter != NULL);
    *letter = (struct letter){NULL, to, len, bytes};
    to->wire->held++;
    if (post->links == NULL || post->is_ending) {
        letter_free(letter);
        return;
    }
    *post->last = letter;
    post->last = &letter->next;
    /* Also a send that is made to block waits here. */
    pthread_cond_broadcast(&post->work);
}

static inline struct wire_end *other_end(struct wire_end *end) {
    return &end->wire->ends[end == &end->wire->ends[0] ? 1 : 0];
}

static inline uint8_t *copied(const uint8_t *bytes, size_t len) {
    uint8_t *copy = malloc(len + 1);
    CHECK(copy != NULL);
    memcpy(copy, bytes, len);
    return copy;
}

static inline void give(struct post *post, raftz_links *links, const struct letter *letter) {
    raftz_error *error = NULL;
    raftz_status status;
    if (letter->bytes == NULL) {
        status = raftz_links_down(links, letter->to->link, raftz_text("the other side hung up"), &error);
    } else if (post->way == HANDS_OVER) {
        raftz_bytes *bytes = NULL;
        uint8_t *copy = copied(letter->bytes, letter->len);
        OK(raftz_bytes_wrap((raftz_slice){copy, letter->len}, free, copy, &bytes, &failure));
        status = raftz_links_deliver_bytes(links, letter->to->link, bytes, 60000, &error);
    } else {
        raftz_slice bytes = {letter->bytes, letter->len};
        status = raftz_links_deliver(links, letter->to->link, bytes, 60000, &error);
    }
    CHECK(status == RAFTZ_OK || status == RAFTZ_CLOSED || status == RAFTZ_SHUT_DOWN
          || (status == RAFTZ_INVALID_ARG && post->way == FLIPS_BITS));
    CHECK((error == NULL) == (status == RAFTZ_OK));
    raftz_error_free(error);
    tally_add(status == RAFTZ_OK ? &post->delivered : &post->refused, 1);
}

/* Brings a post what is on its way to it, and does with it what the test wants. */
static inline void *courier(void *argument) {
    struct post *post = argument;
    struct wires *wires = post->wires;
    wires_lock(wires);
    for (;;) {
        while (post->first == NULL && !post->is_ending) {
            pthread_cond_wait(&post->work, &wires->lock);
        }
        struct letter *letter = post->first;
        if (letter == NULL) {
            break;
        }
        post->first = letter->next;
        if (post->first == NULL) {
            post->last = &post->first;
        }
        uint64_t number = ++post->letters;
        enum way way = post->way;
        raftz_links *links = post->links;
        struct letter *again = NULL;
        bool is_lost = letter->bytes != NULL && way == LOSES && number % 10 == 9;
        if (letter->bytes != NULL && way == LATE_AGAIN && number % 7 == 3) {
            again = post->kept;
            post->kept = malloc(sizeof *letter);
            CHECK(post->kept != NULL);
            *post->kept = *letter;
            post->kept->bytes = copied(letter->bytes, letter->len);
        }
        wires_unlock(wires);
        if (letter->bytes != NULL && way == FLIPS_BITS && number % 40 == 39) {
            letter->bytes[number % letter->len] ^= 1;
        }
        if (!is_lost) {
            give(post, links, letter);
        }
        if (way == DOUBLES && letter->bytes != NULL) {
            give(post, links, letter);
        }
        if (again != NULL) {
            /* Of a link that is gone it comes on the one that is there now. */
            again->to = letter->to;
            give(post, links, again);
        }
        wires_lock(wires);
        if (again != NULL) {
            free(again->bytes);
            free(again);
        }
        letter_free(letter);
    }
    wires_unlock(wires);
    return NULL;
}

static inline raftz_status post_open(void *user_data, raftz_links *links, raftz_sink *why,
                                     void **transport) {
    struct post *post = user_data;
    if (post->way == OPEN_FAILS) {
        CHECK(raftz_sink_fail(why, raftz_text("the line is dead")) == RAFTZ_OK);
        return RAFTZ_CALLBACK_FAILED;
    }
    wires_lock(post->wires);
    CHECK(post->links == NULL);
    post->links = links;
    post->is_ending = post->is_stopped = false;
    post->first = NULL;
    post->last = &post->first;
    memset(post->is_wanted, 0, sizeof post->is_wanted);
    post->courier_count = post->way == FROM_MANY_THREADS ? COURIERS : 1;
    wires_unlock(post->wires);
    for (unsigned at = 0; at < post->courier_count; at++) {
        CHECK(pthread_create(&post->couriers[at], NULL, courier, post) == 0);
    }
    tally_add(&post->opened, 1);
    *transport = post;
    return RAFTZ_OK;
}

static inline void post_destroy(void *transport) {
    struct post *post = transport;
    wires_lock(post->wires);
    raftz_links *links = post->links;
    post->is_ending = true;
    pthread_cond_broadcast(&post->work);
    wires_unlock(post->wires);
    for (unsigned at = 0; at < post->courier_count; at++) {
        CHECK(pthread_join(post->couriers[at], NULL) == 0);
    }
    wires_lock(post->wires);
    post->links = NULL;
    if (post->kept != NULL) {
        free(post->kept->bytes);
        free(post->kept);
        post->kept = NULL;
    }
    wires_unlock(post->wires);
    /* Nothing is told any more, and it is said so. */
    uint64_t link = 0;
    raftz_slice none = {NULL, 0};
    CHECK(raftz_links_up(links, 1, NULL, &link, NULL) == RAFTZ_SHUT_DOWN && link == 0);
    CHECK(raftz_links_deliver(links, 1, none, 60000, NULL) == RAFTZ_SHUT_DOWN);
    CHECK(raftz_links_ready(links, 1, NULL) == RAFTZ_SHUT_DOWN);
    CHECK(raftz_links_down(links, 1, none, NULL) == RAFTZ_SHUT_DOWN);
    CHECK(raftz_links_unreachable(links, 2, none, NULL) == RAFTZ_SHUT_DOWN);
    raftz_links_free(links);
    CHECK(tally_now(&post->up) == tally_now(&post->ended));
    tally_add(&post->destroyed, 1);
}

static inline void post_dial(void *transport, uint64_t peer_id, raftz_slice address) {
    struct post *post = transport;
    char wanted[32];
    snprintf(wanted, sizeof wanted, "127.0.0.1:%u", 7000 + (unsigned)peer_id);
    CHECK(same(address, wanted) && peer_id != post->id && peer_id >= 1 && peer_id <= POSTS_MAX);
    wires_lock(post->wires);
    post->is_wanted[peer_id - 1] = true;
    wires_unlock(post->wires);
}

static inline raftz_status post_send(void *transport, void *link_context, const raftz_message *messages,
                                     size_t count, size_t *taken, raftz_sink *why) {
    struct post *post = transport;
    struct wire_end *end = link_context;
    CHECK(count > 0 && *taken == count);
    tally_add(&post->sends, 1);
    uint64_t sends = tally_now(&post->sends);
    if (post->way == SEND_FAILS && sends % 50 == 49) {
        CHECK(raftz_sink_fail(why, raftz_text("the line is bad")) == RAFTZ_OK);
        return RAFTZ_CALLBACK_FAILED;
    }
    wires_lock(post->wires);
    CHECK(end->post == post && !end->is_ended);
    if (post->way == BLOCKS && sends >= post->after) {
        tally_add(&post->blocked, 1);
        while (post->way == BLOCKS && !post->is_stopped) {
            pthread_cond_wait(&post->work, &post->wires->lock);
        }
    }
    if (post->way == TAKES_ONE) {
        *taken = 1;
        if (count > 1) {
            /* The dialler says when more is taken. */
            end->is_held = true;
        }
    }
    for (size_t at = 0; at < *taken; at++) {
        const raftz_message *message = &messages[at];
        CHECK(message->urgency <= RAFTZ_MESSAGE_BULK && message->part_count > 0);
        uint8_t *bytes = malloc(message->len + 1);
        size_t len = 0;
        CHECK(bytes != NULL && message->len <= raftz_links_bytes_max(post->links));
        for (size_t part = 0; part < message->part_count; part++) {
            memcpy(bytes + len, message->parts[part].data, message->parts[part].len);
            len += message->parts[part].len;
        }
        CHECK(len == message->len);
        if (other_end(end)->post != NULL) {
            post_letter(other_end(end), bytes, len);
        } else {
            free(post->caught);
            post->caught = bytes;
            post->caught_len = len;
        }
    }
    wires_unlock(post->wires);
    return RAFTZ_OK;
}

static inline void post_end(void *transport, void *link_context, raftz_slice reason) {
    struct post *post = transport;
    struct wire_end *end = link_context;
    wires_lock(post->wires);
    CHECK(reason.len > 0 && end->post == post && !end->is_ended);
    end->is_ended = true;
    snprintf(end->words, sizeof end->words, "%.*s", (int)reason.len, (const char *)reason.data);
    tally_add(&post->ended, 1);
    if (!other_end(end)->is_ended) {
        post_letter(other_end(end), NULL, 0);
    }
    wire_release(end->wire);
    wires_unlock(post->wires);
}

static inline void post_stop(void *transport) {
    struct post *post = transport;
    wires_lock(post->wires);
    post->is_stopped = true;
    pthread_cond_broadcast(&post->work);
    wires_unlock(post->wires);
}

static inline raftz_transport post_table(struct post *post) {
    raftz_transport table = RAFTZ_TRANSPORT_INIT;
    table.user_data = post;
    table.open = post_open;
    table.destroy = post_destroy;
    table.dial = post_dial;
    table.send = post_send;
    table.end = post_end;
    table.stop = post->has_no_stop ? NULL : post_stop;
    return table;
}

/* With the lock. Says that an end of a wire stands; it must not be full, or late. */
static inline bool end_up(struct wire_end *end, uint64_t peer) {
    if (raftz_links_up(end->post->links, peer, end, &end->link, NULL) != RAFTZ_OK) {
        return false;
    }
    end->wire->held++;
    tally_add(&end->post->up, 1);
    return true;
}

/* With the lock. A wire between two posts; to is NULL for one that leads nowhere. */
static inline struct wire *wire_between(struct post *from, struct post *to, uint64_t peer) {
    struct wire *wire = calloc(1, sizeof *wire);
    CHECK(wire != NULL);
    wire->held = 1;
    wire->ends[0] = (struct wire_end){.post = from, .wire = wire};
    wire->ends[1] = (struct wire_end){.post = to, .wire = wire, .is_ended = true};
    if (!end_up(&wire->ends[0], peer)) {
        wire->ends[0].is_ended = true;
    } else if (to != NULL) {
        wire->ends[1].is_ended = false;
        if (!end_up(&wire->ends[1], 0)) {
            wire->ends[1].is_ended = true;
            post_letter(&wire->ends[0], NULL, 0);
        }
    }
    return wire;
}

/* Dials who is wanted, says who cannot be had, and ends the wires that are cut. */
static inline void *dial(void *argument) {
    struct wires *wires = argument;
    struct wire *stands[64] = {NULL};
    const size_t room = sizeof stands / sizeof *stands;
    wires_lock(wires);
    while (!wires->is_ending) {
        for (size_t at = 0; at < room; at++) {
            struct wire *wire = stands[at];
            if (wire == NULL) {
                continue;
            }
            struct wire_end *ends = wire->ends;
            for (unsigned of = 0; of < 2; of++) {
                if (ends[of].is_held && !ends[of].is_ended) {
                    ends[of].is_held = false;
                    raftz_links_ready(ends[of].post->links, ends[of].link, NULL);
                }
            }
            uint64_t one = ends[0].post->id - 1, other = ends[1].post->id - 1;
            bool is_cut = wires->is_cut[one][other] || wires->is_cut[other][one];
            if (is_cut && !ends[0].is_ended && !ends[1].is_ended) {
                post_letter(&ends[0], NULL, 0);
                post_letter(&ends[1], NULL, 0);
            }
            if (is_cut || ends[0].is_ended || ends[1].is_ended) {
                wire_release(wire);
                stands[at] = NULL;
            }
        }
        for (unsigned from = 0; from < POSTS_MAX; from++) {
            struct post *post = &wires->posts[from];
            if (post->links == NULL || post->is_ending) {
                continue;
            }
            for (unsigned to = 0; to < POSTS_MAX; to++) {
                struct post *other = &wires->posts[to];
                if (!post->is_wanted[to]) {
                    continue;
                }
                post->is_wanted[to] = false;
                size_t place = 0;
                while (place < room && stands[place] != NULL) {
                    place++;
                }
                bool is_cut = wires->is_cut[from][to] || wires->is_cut[to][from];
                if (is_cut || other->links == NULL || other->is_ending || place == room) {
                    raftz_links_unreachable(post->links, other->id, raftz_text("there is no wire"), NULL);
                } else {
                    stands[place] = wire_between(post, other, other->id);
                }
            }
        }
        wires_unlock(wires);
        struct timespec some = {0, 2000000};
        nanosleep(&some, NULL);
        wires_lock(wires);
    }
    for (size_t at = 0; at < room; at++) {
        if (stands[at] != NULL) {
            wire_release(stands[at]);
        }
    }
    wires_unlock(wires);
    return NULL;
}

static inline struct wires *wires_new(enum way way) {
    struct wires *wires = calloc(1, sizeof *wires);
    CHECK(wires != NULL && pthread_mutex_init(&wires->lock, NULL) == 0);
    for (unsigned at = 0; at < POSTS_MAX; at++) {
        struct post *post = &wires->posts[at];
        post->id = at + 1;
        post->wires = wires;
        post->way = way;
        CHECK(pthread_cond_init(&post->work, NULL) == 0);
        post->opened = post->destroyed = post->up = post->ended = (struct tally)TALLY_INIT;
        post->sends = post->blocked = post->delivered = post->refused = (struct tally)TALLY_INIT;
    }
    CHECK(pthread_create(&wires->dialler, NULL, dial, wires) == 0);
    return wires;
}

static inline void wires_set(struct wires *wires, enum way way) {
    for (unsigned at = 0; at < POSTS_MAX; at++) {
        wires->posts[at].way = way;
    }
}

/* Nothing passes between two any more, or all again. */
static inline void wires_cut(struct wires *wires, unsigned one, unsigned other, bool is_cut) {
    wires_lock(wires);
    wires->is_cut[one][other] = is_cut;
    wires_unlock(wires);
}

/* After the last node: everything that was opened has been ended. */
static inline void wires_free(struct wires *wires) {
    wires_lock(wires);
    wires->is_ending = true;
    wires_unlock(wires);
    CHECK(pthread_join(wires->dialler, NULL) == 0);
    for (unsigned at = 0; at < POSTS_MAX; at++) {
        struct post *post = &wires->posts[at];
        CHECK(tally_now(&post->opened) == tally_now(&post->destroyed));
        CHECK(post->links == NULL && post->first == NULL);
        pthread_cond_destroy(&post->work);
        free(post->caught);
    }
    pthread_mutex_destroy(&wires->lock);
    free(wires);
}

#endif
