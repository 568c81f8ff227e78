/*
 * A state machine of one's own in the simulator: a bank, and a bug that no ordinary test of it finds.
 *
 *     simulate                               PASS, exit status 0
 *     simulate --buggy                       what is wrong, and how to see it again; 1
 *     simulate --buggy --seed 1              one run, told line by line
 *         --until 250000 --skip 2-7          its faults end then, some of them never strike
 *
 * A state machine must be deterministic: the same commands in the same order give the same state on every node and
 * in every life of a node, for that is all that replicas share. --buggy plants the classic mistake: where two accounts
 * are equally rich, the bank takes the first that it comes upon in a hash table, and a hash table that salts itself has
 * another order in every process.
 *
 * The simulator runs a whole cluster of the library itself in this thread and in virtual time, with crashes,
 * partitions, slow and failing disks drawn from a seed. It compares the replicas' answers and states all the time.
 */
#define _GNU_SOURCE

#include "common.h"

enum {
    /* How many seeds are tried: each is another cluster, another workload, other faults. */
    SEEDS = 20,
    FAULTS_US = 5000000,
    /* Most runs of the search for a shorter one. */
    SHRINK_RUNS = 50,
    /* The first account is the bank's own. */
    ACCOUNTS = 6,
    DEPOSIT = 10
};

/* Commands: {TRANSFER, from, to, amount}, and {TAX}: the richest account pays 1 to the bank. */
enum { TRANSFER, TAX };

/* What all banks of this program share. */
typedef struct country {
    bool is_buggy;
    uint8_t alive;
    uint8_t lives;
} country;

/* The state, of which each node has one. In all there are 60 coins, so that a balance fits into a byte. */
typedef struct bank {
    uint8_t balance[ACCOUNTS];
    country *country;
    uint8_t salt;
} bank;

static raftz_status bank_create(void *user_data, raftz_sink *why, void **machine) {
    bank *self = malloc(sizeof *self);
    if (self == NULL) {
        raftz_sink_fail(why, raftz_text("no memory for a bank"));
        return RAFTZ_CALLBACK_FAILED;
    }
    self->country = user_data;
    /* A real salt would be random. This one differs between the lives of nodes too, but is the same when a run is
     * repeated: all banks of one run are gone before the first of the next is made. */
    if (self->country->alive++ == 0) {
        self->country->lives = 0;
    }
    self->salt = self->country->lives++;
    memset(self->balance, DEPOSIT, ACCOUNTS);
    *machine = self;
    return RAFTZ_OK;
}

static void bank_destroy(void *machine) {
    bank *self = machine;
    self->country->alive--;
    free(self);
}

static uint8_t bank_richest(const bank *self) {
    /* Right: in the order of the numbers, the first of several. Any rule will do that follows from the state alone.
     * THE BUG: each replica begins elsewhere, and taxes an account of its own choice. */
    const uint8_t first = self->country->is_buggy ? self->salt % ACCOUNTS : 0;
    uint8_t richest = first;
    for (uint8_t step = 1; step < ACCOUNTS; step++) {
        const uint8_t at = (uint8_t)((first + step) % ACCOUNTS);
        if (self->balance[at] > self->balance[richest]) {
            richest = at;
        }
    }
    return richest;
}

/* Looks before it takes: a transfer that is turned down has changed nothing. */
static raftz_status bank_transfer(bank *self, uint8_t from, uint8_t to, uint8_t amount,
                                  raftz_replies *replies) {
    if (from >= ACCOUNTS || to >= ACCOUNTS || self->balance[from] < amount) {
        return raftz_replies_reject(replies, raftz_text("no such account, or too little on it"));
    }
    self->balance[from] = (uint8_t)(self->balance[from] - amount);
    self->balance[to] = (uint8_t)(self->balance[to] + amount);
    const raftz_slice reply = {&self->balance[from], 1};
    return raftz_replies_push(replies, reply);
}

/* A command that makes no sense is turned down, alike on every node; it is no reason for a failure, which would stop
 * the replica. */
