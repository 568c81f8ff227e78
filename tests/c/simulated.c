/*
 * A C program's machine in the simulator: each planted bug is found and said, a sound machine is not accused, a report
 * is the same whenever it is asked for, and nothing is made but machines, which all end.
 *
 *     simulated [short]
 */
#include "check.h"

#include <dirent.h>

enum flaw {
    SOUND,
    /* Bugs. */
    STATE_OF_ITS_OWN,
    FORGETFUL_SNAPSHOT,
    ANSWER_OF_ITS_OWN,
    LOSES_COUNT,
    /* Callbacks that fail. */
    FAILS_CREATE,
    FAILS_APPLY,
    FAILS_BEGIN,
    FAILS_READ,
    FAILS_RESTORE,
    FAILS_WORKLOAD,
    WRITES_TOO_MUCH
};

/* What all machines of a test share. */
struct host {
    enum flaw flaw;
    uint64_t alive, lives, most_alive, created, destroyed;
    uint64_t begun, ended, restored, applied, drawn;
    /* Of the lines that were told: how many, and a hash. */
    uint64_t lines, told;
    /* Calls of raftz from within, and what the process holds. */
    bool looks_around;
    unsigned threads, files;
};

enum { SLOTS = 4, STATE_WORDS = SLOTS + 1 };

struct machine {
    struct host *host;
    uint64_t life;
    uint64_t slots[SLOTS];
    uint64_t commands;
};

struct frozen {
    struct host *host;
    uint64_t words[STATE_WORDS];
    size_t read;
};

static raftz_machine table_of(struct host *host);

