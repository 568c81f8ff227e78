/*
 * A state machine of one's own: a bank, on three nodes.
 *
 * A command moves money from one account to another. It is rejected when there is too little on the
 * first, and since every node applies the same commands in the same order, it is rejected on all of
 * them or on none. Money is neither made nor lost: its total is the same at every moment, on every
 * node, whatever the threads do that order transfers, and in the end all nodes' accounts are equal.
 */
#define _GNU_SOURCE

#include <pthread.h>
#include <stdatomic.h>

#include "common.h"

enum {
    ACCOUNTS = 8,
    DEPOSIT = 1000,
    TELLERS = 4,
    TRANSFERS = 250,
    /* From, to, and the amount in eight bytes. */
    COMMAND_BYTES = 10,
    STATE_BYTES = 8 * ACCOUNTS
};

/* Numbers as bytes: least first, on every machine, for a cluster may be made of different ones. */
static void put_number(uint8_t *to, uint64_t number) {
    for (int at = 0; at < 8; at++) {
        to[at] = (uint8_t)(number >> 8 * at);
    }
}

static uint64_t get_number(const uint8_t *from) {
    uint64_t number = 0;
    for (int at = 0; at < 8; at++) {
        number |= (uint64_t)from[at] << 8 * at;
    }
    return number;
}

/* The state, of which each node has one. */
typedef struct bank {
    uint64_t balance[ACCOUNTS];
    /* Whom to tell when it ends. */
    atomic_int *banks;
} bank;

static void bank_write(const bank *self, uint8_t *state) {
    for (int at = 0; at < ACCOUNTS; at++) {
        put_number(&state[8 * at], self->balance[at]);
    }
}

/* Every node must begin alike: what it begins with is part of what all of them agree on. */
static raftz_status bank_create(void *user_data, raftz_sink *why, void **machine) {
    bank *self = malloc(sizeof *self);
    if (self == NULL) {
        raftz_sink_fail(why, raftz_text("no memory for a bank"));
        return RAFTZ_CALLBACK_FAILED;
    }
    for (int at = 0; at < ACCOUNTS; at++) {
        self->balance[at] = DEPOSIT;
    }
    self->banks = user_data;
    atomic_fetch_add(self->banks, 1);
    *machine = self;
    return RAFTZ_OK;
}

static void bank_destroy(void *machine) {
    bank *self = machine;
    atomic_fetch_sub(self->banks, 1);
    free(self);
}

/* Answers a transfer with what is left, or turns it down. A command that is none is turned down
 * too: a failure would stop this replica, and every other one in the same way. */
static raftz_status bank_transfer(bank *self, raftz_slice command, raftz_replies *replies) {
    if (command.len != COMMAND_BYTES || command.data[0] >= ACCOUNTS ||
        command.data[1] >= ACCOUNTS) {
        return raftz_replies_reject(replies, raftz_text("this is not a transfer"));
    }
    uint64_t *from = &self->balance[command.data[0]];
    uint64_t *to = &self->balance[command.data[1]];
    const uint64_t amount = get_number(&command.data[2]);
    if (amount > *from) {
        return raftz_replies_reject(replies, raftz_text("the balance is too low"));
    }
    *from -= amount;
    *to += amount;
    uint8_t left[8];
    put_number(left, *from);
    const raftz_slice reply = {left, sizeof left};
    return raftz_replies_push(replies, reply);
}

static raftz_status bank_apply(void *machine, const raftz_command *commands, size_t count,
                               raftz_replies *replies) {
    for (size_t at = 0; at < count; at++) {
        const raftz_status status = bank_transfer(machine, commands[at].data, replies);
        if (status != RAFTZ_OK) {
            return status;
        }
    }
    return RAFTZ_OK;
}

/* The only question, without a word: what is on the accounts? */
static raftz_status bank_query(void *machine, raftz_slice request, raftz_sink *reply) {
    uint8_t state[STATE_BYTES];
    if (request.len != 0) {
        raftz_sink_fail(reply, raftz_text("a question to the bank has no words"));
        return RAFTZ_CALLBACK_FAILED;
    }
    bank_write(machine, state);
    const raftz_slice bytes = {state, sizeof state};
    return raftz_sink_write(reply, bytes);
}

/* A state that stands still, and how much of it has been read. */
typedef struct frozen {
    uint8_t state[STATE_BYTES];
    size_t read;
} frozen;

