/* The bare core: every input and action; what is refused changes nothing; garbage off the network; the same seeds give
 * the same; a disk that gives back what it held, or not; clusters under every fault of cores.h, with their oracle; one
 * thread at a time. No call makes a thread. */
#include "cores.h"

#include <dirent.h>
#include <sys/wait.h>

/* Less where a checker slows everything down. */
static unsigned effort = 10;

static unsigned threads(void) {
    unsigned count = 0;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
        count += task->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

/* A core of one, and the actions of a step of it. */
struct single {
    raftz_core *core;
    const raftz_core_action *actions;
    size_t count;
    uint64_t now_us;
};

static raftz_status single_step(struct single *single, const raftz_core_input *input) {
    return raftz_core_step(single->core, ++single->now_us, 1, input, &single->actions, &single->count, &failure);
}

static const raftz_core_action *single_find(const struct single *single, uint32_t kind) {
    for (size_t at = 0; at < single->count; at++) {
        if (single->actions[at].kind == kind) {
            return &single->actions[at];
        }
    }
    return NULL;
}

/* ---- what is refused ---- */

/* Nothing is taken before the first write is durable, and a failed one ends it. */
static void the_first_write_comes_first(void) {
    struct world *world = world_new(3, 1);
    struct member *member = &world->members[0];
    OK(try_start(world, member));
    uint64_t due = 0;
    OK(raftz_core_next_deadline(member->core, &due, &failure));
    CHECK(due == UINT64_MAX);
    for (uint32_t kind = 1; kind <= LAST_INPUT; kind++) {
        raftz_core_input input = of_kind(kind);
        input.with.peer_id = 2;
        if (kind == RAFTZ_INPUT_PERSISTED) {
            input.with.persisted = (raftz_input_persisted){member->disk.boot, 2};
            WANT(RAFTZ_INVALID_ARG, try_step(world, member, &input));
            /* One of another life is nothing. */
            input.with.persisted = (raftz_input_persisted){member->disk.boot + 1, 1};
            OK(try_step(world, member, &input));
            CHECK(info_of(member).is_open == 0);
        } else if (kind != RAFTZ_INPUT_PERSIST_FAILED && kind != RAFTZ_INPUT_RECEIVE
                   && kind != RAFTZ_INPUT_SNAPSHOT_KEPT) {
            WANT(RAFTZ_BUSY, try_step(world, member, &input));
        }
    }
    persist(world, member, 1);
    CHECK(info_of(member).is_open == 1);
    OK(raftz_core_next_deadline(member->core, &due, &failure));
    CHECK(due > world->now_us && due != UINT64_MAX);
    crash(world, member);

    OK(try_start(world, member));
    raftz_core_input failed_write = of_kind(RAFTZ_INPUT_PERSIST_FAILED);
    failed_write.with.reason = raftz_text("no disk");
    step(world, member, &failed_write);
    CHECK(member->has_halted && info_of(member).is_halted == 1);
    OK(raftz_core_next_deadline(member->core, &due, &failure));
    CHECK(due == UINT64_MAX);
    world_free(world);
}

/* Tries an input that must be refused: the core is as before, and so are the actions that it gave last. */
static void refused(struct world *world, struct member *member, raftz_status wanted, const raftz_core_input *input,
                    int line) {
    raftz_core_input propose = of_kind(RAFTZ_INPUT_PROPOSE);
    raftz_proposal proposal = {7, raftz_text("a command")};
    propose.with.propose = (raftz_input_propose){&proposal, 1};
    const raftz_core_action *actions = NULL, *others = (const raftz_core_action *)&others;
    size_t count = 0, other_count = 99;
    OK(raftz_core_step(member->core, world->now_us, 1, &propose, &actions, &count, &failure));
    CHECK(count > 0 && actions[0].kind == RAFTZ_ACTION_REFUSED && actions[0].with.refused.tokens[0] == 7);
    uint64_t before = fingerprint_of(member);
    raftz_status status =
        raftz_core_step(member->core, world->now_us, 1, input, &others, &other_count, &failure);
    if (status != wanted) {
        fprintf(stderr, "line %d: %s\n", line, raftz_error_message(failure));
    }
    WANT(wanted, status);
    CHECK(others == (const raftz_core_action *)&others && other_count == 99);
    CHECK(fingerprint_of(member) == before);
    CHECK(actions[0].kind == RAFTZ_ACTION_REFUSED && actions[0].with.refused.tokens[0] == 7);
    CHECK(actions[0].with.refused.status == RAFTZ_NOT_LEADER && has(actions[0].with.refused.message, "lead"));
}
#define REFUSED(status, input) refused(world, follower, (status), (input), __LINE__)

static void what_is_refused_changes_nothing(void) {
    struct world *world = world_new(3, 2);
    world_start(world);
    struct member *leader = elect(world, NULL);
    struct member *follower = member_of(world, leader->id % 3 + 1);
    raftz_core_input input;

    for (uint32_t kind = 0; kind < 3; kind++) {
        input = of_kind(kind == 0 ? 0 : kind == 1 ? LAST_INPUT + 1 : UINT32_MAX);
        REFUSED(RAFTZ_UNSUPPORTED, &input);
    }
    input = of_kind(RAFTZ_INPUT_TICK);
    input.reserved = 1;
    REFUSED(RAFTZ_INVALID_ARG, &input);
    input = of_kind(RAFTZ_INPUT_LINK_UP);
    REFUSED(RAFTZ_INVALID_ARG, &input);
    input = of_kind(RAFTZ_INPUT_LINK_DOWN);
    REFUSED(RAFTZ_INVALID_ARG, &input);
    input = of_kind(RAFTZ_INPUT_RECEIVE);
    REFUSED(RAFTZ_INVALID_ARG, &input);
    input.with.receive.from = leader->id;
    REFUSED(RAFTZ_BAD_MESSAGE, &input);
    input.with.receive.message.len = 9;
    REFUSED(RAFTZ_NULL_ARG, &input);
    input.with.receive.message = (raftz_slice){(const uint8_t *)"x", SIZE_MAX};
    REFUSED(RAFTZ_INVALID_ARG, &input);
    raftz_proposal proposal = {1, {NULL, 1}};
    input = of_kind(RAFTZ_INPUT_PROPOSE);
    input.with.propose = (raftz_input_propose){NULL, 1};
    REFUSED(RAFTZ_NULL_ARG, &input);
    input.with.propose = (raftz_input_propose){&proposal, 1};
    REFUSED(RAFTZ_NULL_ARG, &input);
    input.with.propose = (raftz_input_propose){&proposal, SIZE_MAX / sizeof proposal};
    REFUSED(RAFTZ_INVALID_ARG, &input);
    input = of_kind(RAFTZ_INPUT_PERSISTED);
    input.with.persisted.boot = follower->disk.boot;
    REFUSED(RAFTZ_INVALID_ARG, &input);
    input.with.persisted.number = 1000000;
    REFUSED(RAFTZ_INVALID_ARG, &input);
    input.with.persisted.number = UINT64_MAX;
    REFUSED(RAFTZ_INVALID_ARG, &input);
    input = of_kind(RAFTZ_INPUT_PERSIST_FAILED);
    input.with.reason.len = 1;
    REFUSED(RAFTZ_NULL_ARG, &input);
    for (uint64_t index = 0; index < 3; index++) {
        /* Nothing was given that is to be applied. */
        input = of_kind(RAFTZ_INPUT_APPLIED);
        input.with.index = index == 2 ? UINT64_MAX : index;
        REFUSED(RAFTZ_INVALID_ARG, &input);
    }
    raftz_slice bad = {NULL, 3};
    input = of_kind(RAFTZ_INPUT_ENTRIES_READ);
    input.with.entries_read.entry_count = 1;
    REFUSED(RAFTZ_NULL_ARG, &input);
    input.with.entries_read.entries = &bad;
    REFUSED(RAFTZ_NULL_ARG, &input);
    input = of_kind(RAFTZ_INPUT_SNAPSHOT_KEPT);
    REFUSED(RAFTZ_STORAGE, &input);
    input.with.snapshot.base.len = 1;
    REFUSED(RAFTZ_NULL_ARG, &input);

    /* A base that is not the snapshot's. */
    struct bytes base = {NULL, 0};
    uint64_t term = 0;
    raftz_bytes *given = NULL;
    WANT(RAFTZ_INVALID_ARG, raftz_core_snapshot_base(follower->core, 99, 0, &term, &given, &failure));
    WANT(RAFTZ_INVALID_ARG, raftz_core_snapshot_base(follower->core, 0, 0, &term, &given, &failure));
    OK(raftz_core_snapshot_base(follower->core, follower->applied, 0, &term, &given, &failure));
    base = copied(raftz_bytes_slice(given));
    raftz_bytes_free(given);
    input.with.snapshot = (raftz_snapshot){{term, follower->applied + 1, 0, {0}}, slice(&base)};
    REFUSED(RAFTZ_INVALID_ARG, &input);
    base.data[base.len / 2] ^= 1;
    input.with.snapshot.id.index--;
    REFUSED(RAFTZ_STORAGE, &input);
    free(base.data);

    /* No time. */
    const raftz_core_action *actions = NULL;
    size_t count = 0;
    input = of_kind(RAFTZ_INPUT_TICK);
    WANT(RAFTZ_INVALID_ARG, raftz_core_step(follower->core, UINT64_MAX, 0, &input, &actions, &count, &failure));
    WANT(RAFTZ_INVALID_ARG, raftz_core_step(follower->core, 0, UINT64_MAX, &input, &actions, &count, &failure));

    /* What is late or of no use is nothing. */
    input = of_kind(RAFTZ_INPUT_ENTRIES_READ);
    for (uint64_t request = 1; request != 0; request = request * 2) {
        input.with.entries_read.request = request;
        step(world, follower, &input);
    }
    input = of_kind(RAFTZ_INPUT_RESTORED);
    step(world, follower, &input);
    input = of_kind(RAFTZ_INPUT_SNAPSHOT_LOST);
    step(world, follower, &input);
    tell_index(world, follower, RAFTZ_INPUT_COMPACT, UINT64_MAX);
    CHECK(info_of(follower).base_index == 0);
    input = of_kind(RAFTZ_INPUT_PROPOSE);
    step(world, follower, &input);

    /* A read that is open has its name for itself. */
    struct member *cut_off = leader;
    cut(world, cut_off, member_of(world, leader->id % 3 + 1), true);
    cut(world, cut_off, member_of(world, (leader->id + 1) % 3 + 1), true);
    read_index(world, cut_off);
    input = of_kind(RAFTZ_INPUT_READ);
    input.with.read.request = cut_off->reads[0].request;
    WANT(RAFTZ_INVALID_ARG, try_step(world, cut_off, &input));
    CHECK(cut_off->read_count == 1);
    /* Once it does not lead any more it says so. */
    elect(world, cut_off);
    run_for(world, 2000000);
    CHECK(cut_off->read_count == 0 && cut_off->may_read == 0);
    heal(world);
    world_free(world);
}

/* ---- garbage off the network ---- */

static void garbage_changes_nothing(void) {
    struct world *world = world_new(3, 3);
    world_start(world);
    struct member *leader = elect(world, NULL);
    struct member *follower = member_of(world, leader->id % 3 + 1);
    /* Real messages of every kind that comes about, to be spoilt. */
    enum { REAL = 256 };
    struct bytes real[REAL];
    size_t count = 0;
    for (unsigned round = 0; count < REAL; round++) {
        propose(world, leader, 1 + below(world, 4));
        if (round % 8 == 0) {
            tell(world, member_of(world, (leader->id + 1) % 3 + 1), RAFTZ_INPUT_CAMPAIGN);
        }
        for (size_t at = 0; at < world->mail_count && count < REAL; at++) {
            real[count++] = copied(slice(&world->mail[at].bytes));
        }
        settle(world);
        pass_time(world);
        leader = elect(world, NULL);
    }
    settle(world);
    uint64_t before = fingerprint_of(follower);
    raftz_core_info info = info_of(follower);
    for (unsigned round = 0; round < 3000 * effort; round++) {
        const struct bytes *from = &real[below(world, REAL)];
        struct bytes spoilt = {malloc(from->len + 64), from->len};
        CHECK(spoilt.data != NULL);
        memcpy(spoilt.data, from->data, from->len);
        switch (below(world, 5)) {
        case 0:
            spoilt.data[below(world, from->len)] ^= (uint8_t)(1u << below(world, 8));
            break;
        case 1:
            spoilt.len = below(world, from->len);
            break;
        case 2: {
            uint64_t more = 1 + below(world, 64);
            for (uint64_t at = 0; at < more; at++) {
                spoilt.data[spoilt.len++] = (uint8_t)drawn(world);
            }
            break;
        }
        case 3: {
            /* The head of one and the tail of another; in the rare case that they fit it is neither. */
            const struct bytes *other = &real[below(world, REAL)];
            size_t at = 1 + below(world, from->len - 1);
            for (size_t of = at; of < from->len; of++) {
                spoilt.data[of] = of < other->len ? other->data[of] : 0;
            }
            if (memcmp(spoilt.data, from->data, from->len) == 0
                || (other->len == spoilt.len && memcmp(spoilt.data, other->data, spoilt.len) == 0)) {
                spoilt.data[0] ^= 1;
            }
            break;
        }
        default:
            for (size_t at = below(world, 2) == 0 ? 0 : 4; at < spoilt.len; at++) {
                spoilt.data[at] = (uint8_t)drawn(world);
            }
        }
        raftz_core_input input = of_kind(RAFTZ_INPUT_RECEIVE);
        /* No sanitizer sees beyond the end of what is longer than it. */
        struct bytes exact = copied(slice(&spoilt));
        input.with.receive = (raftz_input_receive){leader->id, slice(&exact)};
        raftz_status status = try_step(world, follower, &input);
        CHECK(strstr(raftz_error_message(failure), "drop it") != NULL);
        WANT(RAFTZ_BAD_MESSAGE, status);
        free(exact.data);
        free(spoilt.data);
    }
    CHECK(fingerprint_of(follower) == before && info_of(follower).last_index == info.last_index);
    for (size_t at = 0; at < REAL; at++) {
        free(real[at].data);
    }
    heal(world);
    world_free(world);
}

/* ---- disks ---- */

static void flip(struct bytes *bytes) {
    bytes->data[bytes->len / 2] ^= 0x20;
}

static void a_core_begins_with_what_its_disk_held(void) {
    struct world *world = world_new(3, 4);
    world_start(world);
    struct member *leader = elect(world, NULL);
    for (unsigned round = 0; round < 10; round++) {
        CHECK(propose(world, leader, 3) == 3);
        settle(world);
    }
    run_for(world, 500000);
    struct member *member = member_of(world, leader->id % 3 + 1);
    raftz_core_info before = info_of(member);
    CHECK(before.applied_index > 30 && before.durable_index == before.last_index);
    crash(world, member);

    /* Wrong beginnings: nothing is made. */
    struct bytes record = copied(slice(&member->disk.record));
    flip(&member->disk.record);
    WANT(RAFTZ_STORAGE, try_start(world, member));
    replace(&member->disk.record, slice(&record));
    member->disk.record.len--;
    WANT(RAFTZ_STORAGE, try_start(world, member));
    member->disk.record.len++;
    /* Nor does a disk that is lost come back as a new one, or one that holds something become one. */
    struct bytes nothing = {NULL, 0}, kept = member->disk.record;
    member->disk.record = nothing;
    WANT(RAFTZ_STORAGE, try_start(world, member));
    member->disk.record = kept;
    member->disk.boot = 0;
    WANT(RAFTZ_STORAGE, try_start(world, member));
    member->disk.boot = before.boot;
    member->id = leader->id;
    WANT(RAFTZ_CONFIG, try_start(world, member));
    member->id = leader->id % 3 + 1;
    world->keys[0][0] = "cluster_id";
    world->keys[0][1] = "c2";
    world->key_count = 1;
    WANT(RAFTZ_CONFIG, try_start(world, member));
    world->keys[0][0] = "election_timeout_min_ms";
    world->keys[0][1] = "60";
    WANT(RAFTZ_CONFIG, try_start(world, member));
    world->key_count = 0;
    /* More entries than the record knows of: two disks mixed up. */
    struct entry *entries = member->disk.entries;
    member->disk.entries = malloc((member->disk.count + 1) * sizeof *entries);
    memcpy(member->disk.entries, entries, member->disk.count * sizeof *entries);
    member->disk.entries[member->disk.count] = entries[member->disk.count - 1];
    member->disk.count++;
    WANT(RAFTZ_STORAGE, try_start(world, member));
    member->disk.count--;
    free(member->disk.entries);
    member->disk.entries = entries;
    CHECK(member->core == NULL);

    /* As it was. */
    start(world, member);
    raftz_core_info after = info_of(member);
    CHECK(after.last_index == before.last_index && after.last_term == before.last_term);
    CHECK(after.term == before.term && after.vote == before.vote && after.boot == before.boot + 1);
    CHECK(memcmp(after.disk_id, before.disk_id, sizeof before.disk_id) == 0 && after.damaged_from == 0);
    heal(world);
    CHECK(member->digest == leader->digest);

    /* A completion of its last life confirms nothing of this one. */
    raftz_core_input late = of_kind(RAFTZ_INPUT_PERSISTED);
    late.with.persisted = (raftz_input_persisted){before.boot, 1};
    uint64_t fingerprint = fingerprint_of(member);
    step(world, member, &late);
    CHECK(fingerprint_of(member) == fingerprint);

    /* Entries that are missing, flipped or in another's place are found out, told of, and given anew. */
    for (unsigned how = 0; how < 3; how++) {
        leader = elect(world, NULL);
        member = member_of(world, leader->id % 3 + 1);
        crash(world, member);
        struct entry *hurt = &member->disk.entries[member->disk.count - 5];
        uint64_t index = hurt->index;
        if (how == 0) {
            flip(&hurt->bytes);
        } else if (how == 1) {
            struct bytes other = hurt[0].bytes;
            hurt[0].bytes = hurt[1].bytes;
            hurt[1].bytes = other;
        } else {
            while (member->disk.entries[member->disk.count - 1].index >= index) {
                free(member->disk.entries[--member->disk.count].bytes.data);
            }
        }
        start(world, member);
        CHECK(info_of(member).damaged_from == index && info_of(member).last_index == index - 1);
        CHECK(strstr(member->told, "in place of entry") != NULL);
        heal(world);
        CHECK(info_of(member).damaged_from == 0);
        /* And stays so. */
        crash(world, member);
        start(world, member);
        CHECK(info_of(member).damaged_from == 0);
        heal(world);
    }
    free(record.data);
    world_free(world);

    /* Nobody else has them: then it does not begin. */
    world = world_new(1, 5);
    member = &world->members[0];
    world_start(world);
    elect(world, NULL);
    CHECK(propose(world, member, 3) == 3);
    settle(world);
    CHECK(info_of(member).applied_index == 4);
    crash(world, member);
    struct bytes whole = copied(slice(&member->disk.entries[2].bytes));
    flip(&member->disk.entries[2].bytes);
    WANT(RAFTZ_STORAGE, try_start(world, member));
    replace(&member->disk.entries[2].bytes, slice(&whole));
    free(whole.data);
    start(world, member);
    elect(world, NULL);
    CHECK(info_of(member).applied_index == 5);
    world_free(world);
}

/* A machine that persists itself is given nothing twice, and nothing that is not on the disk. */
static void a_machine_that_persists_itself_goes_on_where_it_was(void) {
    struct world *world = world_new(1, 6);
    struct member *member = &world->members[0];
    world_start(world);
    elect(world, NULL);
    propose(world, member, 4);
    settle(world);
    crash(world, member);

    raftz_config *config = core_config(world, 1);
    raftz_core_opts opts = RAFTZ_CORE_OPTS_INIT;
    raftz_slice entries[8];
    for (size_t at = 0; at < member->disk.count; at++) {
        entries[at] = slice(&member->disk.entries[at].bytes);
    }
    opts.record = slice(&member->disk.record);
    opts.entries = entries;
    opts.entry_count = member->disk.count;
    opts.flags = RAFTZ_CORE_MACHINE_PERSISTS;
    struct single single = {NULL, NULL, 0, 1};
    /* It has more than the log. */
    opts.machine_applied = 6;
    WANT(RAFTZ_INVALID_ARG,
         raftz_core_new(config, &opts, 1, 1, &single.core, &single.actions, &single.count, &failure));
    opts.machine_applied = 3;
    OK(raftz_core_new(config, &opts, 1, 1, &single.core, &single.actions, &single.count, &failure));
    raftz_core_input input = of_kind(RAFTZ_INPUT_PERSISTED);
    input.with.persisted = (raftz_input_persisted){2, 1};
    const raftz_core_action *action = NULL;
    uint64_t first = 0;
    for (unsigned round = 0; round < 10; round++) {
        OK(single_step(&single, &input));
        input = of_kind(RAFTZ_INPUT_TICK);
        if ((action = single_find(&single, RAFTZ_ACTION_APPLY)) != NULL
            || (action = single_find(&single, RAFTZ_ACTION_READ_ENTRIES)) != NULL) {
            first = first > 0 ? first : action->kind == RAFTZ_ACTION_APPLY ? action->with.apply.first
                                                                            : action->with.read_entries.first;
        }
        if ((action = single_find(&single, RAFTZ_ACTION_PERSIST)) != NULL) {
            input = of_kind(RAFTZ_INPUT_PERSISTED);
            input.with.persisted.boot = action->with.persist.boot;
            input.with.persisted.number = action->with.persist.number;
        }
    }
    CHECK(first == 4);
    raftz_core_free(single.core);
    raftz_config_free(config);
    world_free(world);
}

/* ---- every kind, as a story ---- */

static uint64_t story(uint64_t seed, uint64_t *fingerprint, uint64_t *inputs, uint64_t *actions) {
    struct world *world = world_new(3, seed);
    /* What is appended is soon read from the log again, and a window is small. */
    world->keys[0][0] = "cache_bytes_max";
    world->keys[0][1] = "1";
    world->keys[1][0] = "apply_bytes_max";
    world->keys[1][1] = "150";
    world->key_count = 2;
    CHECK(threads() == 1);
    world_start(world);
    struct member *leader = elect(world, NULL);
    struct member *other = member_of(world, leader->id % 3 + 1);
    struct member *third = member_of(world, other->id % 3 + 1);
    CHECK(propose(world, leader, 20) == 20);
    settle(world);

    /* The leader hands over, to whom is named and to whoever suits. */
    transfer(world, leader, other->id);
    settle(world);
    run_for(world, 100000);
    CHECK(leader->ended_why == RAFTZ_OK && leader_of(world) == other);
    transfer(world, leader, third->id);
    CHECK(leader->ended == 1 && leader->ended_why == RAFTZ_NOT_LEADER);
    transfer(world, other, 77);
    CHECK(other->ended == 1 && other->ended_why == RAFTZ_TRANSFER_TARGET);
    leader = other;
    other = member_of(world, leader->id % 3 + 1);
    third = member_of(world, other->id % 3 + 1);

    /* Reads: the leader knows what must be applied, others do not. */
    read_index(world, leader);
    settle(world);
    CHECK(leader->read_count == 0 && leader->may_read >= 21);
    read_index(world, other);
    CHECK(other->read_count == 0 && other->may_read == 0);

    /* Entries that are only on the disk any more, for one that was away and for one that comes back. */
    crash(world, third);
    for (unsigned round = 0; round < 8; round++) {
        CHECK(propose(world, leader, 8) == 8);
        settle(world);
    }
    start(world, third);
    run_for(world, 300000);
    CHECK(third->digest == leader->digest);
    CHECK(world->actions_met[RAFTZ_ACTION_READ_ENTRIES] > 2);

    /* And then it is too far behind. */
    crash(world, third);
    CHECK(propose(world, leader, 8) == 8);
    settle(world);
    take_snapshot(world, leader, 0);
    CHECK(info_of(leader).base_index == leader->applied);
    settle(world);
    start(world, third);
    run_for(world, 300000);
    CHECK(third->digest == leader->digest && third->disk.snapshot.id.index == leader->disk.snapshot.id.index);
    CHECK(info_of(third).base_index > 0);
    CHECK(world->actions_met[RAFTZ_ACTION_RESTORE] == 1 && world->actions_met[RAFTZ_ACTION_FETCH] > 0);
    raftz_core_input lost = of_kind(RAFTZ_INPUT_SNAPSHOT_LOST);
    lost.with.snapshot_id = leader->disk.snapshot.id;
    step(world, leader, &lost);

    /* It begins again with snapshot, base and what is behind them. */
    CHECK(propose(world, leader, 8) == 8);
    settle(world);
    crash(world, third);
    start(world, third);
    CHECK(third->applied == third->disk.snapshot.id.index);
    run_for(world, 300000);
    CHECK(third->digest == leader->digest);

    /* And without the snapshot: it applies nothing before it has another. */
    crash(world, third);
    struct snapshot gone = third->disk.snapshot;
    third->disk.snapshot = (struct snapshot){0};
    start(world, third);
    run_for(world, 300000);
    CHECK(info_of(third).lacks_snapshot == 1 && third->applied == 0);
    keep(world, third, &gone);
    free(gone.base.data);
    run_for(world, 300000);
    CHECK(info_of(third).lacks_snapshot == 0 && third->digest == leader->digest);

    /* A full disk takes no commands. */
    raftz_core_input full = of_kind(RAFTZ_INPUT_STORAGE_FULL);
    full.with.is_full = 1;
    step(world, leader, &full);
    CHECK(propose(world, leader, 2) == 0 && leader->refused_why == RAFTZ_STORAGE_FULL);
    full.with.is_full = 0;
    step(world, leader, &full);

    /* Too large. */
    struct bytes large = {calloc(1, (4 << 20) + 1), (4 << 20) + 1};
    raftz_proposal proposal = {1, slice(&large)};
    raftz_core_input input = of_kind(RAFTZ_INPUT_PROPOSE);
    input.with.propose = (raftz_input_propose){&proposal, 1};
    step(world, leader, &input);
    CHECK(leader->refused == 1 && leader->refused_why == RAFTZ_TOO_LARGE);
    proposal.command.len--;
    step(world, leader, &input);
    CHECK(leader->accepted == 1);
    settle(world);
    free(large.data);

    /* The leader is cut off; the others hear of it, and one stands at once. */
    cut(world, leader, other, true);
    cut(world, leader, third, true);
    tell(world, other, RAFTZ_INPUT_FORGET_LEADER);
    tell(world, third, RAFTZ_INPUT_FORGET_LEADER);
    CHECK(propose(world, leader, 3) == 3);
    tell(world, other, RAFTZ_INPUT_CAMPAIGN);
    settle(world);
    CHECK(leader_of(world) == other);
    CHECK(propose(world, other, 5) == 5);
    settle(world);
    CHECK(propose(world, third, 2) == 0 && third->refused_why == RAFTZ_NOT_LEADER);
    heal(world);

    /* A disk that fails ends its core, and answers what comes after. */
    leader = elect(world, NULL);
    raftz_core_input failed_write = of_kind(RAFTZ_INPUT_PERSIST_FAILED);
    failed_write.with.reason = raftz_text("it is gone");
    step(world, leader, &failed_write);
    CHECK(leader->has_halted && strstr(leader->told, "it is gone") != NULL);
    CHECK(propose(world, leader, 2) == 0 && leader->refused_why == RAFTZ_FAULTED);
    read_index(world, leader);
    CHECK(leader->read_count == 0 && leader->may_read == 0);
    transfer(world, leader, 0);
    CHECK(leader->ended == 1 && leader->ended_why == RAFTZ_FAULTED);
    heal(world);
    CHECK(threads() == 1);

    for (uint32_t kind = 1; kind <= LAST_INPUT; kind++) {
        inputs[kind] += world->inputs_met[kind];
    }
    for (uint32_t kind = 1; kind <= LAST_ACTION; kind++) {
        actions[kind] += world->actions_met[kind];
    }
    *fingerprint = 0;
    for (unsigned at = 0; at < 3; at++) {
        *fingerprint = *fingerprint * 31 + fingerprint_of(&world->members[at]);
    }
    uint64_t done = world->done;
    world_free(world);
    return done;
}

static void every_kind_is_met_and_the_same_inputs_give_the_same(void) {
    uint64_t inputs[LAST_INPUT + 1] = {0}, actions[LAST_ACTION + 1] = {0}, one = 0, other = 0;
    uint64_t done = story(7, &one, inputs, actions);
    for (uint32_t kind = 1; kind <= LAST_INPUT; kind++) {
        if (inputs[kind] == 0) {
            fprintf(stderr, "input %u was not met\n", kind);
        }
        CHECK(inputs[kind] > 0);
    }
    for (uint32_t kind = 1; kind <= LAST_ACTION; kind++) {
        if (actions[kind] == 0) {
            fprintf(stderr, "action %u was not met\n", kind);
        }
        CHECK(actions[kind] > 0);
    }
    CHECK(story(7, &other, inputs, actions) == done && one == other);
}

/* What is to be applied and cannot be read stops the core, and loses nothing. */
static void a_log_that_cannot_be_read_stops_its_core(void) {
    struct world *world = world_new(1, 8);
    struct member *member = &world->members[0];
    world_start(world);
    elect(world, NULL);
    CHECK(propose(world, member, 20) == 20);
    settle(world);
    uint64_t digest = member->digest;
    for (unsigned how = 0; how < 4; how++) {
        crash(world, member);
        start(world, member);
        for (unsigned round = 0; round < 100 && member->wanted_count == 0; round++) {
            if (member->job_count > 0) {
                persist(world, member, member->job_count);
            } else {
                pass_time(world);
            }
        }
        CHECK(member->wanted_count > 0 && member->wanted[0].first == 1);
        if (how == 0) {
            answer_read(world, member, RAFTZ_CALLBACK_FAILED);
            CHECK(strstr(member->told, "on purpose") != NULL);
        } else if (how == 1) {
            member->wanted[0].first = 2;
            answer_read(world, member, RAFTZ_OK);
        } else if (how == 2) {
            member->wanted[0].last = 0;
            answer_read(world, member, RAFTZ_OK);
        } else {
            flip(&member->disk.entries[0].bytes);
            answer_read(world, member, RAFTZ_OK);
            flip(&member->disk.entries[0].bytes);
        }
        CHECK(member->has_halted && strstr(member->told, "to be applied") != NULL);
    }
    crash(world, member);
    start(world, member);
    elect(world, NULL);
    CHECK(member->digest == digest && info_of(member).applied_index == info_of(member).last_index);
    world_free(world);
}

/* ---- chaos ---- */

static void do_something(struct world *world) {
    struct member *member = member_of(world, 1 + below(world, world->size));
    uint64_t lot = below(world, 1000);
    if (world->mail_count > 0 && lot < 500) {
        /* Any of the next few, sometimes twice, sometimes never. */
        size_t at = below(world, world->mail_count < 8 ? world->mail_count : 8);
        if (chance(world, 3)) {
            free(take_mail(world, at).bytes.data);
        } else {
            if (chance(world, 3)) {
                struct bytes again = copied(slice(&world->mail[at].bytes));
                post(world, world->mail[at].from, world->mail[at].to, slice(&again));
                free(again.data);
            }
            deliver(world, at);
        }
        return;
    }
    if (member->core == NULL) {
        if (lot < 700) {
            start(world, member);
        }
        return;
    }
    if (lot < 600) {
        if (member->job_count > 0) {
            persist(world, member, 1 + below(world, member->job_count));
        } else if (member->apply_last > 0) {
            uint64_t from = member->applied;
            machine_apply(world, member, from + 1 + below(world, member->apply_last - from));
        } else {
            owed(world, member);
        }
    } else if (lot < 640) {
        owed(world, member);
    } else if (lot < 720) {
        propose(world, member, 1 + below(world, 6));
    } else if (lot < 740 && member->read_count < READS) {
        read_index(world, member);
    } else if (lot < 745) {
        transfer(world, member, below(world, 4));
    } else if (lot < 750) {
        tell(world, member, chance(world, 50) ? RAFTZ_INPUT_CAMPAIGN : RAFTZ_INPUT_FORGET_LEADER);
    } else if (lot < 760) {
        bool is_idle = member->restoring.index == 0 && member->apply_last == 0;
        if (is_idle && member->applied > member->disk.snapshot.id.index
            && info_of(member).applied_index == member->applied) {
            take_snapshot(world, member, below(world, 4));
        }
    } else if (lot < 768) {
        struct member *other = member_of(world, 1 + below(world, world->size));
        cut(world, member, other, chance(world, 40));
    } else if (lot < 774) {
        crash(world, member);
    } else if (lot < 777) {
        raftz_core_input full = of_kind(RAFTZ_INPUT_STORAGE_FULL);
        full.with.is_full = chance(world, 20);
        step(world, member, &full);
    } else {
        pass_time(world);
    }
}

/* A cluster in trouble, which heals; adds what came of it to `met`, by kind of action, and the last index to `met[0]`. */
static uint64_t chaos(uint64_t seed, uint64_t *met) {
    enum { STEPS = 8000 };
    struct world *world = world_new(3, seed);
    world->keys[0][0] = "cache_bytes_max";
    world->keys[0][1] = seed % 2 == 0 ? "1" : "400";
    world->keys[1][0] = "append_bytes_max";
    world->keys[1][1] = seed % 3 == 0 ? "1" : "300";
    world->key_count = 2;
    world_start(world);
    for (unsigned at = 0; at < STEPS; at++) {
        do_something(world);
    }
    heal(world);
    met[0] += world->acknowledged;
    for (uint32_t kind = 1; kind <= LAST_ACTION; kind++) {
        met[kind] += world->actions_met[kind];
    }
    uint64_t done = world->done;
    for (unsigned at = 0; at < 3; at++) {
        done = done * 31 + fingerprint_of(&world->members[at]);
    }
    world_free(world);
    return done;
}

static void whatever_happens_there_is_one_history(uint64_t first) {
    uint64_t met[LAST_ACTION + 1] = {0}, again[LAST_ACTION + 1] = {0};
    const uint64_t seeds = 6 * effort;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        uint64_t done = chaos(seed, met);
        if (seed % 10 == 0) {
            CHECK(chaos(seed, again) == done);
        }
    }
    /* Something came of it. */
    CHECK(met[0] > seeds * 100);
    for (uint32_t kind = 1; kind < RAFTZ_ACTION_HALT; kind++) {
        CHECK(met[kind] > seeds);
    }
    CHECK(met[RAFTZ_ACTION_HALT] == 0);
}

