/* Clusters of bare cores in one thread and virtual time. Each has a disk that makes nothing durable until it is told to
 * and forgets the rest in a crash, and a machine whose state is a hash of the one before; messages lie in a heap from
 * which any may be taken next. Whatever is done, the oracle watches: one leader a term, one history, no stale read. */
#ifndef CORES_H
#define CORES_H

#include "check.h"

enum {
    CORES = 3,
    QUEUE = 256,
    MAIL = 4096,
    WANTED = 64,
    READS = 512,
    HISTORY = 1 << 16,
    TERMS = 1 << 14,
    LAST_INPUT = 18,
    LAST_ACTION = 13
};

struct bytes {
    uint8_t *data;
    size_t len;
};

static inline struct bytes copied(raftz_slice from) {
    struct bytes bytes = {malloc(from.len + 1), from.len};
    CHECK(bytes.data != NULL);
    if (from.len > 0) {
        memcpy(bytes.data, from.data, from.len);
    }
    return bytes;
}

static inline raftz_slice slice(const struct bytes *bytes) {
    return (raftz_slice){bytes->data, bytes->len};
}

static inline void replace(struct bytes *bytes, raftz_slice from) {
    struct bytes other = copied(from);
    free(bytes->data);
    *bytes = other;
}

static inline uint64_t mixed(uint64_t digest, const void *data, size_t len) {
    const uint8_t *bytes = data;
    for (size_t at = 0; at < len; at++) {
        digest = (digest ^ bytes[at]) * 0x100000001b3u;
    }
    return digest ^ (digest >> 29);
}

static inline uint64_t mixed_slice(uint64_t digest, raftz_slice from) {
    digest = mixed(digest, &from.len, sizeof from.len);
    return from.len > 0 ? mixed(digest, from.data, from.len) : digest;
}

struct entry {
    uint64_t index;
    struct bytes bytes;
};

/* A write that the disk was given. */
struct job {
    uint64_t boot, number, remove_from, remove_upto;
    struct bytes record;
    struct entry *entries;
    size_t count;
};

struct snapshot {
    raftz_snapshot_id id;
    struct bytes base;
    uint64_t digest, log_time_us;
};

/* What a crash leaves. */
struct disk {
    uint64_t boot;
    struct bytes record;
    struct entry *entries;
    size_t count, room;
    struct snapshot snapshot;
};

struct member {
    uint64_t id;
    raftz_core *core;
    uint8_t disk_id[16];
    struct disk disk;
    /* What it takes: writes on their way, questions that are not answered, the machine. */
    struct job jobs[QUEUE];
    size_t job_count;
    raftz_action_read_entries wanted[WANTED];
    size_t wanted_count;
    uint64_t apply_last;
    raftz_snapshot_id restoring;
    raftz_action_fetch fetching;
    struct bytes commands;
    uint64_t applied, digest, log_time_us;
    struct {
        uint64_t request, floor;
    } reads[READS];
    size_t read_count;
    /* What its last step said. */
    size_t accepted, refused, ended;
    raftz_status refused_why, ended_why;
    uint64_t may_read;
    char told[256];
    bool has_halted;
};

struct mail {
    uint64_t from, to;
    struct bytes bytes;
};

struct world {
    struct member members[CORES];
    unsigned size;
    struct mail mail[MAIL];
    size_t mail_count;
    bool cut[CORES][CORES];
    uint64_t now_us, random, next_number;
    /* Of the oracle: who leads in a term; the digest behind each command, and its term; all that was done so far. */
    uint64_t leaders[TERMS];
    struct {
        uint64_t digest, term;
    } history[HISTORY];
    uint64_t acknowledged, done;
    uint64_t inputs_met[LAST_INPUT + 1], actions_met[LAST_ACTION + 1];
    const char *keys[8][2];
    size_t key_count;
};

