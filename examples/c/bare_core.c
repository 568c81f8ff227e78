/*
 * The algorithm alone: three cores in one loop of one thread, with virtual time.
 *
 * A core does nothing by itself. The program tells it what happened and carries out what it wants
 * done: here a disk is an array, the network a queue, and a clock a number that jumps to the next
 * deadline. Nothing sleeps and nothing waits, so that ten seconds of a cluster pass in no time.
 *
 * The three elect a leader and write. The leader is cut off and goes on writing, in vain; another
 * takes over; they meet again. One loses everything but its disk and begins anew from that. In the
 * end all have applied the same commands, in the same order, and no thread was ever made.
 */
#define _GNU_SOURCE

#include <dirent.h>

#include "common.h"

enum { ENTRIES_MAX = 256, MAIL_MAX = 256, LINES_MAX = 256, TODO_MAX = 64, WRITES = 50 };

/* Bytes that a program keeps. */
typedef struct blob {
    uint8_t *data;
    size_t len;
} blob;

static void blob_set(blob *self, raftz_slice from) {
    uint8_t *data = malloc(from.len + 1);
    if (data == NULL) {
        abort();
    }
    if (from.len > 0) {
        memcpy(data, from.data, from.len);
    }
    free(self->data);
    *self = (blob){data, from.len};
}

static raftz_slice blob_slice(const blob *self) {
    return (raftz_slice){self->data, self->len};
}

/* What outlives a core: the record of the last write, and all entries. */
typedef struct disk {
    blob record, entries[ENTRIES_MAX];
    uint64_t indexes[ENTRIES_MAX];
    size_t count;
} disk;

typedef struct member {
    uint64_t id;
    raftz_core *core;
    disk disk;
    /* The machine: the commands in the order in which they were applied. */
    uint64_t lines[LINES_MAX];
    size_t line_count;
    /* What the core is still to be told, in order. */
    raftz_core_input todo[TODO_MAX];
    size_t todo_count;
    bool is_cut_off, has_failed;
} member;

typedef struct mail {
    uint64_t from, to;
    blob message;
} mail;

typedef struct cluster {
    member members[NODES];
    mail mail[MAIL_MAX];
    size_t mail_count;
    uint64_t now_us;
    /* Commands that a leader took into its log. */
    uint64_t accepted;
} cluster;

/* ---- the disk: an array that never fails, and is as durable as this program ---- */

/* False if it has no room. */
static bool disk_write(disk *self, const raftz_log_write *write) {
    size_t left = 0;
    for (size_t at = 0; at < self->count; at++) {
        const uint64_t index = self->indexes[at];
        if ((write->remove_from > 0 && index >= write->remove_from) || index <= write->remove_upto) {
            free(self->entries[at].data);
        } else {
            self->entries[left] = self->entries[at];
            self->indexes[left++] = index;
        }
    }
    self->count = left;
    if (left + write->entry_count > ENTRIES_MAX) {
        return false;
    }
    for (size_t at = 0; at < write->entry_count; at++) {
        self->entries[left] = (blob){NULL, 0};
        blob_set(&self->entries[left], write->entries[at].bytes);
        self->indexes[left++] = write->entries[at].index;
    }
    self->count = left;
    blob_set(&self->record, write->record);
    return true;
}

static void disk_free(disk *self) {
    for (size_t at = 0; at < self->count; at++) {
        free(self->entries[at].data);
    }
    free(self->record.data);
}

/* ---- carrying out ---- */

static raftz_core_input *later(member *self, uint32_t kind) {
    if (self->todo_count == TODO_MAX) {
        self->has_failed = true;
        self->todo_count--;
    }
    raftz_core_input *input = &self->todo[self->todo_count++];
    *input = (raftz_core_input)RAFTZ_CORE_INPUT_INIT;
    input->kind = kind;
    return input;
}

static void say(const cluster *all, const member *self, const char *what) {
    printf("%6.3f s: node %" PRIu64 " %s\n", (double)all->now_us / 1e6, self->id, what);
}