static unsigned entries(const char *path) {
    unsigned count = 0;
    DIR *folder = opendir(path);
    CHECK(folder != NULL);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

/* Inside a callback of any kind: what would wait is refused, and no thread or descriptor has come to be. */
static void look_around(struct host *host) {
    if (!host->looks_around) {
        return;
    }
    raftz_machine machine = table_of(host);
    raftz_sim_report *report = NULL;
    raftz_error *error = NULL;
    CHECK(raftz_sim_run(&machine, 1, NULL, &report, &error) == RAFTZ_IN_CALLBACK && report == NULL);
    CHECK(strstr(raftz_error_message(error), "a simulation") != NULL);
    raftz_error_free(error);
    CHECK(entries("/proc/self/task") == host->threads && entries("/proc/self/fd") == host->files);
}

static raftz_status create(void *user_data, raftz_sink *why, void **made) {
    struct host *host = user_data;
    look_around(host);
    if (host->alive == 0) {
        host->lives = 0;
    }
    if (host->flaw == FAILS_CREATE && host->lives == 2) {
        raftz_sink_fail(why, raftz_text("the mould is broken"));
        return RAFTZ_CALLBACK_FAILED;
    }
    struct machine *machine = calloc(1, sizeof *machine);
    CHECK(machine != NULL);
    machine->host = host;
    machine->life = host->lives++;
    host->created++;
    host->alive++;
    host->most_alive = host->alive > host->most_alive ? host->alive : host->most_alive;
    *made = machine;
    return RAFTZ_OK;
}

static void destroy(void *self) {
    struct machine *machine = self;
    look_around(machine->host);
    machine->host->destroyed++;
    machine->host->alive--;
    free(machine);
}

/* {slot, amount}; any other is turned down. */
static raftz_status apply_one(struct machine *machine, raftz_slice command, raftz_replies *replies) {
    enum flaw flaw = machine->host->flaw;
    if (command.len != 2 || command.data[0] >= SLOTS) {
        return raftz_replies_reject(replies, raftz_text("this is not for me"));
    }
    size_t slot = command.data[0];
    if (flaw == STATE_OF_ITS_OWN && slot == 3) {
        slot = machine->life % SLOTS;
    }
    machine->slots[slot] += command.data[1];
    machine->commands++;
    if (flaw == FAILS_APPLY && machine->commands > 20) {
        raftz_replies_fail(replies, raftz_text("the ink is dry"));
        return RAFTZ_CALLBACK_FAILED;
    }
    if (flaw == LOSES_COUNT && machine->commands > 20) {
        return RAFTZ_OK;
    }
    uint64_t number = machine->commands;
    if (flaw == ANSWER_OF_ITS_OWN && machine->commands > 20) {
        number += machine->life;
    }
    const raftz_slice reply = {(const uint8_t *)&number, sizeof number};
    return raftz_replies_push(replies, reply);
}

static raftz_status apply(void *self, const raftz_command *commands, size_t count,
                          raftz_replies *replies) {
    struct machine *machine = self;
    look_around(machine->host);
    for (size_t at = 0; at < count; at++) {
        raftz_status status = apply_one(machine, commands[at].data, replies);
        if (status != RAFTZ_OK) {
            return status;
        }
        machine->host->applied++;
    }
    return RAFTZ_OK;
}

static raftz_status query(void *self, raftz_slice request, raftz_sink *reply) {
    (void)self, (void)request, (void)reply;
    failed(__FILE__, __LINE__, "a simulation asks nothing");
}

static raftz_status applied_index(void *self, raftz_sink *why, uint64_t *index) {
    (void)self, (void)why, (void)index;
    failed(__FILE__, __LINE__, "a simulation keeps what persists itself");
}

static raftz_status begin(void *self, raftz_sink *why, void **snapshot) {
    struct machine *machine = self;
    look_around(machine->host);
    if (machine->host->flaw == FAILS_BEGIN && machine->commands > 0) {
        raftz_sink_fail(why, raftz_text("nobody holds still"));
        return RAFTZ_CALLBACK_FAILED;
    }
    struct frozen *frozen = calloc(1, sizeof *frozen);
    CHECK(frozen != NULL);
    frozen->host = machine->host;
    memcpy(frozen->words, machine->slots, sizeof machine->slots);
    frozen->words[SLOTS] = machine->commands;
    machine->host->begun++;
    *snapshot = frozen;
    return RAFTZ_OK;
}

static raftz_status read_piece(void *snapshot, raftz_sink *piece) {
    struct frozen *frozen = snapshot;
    look_around(frozen->host);
    if (frozen->host->flaw == FAILS_READ && frozen->words[SLOTS] > 0) {
        raftz_sink_fail(piece, raftz_text("the film is torn"));
        return RAFTZ_CALLBACK_FAILED;
    }
    size_t words = frozen->host->flaw == FORGETFUL_SNAPSHOT ? SLOTS : STATE_WORDS;
    if (frozen->read == words) {
        return RAFTZ_OK;
    }
    const raftz_slice word = {(const uint8_t *)&frozen->words[frozen->read++], 8};
    return raftz_sink_write(piece, word);
}

static void end(void *snapshot) {
    struct frozen *frozen = snapshot;
    look_around(frozen->host);
    frozen->host->ended++;
    free(frozen);
}

static raftz_status restore(void *self, raftz_source *source, raftz_sink *why) {
    struct machine *machine = self;
    uint8_t state[8 * STATE_WORDS] = {0};
    size_t total = 0, read = 1;
    look_around(machine->host);
    machine->host->restored++;
    if (machine->host->flaw == FAILS_RESTORE) {
        raftz_sink_fail(why, raftz_text("the frame is bent"));
        return RAFTZ_CALLBACK_FAILED;
    }
    while (read > 0 && total < sizeof state) {
        /* The disk under it may rot. */
        raftz_status status = raftz_source_read(source, &state[total], sizeof state - total, &read);
        if (status != RAFTZ_OK) {
            CHECK(status == RAFTZ_STORAGE);
            return status;
        }
        total += read;
    }
    memcpy(machine->slots, state, sizeof machine->slots);
    memcpy(&machine->commands, &state[8 * SLOTS], 8);
    return RAFTZ_OK;
}

static raftz_machine table_of(struct host *host) {
    raftz_machine table = RAFTZ_MACHINE_INIT;
    table.user_data = host;
    table.create = create;
    table.destroy = destroy;
    table.apply = apply;
    table.query = query;
    table.snapshot_begin = begin;
    table.snapshot_read = read_piece;
    table.snapshot_end = end;
    table.restore = restore;
    table.applied_index = applied_index;
    return table;
}

static raftz_status draw(void *user_data, raftz_sim_chooser *chooser, raftz_sink *command) {
    struct host *host = user_data;
    look_around(host);
    host->drawn++;
    if (host->flaw == FAILS_WORKLOAD && host->drawn == 30) {
        raftz_sink_fail(command, raftz_text("nobody has a wish"));
        return RAFTZ_CALLBACK_FAILED;
    }
    CHECK(host->flaw != FAILS_WORKLOAD || host->drawn < 30);
    uint8_t bytes[RAFTZ_SIM_COMMAND_BYTES_MAX + 1] = {0};
    raftz_slice drawn = {bytes, 2};
    if (host->flaw == WRITES_TOO_MUCH && host->drawn == 30) {
        drawn.len = sizeof bytes;
    } else if (raftz_sim_chooser_below(chooser, 10) == 0) {
        drawn.len = RAFTZ_SIM_COMMAND_BYTES_MAX;
    }
    CHECK(raftz_sim_chooser_below(chooser, 0) == 0 && raftz_sim_chooser_below(chooser, 1) == 0);
    OK(raftz_sim_chooser_fill(chooser, bytes, 2));
    bytes[0] = (uint8_t)raftz_sim_chooser_below(chooser, SLOTS + 1);
    return raftz_sink_write(command, drawn);
}

static void tell(void *user_data, raftz_slice line) {
    struct host *host = user_data;
    look_around(host);
    host->lines++;
    for (size_t at = 0; at < line.len; at++) {
        host->told = host->told * 31 + line.data[at];
    }
}

static raftz_sim_opts opts_of(struct host *host) {
    raftz_sim_opts opts = RAFTZ_SIM_OPTS_INIT;
    opts.duration_us = 5000000;
    opts.user_data = host;
    opts.workload = draw;
    return opts;
}

/* Everything that was made has ended. */
static void check_end(const struct host *host) {
    CHECK(host->alive == 0 && host->created == host->destroyed);
    CHECK(host->begun == host->ended);
}

static raftz_sim_report *run(struct host *host, uint64_t seed, const raftz_sim_opts *opts,
                             raftz_sim_report_info *info) {
    raftz_machine machine = table_of(host);
    raftz_sim_report *report = NULL;
    *info = (raftz_sim_report_info)RAFTZ_SIM_REPORT_INFO_INIT;
    OK(raftz_sim_run(&machine, seed, opts, &report, &failure));
    OK(raftz_sim_report_get(report, info, &failure));
    check_end(host);
    return report;
}

static bool alike(raftz_slice one, raftz_slice two) {
    return one.len == two.len && (one.len == 0 || memcmp(one.data, two.data, one.len) == 0);
}

static void check_same(const raftz_sim_report_info *one, const raftz_sim_report_info *two) {
    CHECK(one->is_violated == two->is_violated && one->at_us == two->at_us);
    CHECK(alike(one->property, two->property) && alike(one->sentence, two->sentence));
    CHECK(one->seed == two->seed && one->duration_us == two->duration_us);
    CHECK(alike(one->skip, two->skip) && alike(one->struck, two->struck));
    CHECK(one->trace == two->trace && one->virtual_us == two->virtual_us);
    CHECK(one->events == two->events && one->faults == two->faults);
    CHECK(one->committed == two->committed && one->calls == two->calls);
    CHECK(one->calls_done == two->calls_done && one->calls_refused == two->calls_refused);
    CHECK(one->calls_unknown == two->calls_unknown);
}

/* Nothing is wrong with a sound machine, whatever happens; the same is said when it is asked for again. */
static void sound(uint64_t seeds) {
    uint64_t faults = 0, committed = 0, done = 0, restored = 0, most_alive = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct host host = {.flaw = SOUND};
        raftz_sim_opts opts = opts_of(&host);
        raftz_sim_report_info info, again;
        raftz_sim_report *report = run(&host, seed, &opts, &info);
        if (info.is_violated) {
            fprintf(stderr, "seed %d: %.*s\n", (int)seed, (int)info.sentence.len, info.sentence.data);
        }
        CHECK(!info.is_violated && info.property.len == 0 && info.sentence.len == 0);
        CHECK(info.seed == seed && info.duration_us == 5000000 && info.skip.len == 0);
        CHECK(info.events > 0 && info.virtual_us >= info.duration_us);
        CHECK(info.calls == host.drawn);
        faults += info.faults;
        committed += info.committed;
        done += info.calls_done;
        restored += host.restored;
        most_alive = host.most_alive > most_alive ? host.most_alive : most_alive;
        if (seed <= 3) {
            struct host other = {.flaw = SOUND};
            opts = opts_of(&other);
            opts.tell = tell;
            raftz_sim_report *second = run(&other, seed, &opts, &again);
            check_same(&info, &again);
            CHECK(other.created == host.created && other.applied == host.applied && other.lines > 10);
            raftz_sim_report_free(second);
            uint64_t told = other.told;
            other.told = 0;
            second = run(&other, seed, &opts, &again);
            CHECK(other.told == told);
            raftz_sim_report_free(second);
        }
        raftz_sim_report_free(report);
    }
    CHECK(faults > seeds && committed > 10 * seeds && done > seeds && restored > 0);
    CHECK(most_alive > 3);
}