/* For a large state this would be a copy on write; here a copy is quick enough. */
static raftz_status bank_snapshot_begin(void *machine, raftz_sink *why, void **snapshot) {
    frozen *self = malloc(sizeof *self);
    if (self == NULL) {
        raftz_sink_fail(why, raftz_text("no memory for a snapshot"));
        return RAFTZ_CALLBACK_FAILED;
    }
    bank_write(machine, self->state);
    self->read = 0;
    *snapshot = self;
    return RAFTZ_OK;
}

/* An account at a time, then nothing, which is the end. */
static raftz_status bank_snapshot_read(void *snapshot, raftz_sink *piece) {
    frozen *self = snapshot;
    if (self->read == STATE_BYTES) {
        return RAFTZ_OK;
    }
    const raftz_slice account = {&self->state[self->read], 8};
    self->read += 8;
    return raftz_sink_write(piece, account);
}

static void bank_snapshot_end(void *snapshot) {
    free(snapshot);
}

static raftz_status bank_restore(void *machine, raftz_source *source, raftz_sink *why) {
    bank *self = machine;
    uint8_t state[STATE_BYTES + 1];
    size_t total = 0, read = 0;
    do {
        const raftz_status status =
            raftz_source_read(source, &state[total], sizeof state - total, &read);
        if (status != RAFTZ_OK) {
            return status;
        }
        total += read;
    } while (read > 0 && total < sizeof state);
    if (total != STATE_BYTES) {
        raftz_sink_fail(why, raftz_text("this snapshot is not of a bank"));
        return RAFTZ_CALLBACK_FAILED;
    }
    for (int at = 0; at < ACCOUNTS; at++) {
        self->balance[at] = get_number(&state[8 * at]);
    }
    return RAFTZ_OK;
}

/* A thread that orders transfers, and what it saw. */
typedef struct teller {
    const trio *nodes;
    uint64_t random;
    bool failed;
    uint64_t done, rejected, refused, unknown;
    uint64_t last;
} teller;

static uint64_t draw(teller *self, uint64_t below) {
    self->random ^= self->random << 13;
    self->random ^= self->random >> 7;
    self->random ^= self->random << 17;
    return self->random % below;
}

/* Whether a node has all the money, once it has applied everything up to `index`. */
static bool audit(const raftz_node *node, uint64_t index, uint8_t *state) {
    const raftz_slice question = {NULL, 0};
    raftz_reply reply = RAFTZ_REPLY_INIT;
    uint64_t total = 0;
    bool is_right = ask(node, index, question, &reply);
    const raftz_slice answer = raftz_bytes_slice(reply.bytes);
    if (is_right && answer.len == STATE_BYTES) {
        memcpy(state, answer.data, STATE_BYTES);
        for (int at = 0; at < ACCOUNTS; at++) {
            total += get_number(&state[8 * at]);
        }
    }
    is_right = is_right && total == ACCOUNTS * DEPOSIT;
    if (!is_right) {
        fprintf(stderr, "node %" PRIu64 " has %" PRIu64 "\n", raftz_node_id(node), total);
    }
    raftz_bytes_free(reply.bytes);
    return is_right;
}

/* Orders one transfer on some node. What was refused is tried again; what is unknown may have
 * happened and is left alone, for to move money twice is not to move it once. */
static void transfer(teller *self) {
    uint8_t command[COMMAND_BYTES];
    const uint64_t deadline = now_ms() + PATIENCE_MS;
    const raftz_slice bytes = {command, sizeof command};
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    opts.timeout_ms = PATIENCE_MS / 2;
    command[0] = (uint8_t)draw(self, ACCOUNTS);
    command[1] = (uint8_t)draw(self, ACCOUNTS);
    put_number(&command[2], draw(self, DEPOSIT));
    for (bool again = true; again && !self->failed;) {
        raftz_error *error = NULL;
        raftz_reply reply = RAFTZ_REPLY_INIT;
        raftz_node *node = self->nodes->node[draw(self, NODES)];
        const raftz_status status = raftz_propose_wait(node, bytes, &opts, &reply, &error);
        again = false;
        if (status == RAFTZ_OK) {
            self->last = reply.index;
            self->done += !(reply.flags & RAFTZ_OUTCOME_REJECTED);
            self->rejected += (reply.flags & RAFTZ_OUTCOME_REJECTED) != 0;
        } else if (raftz_error_is_outcome_unknown(error)) {
            self->unknown++;
        } else if (raftz_error_is_retriable(error) && now_ms() < deadline) {
            self->refused++;
            again = true;
            pause_ms(10);
        } else {
            self->failed = !ok("transfer", status, &error);
        }
        raftz_bytes_free(reply.bytes);
        raftz_error_free(error);
    }
}