/* What is told again is kept until after the step: a core is not told anything in the middle of one. */
static void carry_out(cluster *all, member *self, const raftz_core_action *action) {
    switch (action->kind) {
    case RAFTZ_ACTION_PERSIST: {
        /* In a program with a disk of its own: write, fdatasync, and tell the core when that is done. */
        const raftz_action_persist *persist = &action->with.persist;
        if (disk_write(&self->disk, persist->write)) {
            later(self, RAFTZ_INPUT_PERSISTED)->with.persisted =
                (raftz_input_persisted){persist->boot, persist->number};
        } else {
            later(self, RAFTZ_INPUT_PERSIST_FAILED)->with.reason = raftz_text("the disk is full");
        }
        break;
    }
    case RAFTZ_ACTION_SEND:
        /* What does not fit is lost, as on any network. */
        if (!self->is_cut_off && all->mail_count < MAIL_MAX) {
            mail *letter = &all->mail[all->mail_count++];
            *letter = (mail){self->id, action->with.send.to, {NULL, 0}};
            blob_set(&letter->message, action->with.send.message);
        }
        break;
    case RAFTZ_ACTION_APPLY: {
        const raftz_action_apply *apply = &action->with.apply;
        for (size_t at = 0; at < apply->command_count && self->line_count < LINES_MAX; at++) {
            const raftz_slice command = apply->commands[at].data;
            memcpy(&self->lines[self->line_count++], command.data, sizeof(uint64_t));
        }
        later(self, RAFTZ_INPUT_APPLIED)->with.index = apply->last;
        break;
    }
    case RAFTZ_ACTION_READ_ENTRIES: {
        const raftz_action_read_entries *read = &action->with.read_entries;
        raftz_slice *found = calloc(ENTRIES_MAX, sizeof *found);
        if (found == NULL) {
            abort();
        }
        size_t count = 0;
        for (size_t at = 0; at < self->disk.count; at++) {
            const uint64_t index = self->disk.indexes[at];
            if (read->first <= index && index <= read->last) {
                found[count++] = blob_slice(&self->disk.entries[at]);
            }
        }
        later(self, RAFTZ_INPUT_ENTRIES_READ)->with.entries_read =
            (raftz_input_entries_read){read->request, RAFTZ_OK, 0, found, count, {NULL, 0}};
        break;
    }
    case RAFTZ_ACTION_ACCEPTED:
        all->accepted += action->with.accepted.token_count;
        break;
    case RAFTZ_ACTION_EVENT:
        if (action->with.event->kind == RAFTZ_EVENT_READY) {
            say(all, self, "leads");
        }
        break;
    case RAFTZ_ACTION_HALT:
        fprintf(stderr, "node %" PRIu64 ": %.*s\n", self->id, (int)action->with.reason.len,
                (const char *)action->with.reason.data);
        self->has_failed = true;
        break;
    default:
        /* Answers to what this program does not ask, and what belongs to snapshots, which it does not take. */
        break;
    }
}

static void carry_out_all(cluster *all, member *self, const raftz_core_action *actions,
                          size_t count) {
    for (size_t at = 0; at < count; at++) {
        carry_out(all, self, &actions[at]);
    }
}

static void step_once(cluster *all, member *self, const raftz_core_input *input) {
    raftz_error *error = NULL;
    const raftz_core_action *actions = NULL;
    size_t count = 0;
    if (ok("step",
           raftz_core_step(self->core, all->now_us, all->now_us, input, &actions, &count, &error),
           &error)) {
        carry_out_all(all, self, actions, count);
    } else {
        self->has_failed = true;
    }
}

/* Tells a core something, and whatever comes of carrying that out. */
static void step(cluster *all, member *self, const raftz_core_input *input) {
    step_once(all, self, input);
    for (size_t at = 0; at < self->todo_count; at++) {
        const raftz_core_input next = self->todo[at];
        step_once(all, self, &next);
        if (next.kind == RAFTZ_INPUT_ENTRIES_READ) {
            free((void *)next.with.entries_read.entries);
        }
    }
    self->todo_count = 0;
}