/* The leader writes with the help of one, whose disk forgets it; that one then helps the third into office. */
static void with_a_disk_that_lies(void) {
    struct world *world = world_new(3, 10);
    world_start(world);
    struct member *leader = elect(world, NULL);
    struct member *liar = member_of(world, leader->id % 3 + 1), *third = member_of(world, liar->id % 3 + 1);
    run_for(world, 500000);
    struct disk before = disk_copied(&liar->disk);
    cut(world, third, leader, true);
    cut(world, third, liar, true);
    CHECK(propose(world, leader, 5) == 5);
    settle(world);
    CHECK(info_of(leader).applied_index == info_of(leader).last_index);
    crash(world, leader);
    crash(world, liar);
    disk_free(&liar->disk);
    liar->disk = before;
    start(world, liar);
    cut(world, third, liar, false);
    CHECK(propose(world, elect(world, NULL), 5) == 5);
    settle(world);
}

/* The oracle can see: one history is not the other. */
static void a_disk_that_lies_is_found_out(void) {
    int ends[2];
    char said[256] = "";
    CHECK(pipe(ends) == 0);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        watchdog(60);
        dup2(ends[1], 2);
        with_a_disk_that_lies();
        _exit(0);
    }
    close(ends[1]);
    CHECK(read(ends[0], said, sizeof said - 1) >= 0);
    close(ends[0]);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1 && strstr(said, "world->history[") != NULL);
}

