/*
 * One thread, one epoll loop, three nodes: everything that the nodes tell comes out of one queue,
 * whose descriptor is one source of the loop beside the program's own, here a timer.
 *
 * On each tick the timer proposes a few increments. The queue gives back how they ended, and what
 * happens to the nodes. Nothing in the loop blocks and nothing needs a lock. In the end every
 * increment must have been answered with a number of its own, and none missing in between.
 */
#define _GNU_SOURCE

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common.h"

enum { TOTAL = 1000, PER_TICK = 20, TICK_MS = 2 };

/* Proposals that were made together: the user data of their completion. */
typedef struct batch {
    int number;
    size_t count;
} batch;

typedef struct loop {
    trio nodes;
    raftz_queue *queue;
    int epoll, timer;
    raftz_bytes *increment;
    /* Increments that are still to be proposed, and batches on the way. */
    size_t wanted, on_the_way;
    int ticks, batches;
    uint64_t done, refused, unknown;
    /* Whether an increment was answered with this number. */
    bool seen[TOTAL + 1];
} loop;

static bool watch(loop *self, int descriptor) {
    struct epoll_event interest = {.events = EPOLLIN, .data = {.fd = descriptor}};
    if (epoll_ctl(self->epoll, EPOLL_CTL_ADD, descriptor, &interest) == 0) {
        return true;
    }
    perror("epoll_ctl");
    return false;
}

static bool set_timer(loop *self, long interval_ms) {
    const struct timespec interval = {0, interval_ms * 1000000};
    const struct itimerspec when = {interval, interval};
    if (timerfd_settime(self->timer, 0, &when, NULL) == 0) {
        return true;
    }
    perror("timerfd_settime");
    return false;
}