/* ---- lives ---- */

/* Begins with what the disk holds; a founder begins with an empty one, once in the life of a cluster. */
static bool start(cluster *all, member *self, bool founds) {
    raftz_error *error = NULL;
    raftz_config *config = NULL;
    raftz_core_opts opts = RAFTZ_CORE_OPTS_INIT;
    raftz_slice entries[ENTRIES_MAX];
    const raftz_core_action *actions = NULL;
    size_t count = 0;
    for (size_t at = 0; at < self->disk.count; at++) {
        entries[at] = blob_slice(&self->disk.entries[at]);
    }
    opts.flags = founds ? RAFTZ_CORE_FOUNDS : 0;
    opts.record = blob_slice(&self->disk.record);
    opts.entries = entries;
    opts.entry_count = self->disk.count;
    bool started = ok("config", raftz_config_new(self->id, "ba5e", &config, &error), &error) &&
                   ok("seed", raftz_config_set_number(config, "seed", self->id, &error), &error);
    for (uint64_t id = 1; started && id <= NODES; id++) {
        char address[32];
        snprintf(address, sizeof address, "node-%d:7001", (int)id);
        started = ok("founder", raftz_config_add_founder(config, id, address, &error), &error);
    }
    started = started && ok("core",
                            raftz_core_new(config, &opts, all->now_us, all->now_us, &self->core,
                                           &actions, &count, &error),
                            &error);
    raftz_config_free(config);
    if (started) {
        /* The machine is in memory: it is made again from the log. */
        self->line_count = 0;
        carry_out_all(all, self, actions, count);
        const raftz_core_input first = self->todo[0];
        self->todo_count = 0;
        step(all, self, &first);
    }
    return started;
}

static raftz_core_info info_of(const member *self) {
    raftz_core_info info = RAFTZ_CORE_INFO_INIT;
    raftz_error *error = NULL;
    ok("status", raftz_core_status(self->core, &info, &error), &error);
    return info;
}

/* ---- time: from one event to the next, without waiting ---- */

static void deliver_all(cluster *all) {
    while (all->mail_count > 0) {
        mail letter = all->mail[0];
        memmove(all->mail, all->mail + 1, --all->mail_count * sizeof letter);
        member *to = &all->members[letter.to - 1];
        if (!to->is_cut_off) {
            raftz_core_input input = RAFTZ_CORE_INPUT_INIT;
            input.kind = RAFTZ_INPUT_RECEIVE;
            input.with.receive = (raftz_input_receive){letter.from, blob_slice(&letter.message)};
            step(all, to, &input);
        }
        free(letter.message.data);
    }
}

static uint64_t deadline_of(const member *self) {
    raftz_error *error = NULL;
    uint64_t deadline_us = UINT64_MAX;
    ok("deadline", raftz_core_next_deadline(self->core, &deadline_us, &error), &error);
    return deadline_us;
}

static void run_for(cluster *all, uint64_t us) {
    const uint64_t end_us = all->now_us + us;
    for (;;) {
        deliver_all(all);
        uint64_t next_us = UINT64_MAX;
        for (int at = 0; at < NODES; at++) {
            const uint64_t deadline_us = deadline_of(&all->members[at]);
            next_us = deadline_us < next_us ? deadline_us : next_us;
        }
        if (next_us > end_us) {
            all->now_us = end_us;
            return;
        }
        all->now_us = next_us > all->now_us ? next_us : all->now_us;
        for (int at = 0; at < NODES; at++) {
            if (deadline_of(&all->members[at]) <= all->now_us) {
                const raftz_core_input tick = RAFTZ_CORE_INPUT_INIT;
                step(all, &all->members[at], &tick);
            }
        }
    }
}