/* ---- threads ---- */

struct rivals {
    struct single single;
    pthread_barrier_t begin;
    _Atomic uint64_t busy, done;
};

static void *rival(void *context) {
    struct rivals *rivals = context;
    enum { COMMANDS = 2000 };
    raftz_proposal *proposals = calloc(COMMANDS, sizeof *proposals);
    CHECK(proposals != NULL);
    for (unsigned at = 0; at < COMMANDS; at++) {
        proposals[at] = (raftz_proposal){at, raftz_text("a command that takes a while to be taken over")};
    }
    raftz_core_input input = of_kind(RAFTZ_INPUT_PROPOSE);
    input.with.propose = (raftz_input_propose){proposals, COMMANDS};
    pthread_barrier_wait(&rivals->begin);
    /* Until they have met; the watchdog bounds it. */
    while (rivals->busy == 0 || rivals->done == 0) {
        const raftz_core_action *actions = NULL;
        size_t count = 0;
        raftz_error *error = NULL;
        raftz_status status =
            raftz_core_step(rivals->single.core, 1, 1, &input, &actions, &count, &error);
        CHECK(status == RAFTZ_OK || status == RAFTZ_BUSY);
        CHECK((status == RAFTZ_OK) == (error == NULL) && (status != RAFTZ_OK) == (actions == NULL));
        raftz_error_free(error);
        rivals->busy += status == RAFTZ_BUSY;
        rivals->done += status == RAFTZ_OK;
        uint64_t number = 0;
        status = raftz_core_fingerprint(rivals->single.core, &number, NULL);
        CHECK(status == RAFTZ_OK || status == RAFTZ_BUSY);
    }
    free(proposals);
    return NULL;
}