/* A bug is found within some seeds, under this property, and said in these words; its run is made shorter, and the
 * shorter one is had again from what the report says. */
static void finds(enum flaw flaw, uint64_t shrink_runs, const char *property, const char *words) {
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct host host = {.flaw = flaw};
        raftz_sim_opts opts = opts_of(&host);
        raftz_sim_report_info info, shorter, again;
        raftz_sim_report *report = run(&host, seed, &opts, &info);
        bool is_violated = info.is_violated;
        raftz_sim_report_free(report);
        if (!is_violated) {
            continue;
        }
        opts.shrink_runs = shrink_runs;
        report = run(&host, seed, &opts, &shorter);
        if (!has(shorter.property, property) || !has(shorter.sentence, words)) {
            fprintf(stderr, "flaw %d, seed %d: %.*s: %.*s\n", (int)flaw, (int)seed,
                    (int)shorter.property.len, shorter.property.data, (int)shorter.sentence.len,
                    shorter.sentence.data);
            _exit(1);
        }
        CHECK(shorter.is_violated && shorter.seed == seed && shorter.duration_us < info.duration_us);
        opts.shrink_runs = 0;
        opts.duration_us = shorter.duration_us;
        opts.skip = shorter.skip;
        raftz_sim_report *second = run(&host, seed, &opts, &again);
        check_same(&shorter, &again);
        raftz_sim_report_free(second);
        raftz_sim_report_free(report);
        return;
    }
    fprintf(stderr, "flaw %d was not found\n", (int)flaw);
    _exit(1);
}