static inline uint64_t drawn(struct world *world) {
    uint64_t z = (world->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline uint64_t below(struct world *world, uint64_t bound) {
    return drawn(world) % bound;
}

static inline bool chance(struct world *world, unsigned percent) {
    return below(world, 100) < percent;
}

static inline bool is_same_id(const raftz_snapshot_id *one, const raftz_snapshot_id *other) {
    return one->index == other->index && one->term == other->term && one->bytes == other->bytes
           && memcmp(one->hash, other->hash, sizeof one->hash) == 0;
}

/* ---- the disk ---- */

static inline void job_free(struct job *job) {
    free(job->record.data);
    for (size_t at = 0; at < job->count; at++) {
        free(job->entries[at].bytes.data);
    }
    free(job->entries);
}

static inline void disk_take(struct member *member, const raftz_action_persist *persist) {
    const raftz_log_write *write = persist->write;
    CHECK(member->job_count < QUEUE && write->group == 1 && write->reserved == 0 && write->record.len > 0);
    struct job *job = &member->jobs[member->job_count++];
    *job = (struct job){persist->boot, persist->number, write->remove_from, write->remove_upto,
                        copied(write->record), NULL, write->entry_count};
    CHECK(persist->boot == member->disk.boot);
    CHECK(member->job_count == 1 || job[-1].number + 1 == job->number);
    job->entries = calloc(write->entry_count + 1, sizeof *job->entries);
    CHECK(job->entries != NULL);
    for (size_t at = 0; at < write->entry_count; at++) {
        job->entries[at] = (struct entry){write->entries[at].index, copied(write->entries[at].bytes)};
    }
}

static inline void disk_free(struct disk *disk) {
    for (size_t at = 0; at < disk->count; at++) {
        free(disk->entries[at].bytes.data);
    }
    free(disk->entries);
    free(disk->record.data);
    free(disk->snapshot.base.data);
    *disk = (struct disk){0};
}

static inline struct disk disk_copied(const struct disk *disk) {
    struct disk copy = *disk;
    copy.room = disk->count;
    copy.record = copied(slice(&disk->record));
    copy.snapshot.base = copied(slice(&disk->snapshot.base));
    copy.entries = calloc(disk->count + 1, sizeof *copy.entries);
    CHECK(copy.entries != NULL);
    for (size_t at = 0; at < disk->count; at++) {
        copy.entries[at] = (struct entry){disk->entries[at].index, copied(slice(&disk->entries[at].bytes))};
    }
    return copy;
}

/* Makes the oldest write durable. */
static inline uint64_t disk_write(struct member *member) {
    struct job job = member->jobs[0];
    memmove(member->jobs, member->jobs + 1, --member->job_count * sizeof *member->jobs);
    replace(&member->disk.record, slice(&job.record));
    size_t left = 0;
    for (size_t at = 0; at < member->disk.count; at++) {
        struct entry *entry = &member->disk.entries[at];
        if ((job.remove_from > 0 && entry->index >= job.remove_from) || entry->index <= job.remove_upto) {
            free(entry->bytes.data);
        } else {
            member->disk.entries[left++] = *entry;
        }
    }
    member->disk.count = left;
    if (left + job.count > member->disk.room) {
        member->disk.room = 2 * (left + job.count);
        member->disk.entries = realloc(member->disk.entries, member->disk.room * sizeof *member->disk.entries);
        CHECK(member->disk.entries != NULL);
    }
    for (size_t at = 0; at < job.count; at++) {
        CHECK(member->disk.count == 0 || member->disk.entries[member->disk.count - 1].index + 1 == job.entries[at].index);
        struct entry *entry = &member->disk.entries[member->disk.count++];
        *entry = (struct entry){job.entries[at].index, copied(slice(&job.entries[at].bytes))};
    }
    uint64_t number = job.number;
    job_free(&job);
    return number;
}

/* ---- what is told, and what comes of it ---- */

static inline void carry_out(struct world *world, struct member *member, const raftz_core_action *actions,
                             size_t count);

static inline raftz_core_input of_kind(uint32_t kind) {
    raftz_core_input input = RAFTZ_CORE_INPUT_INIT;
    input.kind = kind;
    return input;
}

static inline raftz_status try_step(struct world *world, struct member *member, const raftz_core_input *input) {
    const raftz_core_action *actions = NULL;
    size_t count = 0;
    raftz_error_free(failure);
    failure = NULL;
    raftz_status status = raftz_core_step(member->core, world->now_us, 5000000 + world->now_us, input, &actions,
                                          &count, &failure);
    if (status == RAFTZ_OK) {
        world->inputs_met[input->kind]++;
        carry_out(world, member, actions, count);
    }
    return status;
}

static inline void step(struct world *world, struct member *member, const raftz_core_input *input) {
    OK(try_step(world, member, input));
}

static inline void tell(struct world *world, struct member *member, uint32_t kind) {
    raftz_core_input input = of_kind(kind);
    step(world, member, &input);
}

static inline void tell_index(struct world *world, struct member *member, uint32_t kind, uint64_t index) {
    raftz_core_input input = of_kind(kind);
    input.with.index = index;
    step(world, member, &input);
}

static inline void on_event(struct world *world, struct member *member, const raftz_event_info *event) {
    CHECK(event->size == sizeof *event && event->node_id == member->id && event->group == 1);
    if (event->kind == RAFTZ_EVENT_ROLE && event->role == RAFTZ_ROLE_LEADER) {
        CHECK(event->term < TERMS);
        uint64_t *leader = &world->leaders[event->term];
        CHECK(*leader == 0 || *leader == member->id);
        *leader = member->id;
    }
    if (event->text.len > 0) {
        size_t len = event->text.len < sizeof member->told ? event->text.len : sizeof member->told - 1;
        memcpy(member->told, event->text.data, len);
        member->told[len] = '\0';
    }
}

/* The commands wait until the machine gets round to them. */
static inline void on_apply(struct member *member, const raftz_action_apply *apply) {
    CHECK(member->apply_last == 0 && apply->first <= apply->last);
    CHECK(member->commands.len == 0);
    struct bytes all = {malloc(apply->command_count * sizeof(uint64_t) * 4 + 1), 0};
    uint64_t before = 0;
    for (size_t at = 0; at < apply->command_count; at++) {
        const raftz_command *command = &apply->commands[at];
        CHECK(apply->first <= command->index && command->index <= apply->last && command->index > before);
        before = command->index;
        uint64_t row[4] = {command->index, command->term, command->log_time_us,
                           mixed_slice(1, command->data)};
        memcpy(all.data + all.len, row, sizeof row);
        all.len += sizeof row;
    }
    free(member->commands.data);
    member->commands = all;
    member->apply_last = apply->last;
}

/* Applies what waits, up to an entry. */
static inline void machine_apply(struct world *world, struct member *member, uint64_t upto) {
    size_t used = 0;
    for (; used < member->commands.len; used += 4 * sizeof(uint64_t)) {
        uint64_t row[4];
        memcpy(row, member->commands.data + used, sizeof row);
        if (row[0] > upto) {
            break;
        }
        CHECK(row[0] > member->applied && row[0] < HISTORY && row[2] >= member->log_time_us);
        member->digest = mixed(member->digest, row, sizeof row);
        member->log_time_us = row[2];
        if (world->history[row[0]].term == 0) {
            world->history[row[0]].term = row[1];
            world->history[row[0]].digest = member->digest;
        }
        /* Whoever applies it has the very same behind it. */
        CHECK(world->history[row[0]].digest == member->digest);
        CHECK(world->history[row[0]].term == row[1]);
    }
    member->commands.len -= used;
    memmove(member->commands.data, member->commands.data + used, member->commands.len);
    member->applied = upto;
    if (upto > world->acknowledged) {
        world->acknowledged = upto;
    }
    if (upto == member->apply_last) {
        member->apply_last = 0;
    }
    tell_index(world, member, RAFTZ_INPUT_APPLIED, upto);
}

static inline void on_read_answered(struct member *member, uint64_t request, uint64_t index) {
    for (size_t at = 0; at < member->read_count; at++) {
        if (member->reads[at].request == request) {
            CHECK(index == 0 || index >= member->reads[at].floor);
            member->reads[at] = member->reads[--member->read_count];
            member->may_read = index;
            return;
        }
    }
    CHECK(!"a read was answered that is not open");
}

static inline struct member *member_of(struct world *world, uint64_t id) {
    CHECK(1 <= id && id <= world->size);
    return &world->members[id - 1];
}

static inline bool is_linked(struct world *world, const struct member *one, const struct member *other) {
    return one->core != NULL && other->core != NULL && !world->cut[one->id - 1][other->id - 1];
}

static inline void post(struct world *world, uint64_t from, uint64_t to, raftz_slice message) {
    if (is_linked(world, member_of(world, from), member_of(world, to)) && world->mail_count < MAIL) {
        world->mail[world->mail_count++] = (struct mail){from, to, copied(message)};
    }
}

static inline struct mail take_mail(struct world *world, size_t at) {
    struct mail mail = world->mail[at];
    memmove(world->mail + at, world->mail + at + 1, (--world->mail_count - at) * sizeof mail);
    return mail;
}

static inline void deliver(struct world *world, size_t at) {
    struct mail mail = take_mail(world, at);
    struct member *to = member_of(world, mail.to);
    if (is_linked(world, member_of(world, mail.from), to)) {
        raftz_core_input input = of_kind(RAFTZ_INPUT_RECEIVE);
        input.with.receive = (raftz_input_receive){mail.from, slice(&mail.bytes)};
        step(world, to, &input);
    }
    free(mail.bytes.data);
}

static inline void carry_out(struct world *world, struct member *member, const raftz_core_action *actions,
                             size_t count) {
    uint64_t done = world->done;
    member->accepted = member->refused = member->ended = 0;
    for (size_t at = 0; at < count; at++) {
        const raftz_core_action *action = &actions[at];
        CHECK(1 <= action->kind && action->kind <= LAST_ACTION && action->reserved == 0);
        CHECK(!member->has_halted || action->kind == RAFTZ_ACTION_REFUSED
              || action->kind == RAFTZ_ACTION_TRANSFER_ENDED || action->kind == RAFTZ_ACTION_MAY_NOT_READ);
        world->actions_met[action->kind]++;
        done = mixed(done, &action->kind, sizeof action->kind);
        switch (action->kind) {
        case RAFTZ_ACTION_PERSIST:
            disk_take(member, &action->with.persist);
            done = mixed_slice(done, action->with.persist.write->record);
            for (size_t of = 0; of < action->with.persist.write->entry_count; of++) {
                done = mixed_slice(done, action->with.persist.write->entries[of].bytes);
            }
            break;
        case RAFTZ_ACTION_SEND:
            CHECK(action->with.send.to != member->id);
            post(world, member->id, action->with.send.to, action->with.send.message);
            done = mixed_slice(done, action->with.send.message);
            break;
        case RAFTZ_ACTION_READ_ENTRIES:
            CHECK(action->with.read_entries.first <= action->with.read_entries.last);
            CHECK(member->wanted_count < WANTED);
            member->wanted[member->wanted_count++] = action->with.read_entries;
            break;
        case RAFTZ_ACTION_APPLY:
            on_apply(member, &action->with.apply);
            break;
        case RAFTZ_ACTION_RESTORE:
            CHECK(member->restoring.index == 0 && member->apply_last == 0);
            member->restoring = action->with.snapshot_id;
            break;
        case RAFTZ_ACTION_FETCH:
            member->fetching = action->with.fetch;
            break;
        case RAFTZ_ACTION_ACCEPTED:
            CHECK(action->with.accepted.first > 0 && action->with.accepted.term > 0);
            member->accepted += action->with.accepted.token_count;
            done = mixed(done, action->with.accepted.tokens, 8 * action->with.accepted.token_count);
            break;
        case RAFTZ_ACTION_REFUSED:
            CHECK(action->with.refused.status != RAFTZ_OK && action->with.refused.message.len > 0);
            member->refused += action->with.refused.token_count;
            member->refused_why = action->with.refused.status;
            done = mixed(done, action->with.refused.tokens, 8 * action->with.refused.token_count);
            break;
        case RAFTZ_ACTION_MAY_READ:
            CHECK(action->with.may_read.index > 0);
            on_read_answered(member, action->with.may_read.request, action->with.may_read.index);
            break;
        case RAFTZ_ACTION_MAY_NOT_READ:
            on_read_answered(member, action->with.request, 0);
            break;
        case RAFTZ_ACTION_TRANSFER_ENDED:
            member->ended++;
            member->ended_why = action->with.transfer_ended.status;
            CHECK((member->ended_why == RAFTZ_OK) == (action->with.transfer_ended.message.len == 0));
            break;
        case RAFTZ_ACTION_EVENT:
            on_event(world, member, action->with.event);
            break;
        case RAFTZ_ACTION_HALT:
            CHECK(action->with.reason.len > 0);
            member->has_halted = true;
            break;
        default:
            CHECK(!"an action of no known kind");
        }
    }
    world->done = done;
}

/* ---- what a member owes its core ---- */

/* Makes the oldest so many writes durable. */
static inline void persist(struct world *world, struct member *member, size_t count) {
    raftz_core_input input = of_kind(RAFTZ_INPUT_PERSISTED);
    for (; count > 0 && member->job_count > 0; count--) {
        input.with.persisted = (raftz_input_persisted){member->disk.boot, disk_write(member)};
    }
    step(world, member, &input);
}

/* Answers the oldest question for entries. */
static inline void answer_read(struct world *world, struct member *member, raftz_status status) {
    raftz_slice found[64];
    raftz_action_read_entries wanted = member->wanted[0];
    memmove(member->wanted, member->wanted + 1, --member->wanted_count * sizeof wanted);
    raftz_core_input input = of_kind(RAFTZ_INPUT_ENTRIES_READ);
    raftz_input_entries_read *read = &input.with.entries_read;
    *read = (raftz_input_entries_read){wanted.request, status, 0, found, 0, raftz_text("on purpose")};
    uint64_t bytes = 0;
    for (size_t at = 0; at < member->disk.count && read->entry_count < 64; at++) {
        struct entry *entry = &member->disk.entries[at];
        if (wanted.first <= entry->index && entry->index <= wanted.last) {
            bytes += entry->bytes.len;
            if (read->entry_count > 0 && bytes > wanted.bytes_max) {
                break;
            }
            found[read->entry_count++] = slice(&entry->bytes);
        }
    }
    step(world, member, &input);
}

static inline void restore(struct world *world, struct member *member) {
    raftz_core_input input = of_kind(RAFTZ_INPUT_RESTORED);
    CHECK(is_same_id(&member->restoring, &member->disk.snapshot.id));
    input.with.snapshot_id = member->restoring;
    member->applied = member->restoring.index;
    member->digest = member->disk.snapshot.digest;
    member->log_time_us = member->disk.snapshot.log_time_us;
    if (member->applied > world->acknowledged) {
        world->acknowledged = member->applied;
    }
    member->restoring.index = 0;
    step(world, member, &input);
}

static inline void keep(struct world *world, struct member *member, const struct snapshot *snapshot) {
    raftz_core_input input = of_kind(RAFTZ_INPUT_SNAPSHOT_KEPT);
    struct bytes base = copied(slice(&snapshot->base));
    free(member->disk.snapshot.base.data);
    member->disk.snapshot = *snapshot;
    member->disk.snapshot.base = base;
    input.with.snapshot = (raftz_snapshot){snapshot->id, slice(&base)};
    step(world, member, &input);
}

/* A snapshot of what is applied, and a log that begins a little before it. */
static inline void take_snapshot(struct world *world, struct member *member, uint64_t behind) {
    struct snapshot snapshot = {0};
    raftz_bytes *base = NULL;
    OK(raftz_core_snapshot_base(member->core, member->applied, member->log_time_us, &snapshot.id.term, &base,
                                &failure));
    snapshot.id.index = member->applied;
    snapshot.id.bytes = sizeof snapshot.digest;
    snapshot.digest = member->digest;
    snapshot.log_time_us = member->log_time_us;
    memcpy(snapshot.id.hash, &member->digest, sizeof member->digest);
    snapshot.base = copied(raftz_bytes_slice(base));
    raftz_bytes_free(base);
    keep(world, member, &snapshot);
    free(snapshot.base.data);
    if (member->disk.snapshot.id.index > behind) {
        tell_index(world, member, RAFTZ_INPUT_COMPACT, member->disk.snapshot.id.index - behind);
    }
}

/* ---- lives ---- */

static inline raftz_core_info info_of(const struct member *member) {
    raftz_core_info info = RAFTZ_CORE_INFO_INIT;
    OK(raftz_core_status(member->core, &info, &failure));
    return info;
}

static inline uint64_t fingerprint_of(const struct member *member) {
    uint64_t fingerprint = 0;
    OK(raftz_core_fingerprint(member->core, &fingerprint, &failure));
    return fingerprint;
}

static inline void set_link(struct world *world, struct member *one, struct member *other, bool is_up) {
    raftz_core_input input = of_kind(is_up ? RAFTZ_INPUT_LINK_UP : RAFTZ_INPUT_LINK_DOWN);
    if (is_up) {
        input.with.link_up.peer_id = other->id;
        input.with.link_up.boot = other->disk.boot;
        memcpy(input.with.link_up.disk_id, other->disk_id, sizeof other->disk_id);
    } else {
        input.with.peer_id = other->id;
    }
    step(world, one, &input);
}

static inline void set_links(struct world *world, struct member *member, bool is_up) {
    for (unsigned at = 0; at < world->size; at++) {
        struct member *other = &world->members[at];
        if (other != member && is_linked(world, member, other)) {
            set_link(world, member, other, is_up);
            set_link(world, other, member, is_up);
        }
    }
}

static inline raftz_config *core_config(const struct world *world, uint64_t id) {
    raftz_config *config = NULL;
    OK(raftz_config_new(id, "c1", &config, &failure));
    for (unsigned member = 1; member <= world->size; member++) {
        char address[32];
        snprintf(address, sizeof address, "10.0.0.%u:7001", member);
        OK(raftz_config_add_founder(config, member, address, &failure));
    }
    OK(raftz_config_set_number(config, "seed", id, &failure));
    for (size_t at = 0; at < world->key_count; at++) {
        OK(raftz_config_set(config, world->keys[at][0], world->keys[at][1], &failure));
    }
    return config;
}

/* Begins with what the disk holds. */
static inline raftz_status try_start(struct world *world, struct member *member) {
    raftz_config *config = core_config(world, member->id);
    raftz_core_opts opts = RAFTZ_CORE_OPTS_INIT;
    raftz_slice *entries = calloc(member->disk.count + 1, sizeof *entries);
    raftz_snapshot snapshot = {member->disk.snapshot.id, slice(&member->disk.snapshot.base)};
    for (size_t at = 0; at < member->disk.count; at++) {
        entries[at] = slice(&member->disk.entries[at].bytes);
    }
    memset(opts.disk_id, (int)member->id, sizeof opts.disk_id);
    opts.flags = member->disk.boot == 0 ? RAFTZ_CORE_FOUNDS : 0;
    opts.record = slice(&member->disk.record);
    opts.entries = entries;
    opts.entry_count = member->disk.count;
    opts.snapshot = member->disk.snapshot.id.index > 0 ? &snapshot : NULL;
    const raftz_core_action *actions = NULL;
    size_t count = 0;
    raftz_error_free(failure);
    failure = NULL;
    raftz_status status = raftz_core_new(config, &opts, world->now_us, 5000000 + world->now_us, &member->core,
                                         &actions, &count, &failure);
    raftz_config_free(config);
    free(entries);
    if (status == RAFTZ_OK) {
        raftz_core_info info = info_of(member);
        CHECK(info.is_open == 0 && info.boot == member->disk.boot + 1 && info.node_id == member->id);
        member->disk.boot = info.boot;
        memcpy(member->disk_id, info.disk_id, sizeof info.disk_id);
        member->has_halted = false;
        member->told[0] = '\0';
        member->applied = member->disk.snapshot.id.index;
        member->digest = member->disk.snapshot.digest;
        member->log_time_us = member->disk.snapshot.log_time_us;
        CHECK(count > 0 && actions[0].kind == RAFTZ_ACTION_PERSIST);
        carry_out(world, member, actions, count);
    }
    return status;
}

static inline void start(struct world *world, struct member *member) {
    OK(try_start(world, member));
    persist(world, member, 1);
    CHECK(info_of(member).is_open == 1);
    set_links(world, member, true);
}

/* Whatever is not on the disk is gone. */
static inline void crash(struct world *world, struct member *member) {
    raftz_core_free(member->core);
    member->core = NULL;
    for (size_t at = 0; at < member->job_count; at++) {
        job_free(&member->jobs[at]);
    }
    member->job_count = member->read_count = member->wanted_count = member->commands.len = 0;
    member->apply_last = member->restoring.index = member->fetching.from = 0;
    for (size_t at = world->mail_count; at-- > 0;) {
        if (world->mail[at].from == member->id || world->mail[at].to == member->id) {
            free(take_mail(world, at).bytes.data);
        }
    }
    for (unsigned at = 0; at < world->size; at++) {
        struct member *other = &world->members[at];
        if (other != member && other->core != NULL && !world->cut[other->id - 1][member->id - 1]) {
            set_link(world, other, member, false);
        }
    }
}

static inline void cut(struct world *world, struct member *one, struct member *other, bool is_cut) {
    if (one == other || world->cut[one->id - 1][other->id - 1] == is_cut) {
        return;
    }
    world->cut[one->id - 1][other->id - 1] = world->cut[other->id - 1][one->id - 1] = is_cut;
    if (one->core != NULL && other->core != NULL) {
        set_link(world, one, other, !is_cut);
        set_link(world, other, one, !is_cut);
    }
}

static inline struct world *world_new(unsigned size, uint64_t seed) {
    struct world *world = calloc(1, sizeof *world);
    CHECK(world != NULL && size <= CORES);
    world->size = size;
    world->random = seed;
    world->now_us = 1000000;
    for (unsigned at = 0; at < size; at++) {
        world->members[at].id = at + 1;
    }
    return world;
}

static inline void world_start(struct world *world) {
    for (unsigned at = 0; at < world->size; at++) {
        start(world, &world->members[at]);
    }
}

static inline void world_free(struct world *world) {
    for (unsigned at = 0; at < world->size; at++) {
        struct member *member = &world->members[at];
        if (member->core != NULL) {
            crash(world, member);
        }
        disk_free(&member->disk);
        free(member->commands.data);
    }
    while (world->mail_count > 0) {
        free(take_mail(world, 0).bytes.data);
    }
    free(world);
}

/* ---- time ---- */

/* Fetches what was offered, if it is still there: in this network that takes no time. */
static inline void fetch(struct world *world, struct member *member) {
    const struct member *from = member_of(world, member->fetching.from);
    member->fetching.from = 0;
    if (is_linked(world, member, from) && is_same_id(&from->disk.snapshot.id, &member->fetching.id)
        && from->disk.snapshot.id.index > member->disk.snapshot.id.index) {
        keep(world, member, &from->disk.snapshot);
    }
}

/* Does one thing that a member owes; false if there is none. */
static inline bool owed(struct world *world, struct member *member) {
    if (member->core == NULL) {
        return false;
    }
    if (member->job_count > 0) {
        persist(world, member, member->job_count);
    } else if (member->apply_last > 0) {
        machine_apply(world, member, member->apply_last);
    } else if (member->restoring.index > 0) {
        restore(world, member);
    } else if (member->wanted_count > 0) {
        answer_read(world, member, RAFTZ_OK);
    } else if (member->fetching.from > 0) {
        fetch(world, member);
    } else {
        return false;
    }
    return true;
}

/* Does all that is owed, and delivers all messages, in order. */
static inline void settle(struct world *world) {
    unsigned rounds = 0;
    for (bool is_busy = true; is_busy;) {
        CHECK(++rounds < 50000);
        is_busy = false;
        for (unsigned at = 0; at < world->size; at++) {
            is_busy = owed(world, &world->members[at]) || is_busy;
        }
        if (world->mail_count > 0) {
            deliver(world, 0);
            is_busy = true;
        }
    }
}

static inline uint64_t next_deadline(const struct world *world) {
    uint64_t next = UINT64_MAX;
    for (unsigned at = 0; at < world->size; at++) {
        uint64_t due = UINT64_MAX;
        if (world->members[at].core != NULL) {
            OK(raftz_core_next_deadline(world->members[at].core, &due, &failure));
        }
        next = due < next ? due : next;
    }
    return next;
}

/* Lets time pass to the next deadline, and wakes whom it concerns. */
static inline void pass_time(struct world *world) {
    uint64_t next = next_deadline(world);
    CHECK(next != UINT64_MAX);
    world->now_us = next > world->now_us ? next : world->now_us + 1;
    for (unsigned at = 0; at < world->size; at++) {
        uint64_t due = UINT64_MAX;
        if (world->members[at].core != NULL) {
            OK(raftz_core_next_deadline(world->members[at].core, &due, &failure));
        }
        if (due <= world->now_us) {
            tell(world, &world->members[at], RAFTZ_INPUT_TICK);
        }
    }
}

static inline struct member *leader_of(struct world *world) {
    struct member *leader = NULL;
    uint64_t term = 0;
    for (unsigned at = 0; at < world->size; at++) {
        struct member *member = &world->members[at];
        if (member->core != NULL) {
            raftz_core_info info = info_of(member);
            if (info.is_ready && info.term > term) {
                leader = member;
                term = info.term;
            }
        }
    }
    return leader;
}

/* Until somebody leads who is not `but`. */
static inline struct member *elect(struct world *world, const struct member *but) {
    for (unsigned round = 0; round < 10000; round++) {
        settle(world);
        struct member *leader = leader_of(world);
        if (leader != NULL && leader != but) {
            return leader;
        }
        pass_time(world);
    }
    CHECK(!"no leader");
    return NULL;
}

static inline void run_for(struct world *world, uint64_t us) {
    uint64_t end = world->now_us + us;
    while (world->now_us < end) {
        settle(world);
        pass_time(world);
    }
    settle(world);
}

/* ---- calls ---- */

/* Proposes so many commands; each is answered in the same step. */
static inline size_t propose(struct world *world, struct member *member, size_t count) {
    raftz_proposal proposals[64];
    uint64_t numbers[64];
    CHECK(count <= 64);
    for (size_t at = 0; at < count; at++) {
        numbers[at] = ++world->next_number;
        proposals[at].token = numbers[at];
        proposals[at].command = (raftz_slice){(const uint8_t *)&numbers[at], sizeof numbers[at]};
    }
    raftz_core_input input = of_kind(RAFTZ_INPUT_PROPOSE);
    input.with.propose = (raftz_input_propose){proposals, count};
    step(world, member, &input);
    CHECK(member->accepted + member->refused == count);
    return member->accepted;
}

static inline void read_index(struct world *world, struct member *member) {
    raftz_core_input input = of_kind(RAFTZ_INPUT_READ);
    CHECK(member->read_count < READS);
    input.with.read.request = ++world->next_number;
    input.with.read.by_lease = (uint32_t)below(world, 2);
    member->reads[member->read_count].request = input.with.read.request;
    member->reads[member->read_count++].floor = world->acknowledged;
    step(world, member, &input);
}

static inline void transfer(struct world *world, struct member *member, uint64_t target_id) {
    raftz_core_input input = of_kind(RAFTZ_INPUT_TRANSFER);
    input.with.transfer.token = ++world->next_number;
    input.with.transfer.target_id = target_id;
    input.with.transfer.deadline_us = world->now_us + 1000000;
    step(world, member, &input);
}

/* Everybody lives and is connected; in the end all have applied the same, and no read is open. */
static inline void heal(struct world *world) {
    for (unsigned at = 0; at < world->size; at++) {
        for (unsigned of = 0; of < at; of++) {
            cut(world, &world->members[at], &world->members[of], false);
        }
        struct member *member = &world->members[at];
        if (member->core != NULL && member->has_halted) {
            crash(world, member);
        }
        if (member->core == NULL) {
            start(world, member);
        }
        raftz_core_input input = of_kind(RAFTZ_INPUT_STORAGE_FULL);
        step(world, member, &input);
    }
    for (unsigned round = 0; round < 20000; round++) {
        settle(world);
        struct member *leader = leader_of(world);
        bool is_whole = leader != NULL;
        for (unsigned at = 0; at < world->size && is_whole; at++) {
            struct member *member = &world->members[at];
            raftz_core_info info = info_of(member);
            is_whole = info.applied_index == info_of(leader).last_index && info.damaged_from == 0
                       && member->read_count == 0;
        }
        if (is_whole && propose(world, leader, 1) == 1) {
            run_for(world, 1000000);
            for (unsigned at = 1; at < world->size; at++) {
                CHECK(world->members[at].digest == world->members[0].digest);
                CHECK(info_of(&world->members[at]).last_index == info_of(&world->members[0]).last_index);
            }
            return;
        }
        pass_time(world);
    }
    CHECK(!"it does not heal");
}

#endif