/* The leader of the highest term; a leader that is cut off believes in itself for a while. */
static member *leader_of(cluster *all) {
    member *leader = NULL;
    uint64_t term = 0;
    for (int at = 0; at < NODES; at++) {
        const raftz_core_info info = info_of(&all->members[at]);
        if (info.is_ready && info.term > term) {
            leader = &all->members[at];
            term = info.term;
        }
    }
    return leader;
}

static void propose(cluster *all, member *self, uint64_t from, uint64_t count) {
    for (uint64_t number = from; number < from + count; number++) {
        const raftz_proposal proposal = {number, {(const uint8_t *)&number, sizeof number}};
        raftz_core_input input = RAFTZ_CORE_INPUT_INIT;
        input.kind = RAFTZ_INPUT_PROPOSE;
        input.with.propose = (raftz_input_propose){&proposal, 1};
        step(all, self, &input);
    }
}

/* ---- the claims ---- */

static bool claim(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "not so: %s\n", what);
    }
    return holds;
}

static int threads(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) {
        perror("/proc/self/task");
        return 0;
    }
    for (struct dirent *it = readdir(tasks); it != NULL; it = readdir(tasks)) {
        count += it->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

static bool are_equal(const cluster *all, size_t lines) {
    const member *first = &all->members[0];
    bool equal = claim(first->line_count == lines, "as many commands as were acknowledged");
    for (int at = 1; at < NODES; at++) {
        const member *other = &all->members[at];
        equal = claim(other->line_count == first->line_count &&
                          memcmp(other->lines, first->lines, lines * sizeof *first->lines) == 0,
                      "all applied the same, in the same order") &&
                equal;
    }
    return equal;
}

static bool play(cluster *all) {
    run_for(all, 2000000);
    member *old = leader_of(all);
    if (!claim(old != NULL, "somebody leads")) {
        return false;
    }
    propose(all, old, 1, WRITES);
    run_for(all, 100000);
    if (!are_equal(all, WRITES)) {
        return false;
    }

    say(all, old, "is cut off, and goes on writing");
    old->is_cut_off = true;
    propose(all, old, 1001, WRITES);
    run_for(all, 2000000);
    member *new = leader_of(all);
    if (!claim(new != NULL && new != old, "another takes over") ||
        !claim(all->accepted == 2 * WRITES && old->line_count == WRITES, "in vain, so far")) {
        return false;
    }
    propose(all, new, 101, WRITES);
    run_for(all, 100000);

    say(all, old, "meets the others again");
    old->is_cut_off = false;
    run_for(all, 1000000);
    if (!are_equal(all, 2 * WRITES)) {
        return false;
    }

    member *again = &all->members[new->id % NODES];
    say(all, again, "loses all but its disk, and begins anew");
    const raftz_core_info before = info_of(again);
    raftz_core_free(again->core);
    again->core = NULL;
    if (!start(all, again, false)) {
        return false;
    }
    const raftz_core_info after = info_of(again);
    if (!claim(after.term == before.term && after.vote == before.vote, "it knows its vote") ||
        !claim(after.last_index == before.last_index, "and its log")) {
        return false;
    }
    member *leader = leader_of(all);
    propose(all, leader != NULL ? leader : again, 201, WRITES);
    run_for(all, 1000000);
    return are_equal(all, 3 * WRITES) && claim(threads() == 1, "no thread was made");
}

int main(void) {
    static cluster all = {.now_us = 1000000};
    bool as_claimed = true;
    for (int at = 0; as_claimed && at < NODES; at++) {
        all.members[at].id = (uint64_t)at + 1;
        as_claimed = start(&all, &all.members[at], true);
    }
    as_claimed = as_claimed && play(&all);
    for (int at = 0; at < NODES; at++) {
        as_claimed = !all.members[at].has_failed && as_claimed;
        raftz_core_free(all.members[at].core);
        disk_free(&all.members[at].disk);
    }
    while (all.mail_count > 0) {
        free(all.mail[--all.mail_count].message.data);
    }
    if (as_claimed) {
        printf("PASS: %d commands on each of %d cores, in one thread\n", 3 * WRITES, NODES);
    }
    return report("bare_core", as_claimed);
}