static raftz_status bank_apply(void *machine, const raftz_command *commands, size_t count,
                               raftz_replies *replies) {
    raftz_status status = RAFTZ_OK;
    for (size_t at = 0; at < count && status == RAFTZ_OK; at++) {
        const uint8_t *command = commands[at].data.data;
        if (commands[at].data.len == 4 && command[0] == TRANSFER) {
            status = bank_transfer(machine, command[1], command[2], command[3], replies);
        } else if (commands[at].data.len == 1 && command[0] == TAX) {
            status = bank_transfer(machine, bank_richest(machine), 0, 1, replies);
        } else {
            status = raftz_replies_reject(replies, raftz_text("no such command"));
        }
    }
    return status;
}

/* A state that stands still, and whether it has been read. The simulator compares what is read between replicas: what
 * is not in it is not compared. */
typedef struct frozen {
    uint8_t balance[ACCOUNTS];
    bool is_read;
} frozen;

static raftz_status bank_snapshot_begin(void *machine, raftz_sink *why, void **snapshot) {
    const bank *bank = machine;
    frozen *self = malloc(sizeof *self);
    if (self == NULL) {
        raftz_sink_fail(why, raftz_text("no memory for a snapshot"));
        return RAFTZ_CALLBACK_FAILED;
    }
    memcpy(self->balance, bank->balance, ACCOUNTS);
    self->is_read = false;
    *snapshot = self;
    return RAFTZ_OK;
}

/* All of it at once, then nothing, which is the end. */
static raftz_status bank_snapshot_read(void *snapshot, raftz_sink *piece) {
    frozen *self = snapshot;
    const raftz_slice balances = {self->balance, self->is_read ? 0 : ACCOUNTS};
    self->is_read = true;
    return raftz_sink_write(piece, balances);
}

static void bank_snapshot_end(void *snapshot) {
    free(snapshot);
}

static raftz_status bank_restore(void *machine, raftz_source *source, raftz_sink *why) {
    bank *self = machine;
    size_t total = 0, read = 1;
    while (total < ACCOUNTS && read > 0) {
        const raftz_status status =
            raftz_source_read(source, &self->balance[total], ACCOUNTS - total, &read);
        if (status != RAFTZ_OK) {
            return status;
        }
        total += read;
    }
    if (total < ACCOUNTS) {
        raftz_sink_fail(why, raftz_text("this snapshot is not of a bank"));
        return RAFTZ_CALLBACK_FAILED;
    }
    return RAFTZ_OK;
}

/* What a client asks for next. All that is random in it comes from the chooser, so that a seed repeats it. Numbers are
 * small: accounts run dry, so that transfers are turned down, and are often equally rich. */
static raftz_status draw(void *user_data, raftz_sim_chooser *chooser, raftz_sink *command) {
    (void)user_data;
    uint8_t bytes[4] = {TAX, 0, 0, 0};
    raftz_slice drawn = {bytes, 1};
    if (raftz_sim_chooser_below(chooser, 4) > 0) {
        bytes[0] = TRANSFER;
        bytes[1] = (uint8_t)raftz_sim_chooser_below(chooser, ACCOUNTS);
        bytes[2] = (uint8_t)raftz_sim_chooser_below(chooser, ACCOUNTS);
        bytes[3] = (uint8_t)raftz_sim_chooser_below(chooser, 5);
        drawn.len = 4;
    }
    return raftz_sink_write(command, drawn);
}

/* Messages that arrive are most of what there is to tell, and are left out. */
static void tell(void *user_data, raftz_slice line) {
    (void)user_data;
    if (memmem(line.data, line.len, " hears ", 7) == NULL) {
        printf("%.*s\n", (int)line.len, (const char *)line.data);
    }
}

static void say(const char *name, raftz_slice words) {
    printf("%s%.*s", name, (int)words.len, (const char *)words.data);
}