static void *teller_main(void *argument) {
    teller *self = argument;
    for (int n = 0; n < TRANSFERS && !self->failed; n++) {
        uint8_t state[STATE_BYTES];
        transfer(self);
        if (n % 10 == 0) {
            /* In the middle of everything, on whichever node and as old as it may be. */
            self->failed =
                !audit(self->nodes->node[draw(self, NODES)], 0, state) || self->failed;
        }
    }
    return NULL;
}

static bool run_tellers(const trio *nodes, teller *sum) {
    teller tellers[TELLERS];
    pthread_t threads[TELLERS];
    int running = 0;
    memset(tellers, 0, sizeof tellers);
    for (; running < TELLERS; running++) {
        tellers[running].nodes = nodes;
        tellers[running].random = 0x9e3779b97f4a7c15u * (uint64_t)(running + 1);
        if (pthread_create(&threads[running], NULL, teller_main, &tellers[running]) != 0) {
            fprintf(stderr, "no thread for teller %d\n", running);
            sum->failed = true;
            break;
        }
    }
    for (int at = 0; at < running; at++) {
        pthread_join(threads[at], NULL);
        sum->failed = sum->failed || tellers[at].failed;
        sum->done += tellers[at].done;
        sum->rejected += tellers[at].rejected;
        sum->refused += tellers[at].refused;
        sum->unknown += tellers[at].unknown;
        sum->last = tellers[at].last > sum->last ? tellers[at].last : sum->last;
    }
    printf("%d tellers: %" PRIu64 " transfers, %" PRIu64 " rejected, %" PRIu64
           " refused and tried again, %" PRIu64 " unknown\n",
           running, sum->done, sum->rejected, sum->refused, sum->unknown);
    return !sum->failed && sum->done > 0 && sum->rejected > 0 &&
           sum->done + sum->rejected + sum->unknown == TELLERS * TRANSFERS;
}

/* Whether the three nodes' accounts are equal, to the last coin. */
static bool check(const trio *nodes, uint64_t index) {
    uint8_t first[STATE_BYTES], state[STATE_BYTES];
    for (int at = 0; at < NODES; at++) {
        if (!audit(nodes->node[at], index, at == 0 ? first : state)) {
            return false;
        }
        if (at > 0 && memcmp(first, state, STATE_BYTES) != 0) {
            fprintf(stderr, "node %d's accounts differ from node 1's\n", at + 1);
            return false;
        }
    }
    printf("on all three nodes:");
    for (int at = 0; at < ACCOUNTS; at++) {
        printf(" %" PRIu64, get_number(&first[8 * at]));
    }
    printf(", in total %d\n", ACCOUNTS * DEPOSIT);
    return true;
}

/* An unknown transfer may still be on its way when the last known one is applied. One more that is
 * done stands behind all of them: of nothing, since what is drawn from zero is zero. */
static bool settle(const trio *nodes, uint64_t *index) {
    teller last = {.nodes = nodes};
    const uint64_t deadline = now_ms() + PATIENCE_MS;
    while (last.last == 0 && !last.failed && now_ms() < deadline) {
        transfer(&last);
    }
    *index = last.last;
    return last.last != 0 && !last.failed;
}

int main(void) {
    atomic_int banks = 0;
    raftz_machine machine = RAFTZ_MACHINE_INIT;
    machine.flags = RAFTZ_MACHINE_NEVER_BLOCKS;
    machine.user_data = &banks;
    machine.create = bank_create;
    machine.destroy = bank_destroy;
    machine.apply = bank_apply;
    machine.query = bank_query;
    machine.snapshot_begin = bank_snapshot_begin;
    machine.snapshot_read = bank_snapshot_read;
    machine.snapshot_end = bank_snapshot_end;
    machine.restore = bank_restore;

    trio nodes = {NULL, {NULL, NULL, NULL}};
    const trio_opts opts = {.machine = &machine};
    teller sum;
    memset(&sum, 0, sizeof sum);
    uint64_t index = 0;
    bool as_claimed = trio_start(&nodes, &opts) && run_tellers(&nodes, &sum) &&
                      settle(&nodes, &index) && check(&nodes, index);
    as_claimed = trio_stop(&nodes) && as_claimed;
    if (atomic_load(&banks) != 0) {
        fprintf(stderr, "%d banks were not destroyed\n", atomic_load(&banks));
        as_claimed = false;
    }
    return report("bank", as_claimed);
}