/* Proposes the next increments on one node after the other. */
static bool tick(loop *self) {
    uint64_t expirations = 0;
    if (read(self->timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) {
        perror("timer");
        return false;
    }
    raftz_node *node = self->nodes.node[self->ticks++ % NODES];
    raftz_slice commands[PER_TICK];
    batch *one = malloc(sizeof *one);
    if (one == NULL) {
        perror("batch");
        return false;
    }
    one->number = self->batches;
    one->count = self->wanted < PER_TICK ? self->wanted : PER_TICK;
    if (one->count == 0) {
        free(one);
        return true;
    }
    for (size_t at = 0; at < one->count; at++) {
        commands[at] = raftz_bytes_slice(self->increment);
    }
    raftz_error *error = NULL;
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    opts.timeout_ms = PATIENCE_MS / 2;
    const raftz_status status =
        raftz_propose_queued(node, commands, one->count, &opts, self->queue, one, &error);
    if (status == RAFTZ_OK) {
        self->wanted -= one->count;
        self->on_the_way++;
        self->batches++;
        return true;
    }
    /* Nothing of it was accepted, so no completion will come; a later tick tries again. */
    const bool goes_on = raftz_error_is_retriable(error);
    self->refused += one->count;
    free(one);
    if (goes_on) {
        raftz_error_free(error);
        return true;
    }
    return ok("propose", status, &error);
}

/* The number that an increment was answered with; 0 if it was none. */
static int64_t number_of(const raftz_outcome *outcome) {
    raftz_error *error = NULL;
    raftz_kv_reply *reply = NULL;
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    const bool is_number =
        ok("reply", raftz_kv_reply_read(outcome->reply, outcome->flags, &reply, &error), &error) &&
        ok("reply", raftz_kv_reply_get(reply, &info, &error), &error) &&
        info.kind == RAFTZ_KV_NUMBER;
    raftz_kv_reply_free(reply);
    return is_number ? info.number : 0;
}

static bool completed(loop *self, const raftz_event_info *info) {
    batch *one = info->user_data;
    bool as_claimed = info->outcome_count == one->count;
    int64_t before = 0;
    self->on_the_way--;
    for (size_t at = 0; at < info->outcome_count && as_claimed; at++) {
        const raftz_outcome *outcome = &info->outcomes[at];
        if (outcome->status == RAFTZ_OK) {
            /* Commands of a batch are in the log in their order. */
            const int64_t number = number_of(outcome);
            as_claimed = number > before && number <= TOTAL && !self->seen[number];
            if (as_claimed) {
                self->seen[number] = true;
                self->done++;
            }
            before = number;
        } else if (outcome->flags & RAFTZ_OUTCOME_UNKNOWN) {
            /* It may have counted, so it is not tried again. */
            self->unknown++;
        } else {
            self->refused++;
            self->wanted++;
        }
    }
    if (!as_claimed) {
        fprintf(stderr, "batch %d has outcomes that cannot be\n", one->number);
    }
    free(one);
    return as_claimed;
}

static bool happened(loop *self, const raftz_event_info *info) {
    static const char *const roles[] = {"follower", "pre-candidate", "candidate", "leader"};
    switch (info->kind) {
    case RAFTZ_EVENT_COMPLETION:
        return completed(self, info);
    case RAFTZ_EVENT_ROLE:
        printf("node %" PRIu64 " is %s in term %" PRIu64 "\n", info->node_id,
               info->role < 4 ? roles[info->role] : "something new", info->term);
        return true;
    case RAFTZ_EVENT_READY:
        printf("node %" PRIu64 " is ready to lead: the timer starts\n", info->node_id);
        return set_timer(self, TICK_MS);
    case RAFTZ_EVENT_FAULTED:
        fprintf(stderr, "node %" PRIu64 " has stopped: %.*s\n", info->node_id, (int)info->text.len,
                (const char *)info->text.data);
        return false;
    default:
        return true;
    }
}

/* Takes all that is in the queue: its descriptor is readable until it is empty. */
static bool drain(loop *self) {
    bool as_claimed = true;
    for (;;) {
        raftz_error *error = NULL;
        raftz_event *event = NULL;
        raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
        const raftz_status status = raftz_queue_next(self->queue, 0, &event, &error);
        if (status == RAFTZ_EMPTY) {
            raftz_error_free(error);
            return as_claimed;
        }
        if (!ok("queue", status, &error)) {
            return false;
        }
        /* Also after a failure: what is left in the queue holds memory of ours. */
        as_claimed = ok("event", raftz_event_get(event, &info, &error), &error) &&
                     happened(self, &info) && as_claimed;
        raftz_event_free(event);
    }
}

static bool run(loop *self) {
    const uint64_t deadline = now_ms() + 2 * PATIENCE_MS;
    while (self->wanted > 0 || self->on_the_way > 0) {
        struct epoll_event ready[4];
        const int count = epoll_wait(self->epoll, ready, 4, 1000);
        if (count < 0 && errno != EINTR) {
            perror("epoll_wait");
            return false;
        }
        for (int at = 0; at < count; at++) {
            if (ready[at].data.fd == self->timer ? !tick(self) : !drain(self)) {
                return false;
            }
        }
        if (now_ms() > deadline) {
            fprintf(stderr, "%zu increments are still to be made\n", self->wanted);
            return false;
        }
    }
    printf("%d increments in %d batches: %" PRIu64 " done, %" PRIu64 " refused and tried again, %"
           PRIu64 " unknown\n",
           TOTAL, self->batches, self->done, self->refused, self->unknown);
    return true;
}

/* Every increment that is done has a number of its own, and none is missing without a reason. */
static bool check(const loop *self) {
    uint64_t seen = 0, highest = 0;
    for (uint64_t number = 1; number <= TOTAL; number++) {
        seen += self->seen[number];
        highest = self->seen[number] ? number : highest;
    }
    printf("numbers up to %" PRIu64 ", %" PRIu64 " of them seen\n", highest, seen);
    return seen == self->done && self->done + self->unknown == TOTAL &&
           highest <= seen + self->unknown && raftz_queue_dropped(self->queue) == 0;
}

static bool open_loop(loop *self) {
    raftz_error *error = NULL;
    trio_opts opts = {NULL, NULL, NULL, 0};
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    self->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (self->epoll < 0 || self->timer < 0) {
        perror("epoll and timer");
        return false;
    }
    if (!ok("queue", raftz_queue_new(NULL, &self->queue, &error), &error) ||
        !ok("increment", raftz_kv_increment(raftz_text("counter"), 1, &self->increment, &error),
            &error)) {
        return false;
    }
    opts.events = self->queue;
    opts.event_kinds = 1u << RAFTZ_EVENT_ROLE | 1u << RAFTZ_EVENT_READY | 1u << RAFTZ_EVENT_FAULTED;
    return watch(self, self->timer) && watch(self, raftz_queue_fd(self->queue)) &&
           trio_start(&self->nodes, &opts);
}

int main(void) {
    static loop self = {.epoll = -1, .timer = -1, .wanted = TOTAL};
    bool as_claimed = open_loop(&self) && run(&self) && check(&self);
    /* Stopping blocks, so it comes after the loop; it answers what is still on the way. */
    as_claimed = trio_stop(&self.nodes) && as_claimed;
    as_claimed = (self.queue == NULL || drain(&self)) && as_claimed;
    raftz_queue_free(self.queue);
    raftz_bytes_free(self.increment);
    if (self.timer >= 0) {
        close(self.timer);
    }
    if (self.epoll >= 0) {
        close(self.epoll);
    }
    return report("event_loop", as_claimed);
}