static void two_threads_at_once_are_refused(void) {
    struct world *world = world_new(3, 9);
    world_start(world);
    static struct rivals rivals;
    rivals.single.core = world->members[0].core;
    pthread_t threads[2];
    pthread_barrier_init(&rivals.begin, NULL, 2);
    for (unsigned at = 0; at < 2; at++) {
        CHECK(pthread_create(&threads[at], NULL, rival, &rivals) == 0);
    }
    for (unsigned at = 0; at < 2; at++) {
        pthread_join(threads[at], NULL);
    }
    pthread_barrier_destroy(&rivals.begin);
    CHECK(rivals.busy > 0 && rivals.done > 0);
    /* It goes on as before. */
    heal(world);
    world_free(world);
}

int main(int argc, char **argv) {
    const char *how = argc > 1 ? argv[1] : "";
    watchdog(120);
    /* More of it: `core seeds 1000` begins there. */
    if (argc > 2 && strcmp(how, "seeds") == 0) {
        whatever_happens_there_is_one_history(strtoull(argv[2], NULL, 10));
        return 0;
    }
    /* `calm`: nothing in which a leader reads its log for another. */
    bool is_calm = strcmp(how, "calm") == 0;
    if (is_calm || strcmp(how, "short") == 0) {
        effort = 1;
    }
    the_first_write_comes_first();
    what_is_refused_changes_nothing();
    garbage_changes_nothing();
    a_core_begins_with_what_its_disk_held();
    a_machine_that_persists_itself_goes_on_where_it_was();
    a_log_that_cannot_be_read_stops_its_core();
    if (!is_calm) {
        every_kind_is_met_and_the_same_inputs_give_the_same();
        whatever_happens_there_is_one_history(1);
        a_disk_that_lies_is_found_out();
        two_threads_at_once_are_refused();
    }
    return 0;
}