/* What makes a run worthless is a status with words, and no report. */
static void fails(enum flaw flaw, raftz_status wanted, const char *words) {
    struct host host = {.flaw = flaw};
    raftz_machine machine = table_of(&host);
    raftz_sim_opts opts = opts_of(&host);
    raftz_sim_report *report = NULL;
    raftz_status status = raftz_sim_run(&machine, 1, &opts, &report, &failure);
    if (strstr(raftz_error_message(failure), words) == NULL) {
        fprintf(stderr, "flaw %d: %s\n", (int)flaw, raftz_error_message(failure));
        _exit(1);
    }
    CHECK(report == NULL);
    WANT(wanted, status);
    check_end(&host);
}

/* In callbacks nothing may wait, and outside of them nothing was made. */
static void quiet(void) {
    struct host host = {.flaw = SOUND, .looks_around = true};
    raftz_sim_opts opts = opts_of(&host);
    raftz_sim_report_info info;
    opts.tell = tell;
    host.threads = entries("/proc/self/task");
    host.files = entries("/proc/self/fd");
    for (uint64_t seed = 1; seed <= 3; seed++) {
        raftz_sim_report_free(run(&host, seed, &opts, &info));
        CHECK(!info.is_violated);
    }
    CHECK(host.begun > 0 && host.restored > 0 && host.applied > 0 && host.lines > 0);
}