/* One run. The words of `info` live as long as `report`, to be freed with raftz_sim_report_free(). */
static bool run(country *home, uint64_t seed, const raftz_sim_opts *opts, raftz_sim_report **report,
                raftz_sim_report_info *info) {
    raftz_error *error = NULL;
    raftz_machine machine = RAFTZ_MACHINE_INIT;
    machine.user_data = home;
    machine.create = bank_create;
    machine.destroy = bank_destroy;
    machine.apply = bank_apply;
    machine.snapshot_begin = bank_snapshot_begin;
    machine.snapshot_read = bank_snapshot_read;
    machine.snapshot_end = bank_snapshot_end;
    machine.restore = bank_restore;
    return ok("simulate", raftz_sim_run(&machine, seed, opts, report, &error), &error) &&
           ok("report", raftz_sim_report_get(*report, info, &error), &error);
}

/* What was found, and whether it is found again. */
static void found(country *home, raftz_sim_opts opts, const raftz_sim_report_info *info) {
    raftz_sim_report *report = NULL;
    raftz_sim_report_info again = RAFTZ_SIM_REPORT_INFO_INIT;
    say("VIOLATION ", info->property);
    say(": ", info->sentence);
    printf("\nseed %" PRIu64 ", %" PRIu64 " ms of faults", info->seed,
           (info->duration_us + 999) / 1000);
    say(info->struck.len > 0 ? ": " : "", info->struck);
    printf("\nagain: simulate%s --seed %" PRIu64 " --until %" PRIu64, home->is_buggy ? " --buggy" : "",
           info->seed, info->duration_us);
    say(info->skip.len > 0 ? " --skip " : "", info->skip);
    printf("\n");
    opts.duration_us = info->duration_us;
    opts.skip = info->skip;
    opts.shrink_runs = 0;
    opts.tell = NULL;
    const bool is_same = run(home, info->seed, &opts, &report, &again) && again.is_violated &&
                         again.trace == info->trace && again.at_us == info->at_us;
    printf("%s, trace %016" PRIx64 "\n", is_same ? "the same again" : "NOT the same again", again.trace);
    raftz_sim_report_free(report);
}

int main(int count, char **arguments) {
    country home = {false, 0, 0};
    uint64_t first = 1, seeds = SEEDS, faults = 0, committed = 0;
    raftz_sim_opts opts = RAFTZ_SIM_OPTS_INIT;
    opts.duration_us = FAULTS_US;
    opts.shrink_runs = SHRINK_RUNS;
    opts.workload = draw;
    for (int at = 1; at < count; at++) {
        const char *next = at + 1 < count ? arguments[at + 1] : "";
        if (strcmp(arguments[at], "--buggy") == 0) {
            home.is_buggy = true;
            continue;
        } else if (strcmp(arguments[at], "--seed") == 0) {
            first = strtoull(next, NULL, 10);
            seeds = 1;
            opts.shrink_runs = 0;
            opts.tell = tell;
        } else if (strcmp(arguments[at], "--until") == 0) {
            opts.duration_us = strtoull(next, NULL, 10);
        } else if (strcmp(arguments[at], "--skip") == 0) {
            opts.skip = raftz_text(next);
        } else {
            fprintf(stderr, "usage: simulate [--buggy] [--seed N [--until US] [--skip N,N-N]]\n");
            return EXIT_FAILURE;
        }
        at++;
    }
    for (uint64_t seed = first; seed - first < seeds; seed++) {
        raftz_sim_report *report = NULL;
        raftz_sim_report_info info = RAFTZ_SIM_REPORT_INFO_INIT;
        bool is_sound = run(&home, seed, &opts, &report, &info);
        if (is_sound && info.is_violated) {
            found(&home, opts, &info);
            is_sound = false;
        }
        raftz_sim_report_free(report);
        if (!is_sound) {
            return EXIT_FAILURE;
        }
        faults += info.faults;
        committed += info.committed;
    }
    if (home.alive != 0) {
        fprintf(stderr, "%d banks were not destroyed\n", home.alive);
        return EXIT_FAILURE;
    }
    printf("PASS %" PRIu64 " seeds, %" PRIu64 " faults, %" PRIu64 " entries committed\n", seeds, faults,
           committed);
    return EXIT_SUCCESS;
}