/* The plainest machine of all, with what is drawn for it. */
static void plain(void) {
    struct host host = {.flaw = SOUND};
    raftz_machine machine = RAFTZ_MACHINE_INIT;
    raftz_sim_report *report = NULL;
    raftz_sim_report_info info = RAFTZ_SIM_REPORT_INFO_INIT;
    machine.user_data = &host;
    machine.create = create;
    machine.destroy = destroy;
    machine.apply = apply;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        OK(raftz_sim_run(&machine, seed, NULL, &report, &failure));
        OK(raftz_sim_report_get(report, &info, &failure));
        CHECK(!info.is_violated && info.committed > 0 && info.duration_us == 60000000);
        CHECK(host.begun == 0 && host.restored == 0);
        raftz_sim_report_free(report);
        check_end(&host);
    }
    /* And without snapshots a wrong answer is found all the same. */
    raftz_sim_opts opts = opts_of(&host);
    host.flaw = ANSWER_OF_ITS_OWN;
    OK(raftz_sim_run(&machine, 1, &opts, &report, &failure));
    OK(raftz_sim_report_get(report, &info, &failure));
    CHECK(same(info.property, "machines agree"));
    raftz_sim_report_free(report);
    check_end(&host);
}

/* Faults by kind and by number are left out. */
static void leaves_out(void) {
    struct host host = {.flaw = SOUND};
    raftz_sim_opts opts = opts_of(&host);
    raftz_sim_report_info info, calm;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        raftz_sim_report *report = run(&host, seed, &opts, &info);
        CHECK(info.faults > 0 && info.struck.len > 0);
        opts.without = info.struck;
        raftz_sim_report *other = run(&host, seed, &opts, &calm);
        CHECK(!alike(info.struck, calm.struck) && calm.trace != info.trace);
        raftz_sim_report_free(other);
        opts.without.len = 0;
        opts.skip = raftz_text("1-1000000");
        other = run(&host, seed, &opts, &calm);
        CHECK(calm.faults == 0 && same(calm.skip, "1-1000000"));
        raftz_sim_report_free(other);
        opts.skip.len = 0;
        raftz_sim_report_free(report);
    }
}

static void refused(raftz_status wanted, const raftz_machine *machine, const raftz_sim_opts *opts,
                    const char *words) {
    raftz_sim_report *report = NULL;
    raftz_status status = raftz_sim_run(machine, 1, opts, &report, &failure);
    if (strstr(raftz_error_message(failure), words) == NULL) {
        fprintf(stderr, "\"%s\", not \"%s\"\n", raftz_error_message(failure), words);
        _exit(1);
    }
    CHECK(report == NULL);
    WANT(wanted, status);
}

/* What makes no sense is refused before anything is made, with words that name it. */
static void bad_input(void) {
    struct host host = {.flaw = SOUND};
    raftz_machine good = table_of(&host), bad = good;
    refused(RAFTZ_NULL_ARG, NULL, NULL, "machine must not be NULL");
    bad.create = NULL;
    refused(RAFTZ_NULL_ARG, &bad, NULL, "raftz_machine.create");
    bad = good;
    bad.restore = NULL;
    refused(RAFTZ_INVALID_ARG, &bad, NULL, "raftz_machine.restore");
    bad = good;
    bad.abi_version = RAFTZ_ABI_VERSION + 1;
    refused(RAFTZ_ABI_MISMATCH, &bad, NULL, "abi_version");
    const struct {
        const char *without, *skip, *words;
        uint64_t duration_us;
        raftz_status wanted;
    } table[] = {
        {"flood", "", "no fault `flood`; there are kill,", 0, RAFTZ_INVALID_ARG},
        {"kill,", "", "no fault ``", 0, RAFTZ_INVALID_ARG},
        {"kill\xff", "", "raftz_sim_opts.without is not UTF-8", 0, RAFTZ_BAD_UTF8},
        {"", "9-5", "raftz_sim_opts.skip: `9-5` is not a range", 0, RAFTZ_INVALID_ARG},
        {"", "x", "`x` is not a whole number", 0, RAFTZ_INVALID_ARG},
        {"", "0-18446744073709551615", "is not a range", 0, RAFTZ_INVALID_ARG},
        {"", "", "an hour", 3600000001, RAFTZ_INVALID_ARG},
        {"", "", "an hour", UINT64_MAX, RAFTZ_INVALID_ARG},
    };
    for (size_t at = 0; at < sizeof table / sizeof *table; at++) {
        raftz_sim_opts opts = opts_of(&host);
        opts.without = raftz_text(table[at].without);
        opts.skip = raftz_text(table[at].skip);
        opts.duration_us = table[at].duration_us;
        refused(table[at].wanted, &good, &opts, table[at].words);
    }
    CHECK(host.created == 0 && host.drawn == 0);
}

/* Several at once, each on a thread of its own, say what they say one after the other. */
struct job {
    uint64_t seed;
    uint64_t trace;
};

static void *job_main(void *argument) {
    struct job *job = argument;
    struct host host = {.flaw = SOUND};
    raftz_sim_opts opts = opts_of(&host);
    raftz_sim_report_info info;
    raftz_sim_report_free(run(&host, job->seed, &opts, &info));
    job->trace = info.trace;
    return NULL;
}

static void side_by_side(void) {
    struct job jobs[4];
    pthread_t threads[4];
    for (unsigned at = 0; at < 4; at++) {
        jobs[at] = (struct job){at / 2 + 1, 0};
        CHECK(pthread_create(&threads[at], NULL, job_main, &jobs[at]) == 0);
    }
    for (unsigned at = 0; at < 4; at++) {
        CHECK(pthread_join(threads[at], NULL) == 0);
    }
    CHECK(jobs[0].trace == jobs[1].trace && jobs[2].trace == jobs[3].trace);
    CHECK(jobs[0].trace != jobs[2].trace);
    job_main(&jobs[0]);
    CHECK(jobs[0].trace == jobs[1].trace);
}

int main(int count, char **arguments) {
    bool is_short = count > 1 && strcmp(arguments[1], "short") == 0;
    const uint64_t runs = is_short ? 3 : 12;
    watchdog(300);
    bad_input();
    quiet();
    sound(is_short ? 3 : 30);
    side_by_side();
    finds(ANSWER_OF_ITS_OWN, runs, "machines agree", "answers entry");
    /* By snapshots on the way, or in the end. */
    finds(STATE_OF_ITS_OWN, runs, "s agree", "another");
    finds(FORGETFUL_SNAPSHOT, runs, "machines agree", "answers entry");
    finds(LOSES_COUNT, runs, "nodes run", "replies");
    finds(FAILS_APPLY, runs, "machine", "the ink is dry");
    finds(FAILS_BEGIN, runs, "machine", "snapshot_begin returned RAFTZ_CALLBACK_FAILED (-103): nobody holds still");
    finds(FAILS_READ, runs, "machine", "the film is torn");
    /* While it runs, or at a start. */
    finds(FAILS_RESTORE, runs, "", "restore returned RAFTZ_CALLBACK_FAILED (-103): the frame is bent");
    fails(FAILS_CREATE, RAFTZ_MACHINE, "create returned RAFTZ_CALLBACK_FAILED (-103): the mould is broken");
    fails(FAILS_WORKLOAD, RAFTZ_CALLBACK_FAILED, "nobody has a wish");
    fails(WRITES_TOO_MUCH, RAFTZ_TOO_LARGE, "4097 bytes");
    if (!is_short) {
        leaves_out();
        plain();
    }
    return 0;
}
