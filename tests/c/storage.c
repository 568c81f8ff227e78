/* Stores of a C program's own: good ones of every kind carry a cluster, bad ones are found out by the conformance suite,
 * and where a node meets one anyway it refuses to start, or stops with a fault that says why. */
#include "cluster.h"
#include "store.h"

#include <sys/wait.h>

static void as_opened(struct disk *disk) {
    CHECK(!disk->is_open);
    CHECK(tally_now(&disk->opened) == tally_now(&disk->destroyed));
    disk_wipe(disk);
}

/* The suite has no complaints, whenever and from wherever the store completes. */
static void conforming(enum wrong way, uint32_t storage_flags, uint32_t flags) {
    static struct disk disk;
    disk = (struct disk)DISK_INIT;
    disk.wrong = way;
    raftz_storage table = disk_table(&disk);
    raftz_conformance_opts opts = RAFTZ_CONFORMANCE_OPTS_INIT;
    table.flags = storage_flags;
    opts.flags = flags;
    opts.patience_ms = 10000 * slowness();
    OK(raftz_storage_conformance(&table, &opts, &failure));
    CHECK(disk.submits > 300 && disk.reads > 20 && tally_now(&disk.opened) > 0);
    /* It is of no other use. */
    if (flags == 0) {
        CHECK(raftz_storage_conformance(&table, &opts, &failure) == RAFTZ_STORAGE);
        CHECK(strstr(raftz_error_message(failure), "not empty") != NULL);
        WANT(RAFTZ_STORAGE, RAFTZ_STORAGE);
    }
    as_opened(&disk);
}

/* The suite says what is wrong. */
static void nonconforming(enum wrong wrong, uint64_t after, const char *words) {
    static struct disk disk;
    disk = (struct disk)DISK_INIT;
    disk.wrong = wrong;
    disk.after = after;
    raftz_storage table = disk_table(&disk);
    raftz_conformance_opts opts = RAFTZ_CONFORMANCE_OPTS_INIT;
    opts.patience_ms = wrong == NEVER ? 100 : 10000 * slowness();
    raftz_status status = raftz_storage_conformance(&table, &opts, &failure);
    const char *said = raftz_error_message(failure);
    if (status != RAFTZ_STORAGE || strstr(said, words) == NULL) {
        fprintf(stderr, "fault %d: %s: \"%s\", not \"%s\"\n", (int)wrong, raftz_status_name(status), said,
                words);
        _exit(1);
    }
    WANT(RAFTZ_STORAGE, status);
    as_opened(&disk);
}

static void suite(void) {
    conforming(NOTHING, 0, 0);
    conforming(NOTHING, RAFTZ_STORAGE_NEVER_BLOCKS, 0);
    conforming(LATE, 0, 0);
    conforming(BACKWARDS, 0, 0);
    conforming(TWICE, 0, 0);
    conforming(FORGETS, 0, RAFTZ_CONFORMANCE_FORGETS);
    nonconforming(NEVER, 0, "not completed within");
    nonconforming(NEVER, 9, "submission 8 did not complete");
    nonconforming(FAILS, 9, "failed on a healthy store");
    nonconforming(FAILS, 9, "the disk is gone");
    nonconforming(FAILS_LATE, 9, "the disk is gone");
    nonconforming(KEEPS_REMOVED, 0, "not what was written");
    nonconforming(FLIPS, 0, "checksum");
    nonconforming(SKIPS, 0, "came where");
    nonconforming(REPEATS, 0, "came where");
    nonconforming(CANNOT_READ, 0, "the head is stuck");
    nonconforming(GIVES_NOTHING, 0, "gave nothing");
    nonconforming(FORGETS, 0, "not formatted");
    nonconforming(FORGETS_RECORD, 0, "everything durable is there");
    nonconforming(FORGETS_LAST, 0, "gave nothing");
    nonconforming(CANNOT_CLOSE, 0, "the door is stuck");
    nonconforming(CANNOT_OPEN, 0, "the key is lost");
    nonconforming(CANNOT_LOAD, 0, "the table is locked");
    nonconforming(CANNOT_SEAL, 0, "no wax");
}

static bool is_formatted(raftz_config *config) {
    bool is_formatted = false;
    OK(raftz_node_is_formatted(config, &is_formatted, &failure));
    return is_formatted;
}

static raftz_config *config_on(struct disk *disk, uint64_t id, unsigned members) {
    raftz_config *config = new_config(id, members);
    raftz_storage table = disk_table(disk);
    OK(raftz_config_set_storage(config, &table, &failure));
    return config;
}

static void found(struct cluster *cluster, struct disk *disks, enum wrong way) {
    OK(raftz_network_new(&cluster->network, &failure));
    for (unsigned at = 0; at < NODES; at++) {
        disks[at] = (struct disk)DISK_INIT;
        disks[at].wrong = way;
        cluster->configs[at] = config_on(&disks[at], at + 1, NODES);
        CHECK(!is_formatted(cluster->configs[at]));
        OK(raftz_node_bootstrap(cluster->configs[at], &failure));
        CHECK(is_formatted(cluster->configs[at]));
    }
}

static void stop_all(struct cluster *cluster, struct disk *disks) {
    for (unsigned at = 0; at < NODES; at++) {
        stop_and_free(cluster->nodes[at]);
        cluster->nodes[at] = NULL;
        CHECK(!disks[at].is_open);
    }
}

static void end(struct cluster *cluster, struct disk *disks) {
    cluster_end(cluster);
    for (unsigned at = 0; at < NODES; at++) {
        CHECK(tally_now(&disks[at].closed) == tally_now(&disks[at].opened));
        as_opened(&disks[at]);
    }
}

static uint64_t set(raftz_node *node, const char *key) {
    raftz_bytes *command = set_command(key, "value");
    raftz_reply reply = propose_surely(node, raftz_bytes_slice(command));
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
    return reply.index;
}

/* All nodes have the same, and so many keys. */
static void alike(struct cluster *cluster, uint64_t index, uint64_t keys) {
    uint64_t digest = 0;
    for (unsigned at = 0; at < NODES; at++) {
        raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
        raftz_reply reply = RAFTZ_REPLY_INIT;
        raftz_kv_reply *answer = NULL;
        raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
        raftz_bytes *request = NULL;
        opts.level = RAFTZ_READ_STALE;
        OK(raftz_node_wait_for_applied(cluster->nodes[at], index, 60000, &failure));
        OK(raftz_kv_digest(&request, &failure));
        OK(raftz_read_wait(cluster->nodes[at], raftz_bytes_slice(request), &opts, &reply, &failure));
        OK(raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &failure));
        OK(raftz_kv_reply_get(answer, &info, &failure));
        CHECK(at == 0 || (uint64_t)info.number == digest);
        CHECK(info.count == keys);
        digest = (uint64_t)info.number;
        raftz_kv_reply_free(answer);
        raftz_bytes_free(reply.bytes);
        raftz_bytes_free(request);
    }
}

/* Three nodes keep what they were told over stops and starts, whenever their stores complete; also one that was away. */
static void carrying_a_cluster(enum wrong way) {
    static struct disk disks[NODES];
    struct cluster cluster = {0};
    found(&cluster, disks, way);
    for (unsigned life = 0; life < 3; life++) {
        uint64_t index = 0;
        cluster_start(&cluster, NULL);
        unsigned leader = cluster_leader(&cluster), away = (leader + 1) % NODES;
        for (unsigned at = 0; at < 40; at++) {
            char key[32];
            if (at == 10) {
                stop_and_free(cluster.nodes[away]);
                cluster.nodes[away] = NULL;
            }
            if (at == 30) {
                cluster.nodes[away] = start_in(cluster.network, cluster.configs[away], NULL);
            }
            snprintf(key, sizeof key, "%u/%u", life, at);
            index = set(cluster.nodes[leader], key);
        }
        alike(&cluster, index, 40 * (life + 1));
        stop_all(&cluster, disks);
    }
    end(&cluster, disks);
}

/* One of three that lost entries has them again from the leader, and keeps them. */
static void healing(bool is_gone) {
    static struct disk disks[NODES];
    struct cluster cluster = {0};
    char key[32];
    uint64_t index = 0;
    found(&cluster, disks, NOTHING);
    cluster_start(&cluster, NULL);
    for (unsigned at = 0; at < 20; at++) {
        snprintf(key, sizeof key, "%u", at);
        index = set(cluster.nodes[cluster_leader(&cluster)], key);
    }
    alike(&cluster, index, 20);
    stop_all(&cluster, disks);
    struct disk *sick = &disks[1];
    CHECK(sick->count >= 20);
    uint64_t faulty = sick->entries[9].index;
    if (is_gone) {
        while (sick->count > 9) {
            free(sick->entries[--sick->count].bytes);
        }
    } else {
        sick->entries[9].bytes[20] ^= 4;
    }
    /* Alone it has nobody to have them from, and does not lead. It may be stopped meanwhile. */
    for (unsigned life = 0; life < 2; life++) {
        cluster.nodes[1] = start_in(cluster.network, cluster.configs[1], NULL);
        raftz_state_info info = state_of(cluster.nodes[1]);
        CHECK(info.damaged_from == faulty && info.last_index == faulty - 1);
        stop_and_free(cluster.nodes[1]);
    }
    cluster_start(&cluster, NULL);
    index = set(cluster.nodes[cluster_leader(&cluster)], "more");
    alike(&cluster, index, 21);
    while (state_of(cluster.nodes[1]).damaged_from != 0) {
        moment();
    }
    stop_all(&cluster, disks);
    cluster_start(&cluster, NULL);
    for (unsigned at = 0; at < NODES; at++) {
        CHECK(state_of(cluster.nodes[at]).damaged_from == 0);
    }
    index = set(cluster.nodes[cluster_leader(&cluster)], "end");
    alike(&cluster, index, 22);
    stop_all(&cluster, disks);
    end(&cluster, disks);
}

struct fault {
    struct tally told;
    char words[512];
};

static void on_event(void *user_data, const raftz_event_info *event) {
    struct fault *fault = user_data;
    if (event->kind == RAFTZ_EVENT_FAULTED) {
        CHECK(event->text.len > 0 && event->text.len < sizeof fault->words);
        memcpy(fault->words, event->text.data, event->text.len);
        tally_add(&fault->told, 1);
    }
}

/* One node on one store. */
struct alone {
    struct disk disk;
    struct fault fault;
    raftz_network *network;
    raftz_config *config;
};

static struct alone *alone(void) {
    static struct alone it;
    it = (struct alone){.disk = DISK_INIT, .fault = {TALLY_INIT, ""}};
    OK(raftz_network_new(&it.network, &failure));
    it.config = config_on(&it.disk, 1, 1);
    OK(raftz_config_set_event_callback(it.config, 1ull << RAFTZ_EVENT_FAULTED, on_event, &it.fault,
                                       NULL, &failure));
    OK(raftz_node_bootstrap(it.config, &failure));
    return &it;
}

static void alone_end(struct alone *it) {
    raftz_config_free(it->config);
    raftz_network_free(it->network);
    as_opened(&it->disk);
}

/* Writes a few entries, and stops. */
static struct alone *written(void) {
    struct alone *it = alone();
    raftz_node *node = start_in(it->network, it->config, NULL);
    for (unsigned at = 0; at < 5; at++) {
        set(node, "key");
    }
    stop_and_free(node);
    return it;
}

/* A write that fails stops the replica, with the store's words; the process goes on. */
static void failing_write(enum wrong wrong) {
    struct alone *it = alone();
    raftz_reply reply = RAFTZ_REPLY_INIT;
    it->disk.wrong = wrong;
    it->disk.after = wrong == FAILS ? it->disk.submits + 6 : 6;
    raftz_node *node = start_in(it->network, it->config, NULL);
    raftz_bytes *command = set_command("key", "value");
    raftz_status status = RAFTZ_OK;
    while (status == RAFTZ_OK) {
        status = raftz_propose_wait(node, raftz_bytes_slice(command), NULL, &reply, &failure);
        raftz_bytes_free(reply.bytes);
        reply.bytes = NULL;
    }
    CHECK(status == RAFTZ_UNKNOWN_FAULTED || status == RAFTZ_FAULTED);
    WANT(status, status);
    tally_wait(&it->fault.told, 1);
    CHECK(strstr(it->fault.words, "the disk is gone") != NULL);
    CHECK(strstr(it->fault.words, "RAFTZ_CALLBACK_FAILED") != NULL);
    uint64_t submits = it->disk.submits;
    status = raftz_propose_wait(node, raftz_bytes_slice(command), NULL, &reply, &failure);
    WANT(RAFTZ_FAULTED, status);
    raftz_bytes_free(command);
    stop_and_free(node);
    CHECK(it->disk.submits == submits && tally_now(&it->fault.told) == 1);
    /* Once the store is well again the node starts, with what it had acknowledged. */
    it->disk.wrong = NOTHING;
    stop_and_free(start_in(it->network, it->config, NULL));
    alone_end(it);
}

/* Nothing that was not completed is acknowledged, a stop does not wait for ever, and the store is ended. */
static void never_completing(void) {
    struct alone *it = alone();
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_node *node = start_in(it->network, it->config, NULL);
    OK(raftz_node_wait_for_leader(node, 60000, NULL, &failure));
    raftz_bytes *command = set_command("key", "value");
    reply = propose_surely(node, raftz_bytes_slice(command));
    raftz_bytes_free(reply.bytes);
    reply.bytes = NULL;
    it->disk.after = 0;
    it->disk.wrong = NEVER;
    opts.timeout_ms = 300;
    WANT(RAFTZ_UNKNOWN_TIMEOUT,
         raftz_propose_wait(node, raftz_bytes_slice(command), &opts, &reply, &failure));
    raftz_bytes_free(command);
    stop_and_free(node);
    CHECK(!it->disk.is_open && tally_now(&it->disk.closed) == 1);
    alone_end(it);
}

/* Entries that come back wrong are never applied: the replica stops, and says so. */
static void failing_read(enum wrong wrong, const char *words) {
    struct alone *it = written();
    it->disk.wrong = wrong;
    /* It is looked through at the start. */
    it->disk.after = it->disk.reads + 1;
    raftz_node *node = start_in(it->network, it->config, NULL);
    tally_wait(&it->fault.told, 1);
    if (strstr(it->fault.words, words) == NULL) {
        fprintf(stderr, "\"%s\", not \"%s\"\n", it->fault.words, words);
        _exit(1);
    }
    raftz_state_info info = state_of(node);
    CHECK(info.applied_index == 0);
    stop_and_free(node);
    it->disk.wrong = NOTHING;
    stop_and_free(start_in(it->network, it->config, NULL));
    alone_end(it);
}

static void cannot_start(struct alone *it, raftz_status wanted, const char *words) {
    raftz_start_opts opts = RAFTZ_START_OPTS_INIT;
    raftz_node *node = NULL;
    opts.network = it->network;
    raftz_status status = raftz_node_start(it->config, NULL, &opts, &node, &failure);
    if (status != wanted || strstr(raftz_error_message(failure), words) == NULL) {
        fprintf(stderr, "%s: \"%s\", not \"%s\"\n", raftz_status_name(status),
                raftz_error_message(failure), words);
        _exit(1);
    }
    WANT(wanted, status);
    CHECK(node == NULL && tally_now(&it->disk.opened) == tally_now(&it->disk.destroyed));
}

/* What comes back changed is found out when it is opened. */
static void garbage(void) {
    struct alone *it = written();
    uint8_t *bytes = it->disk.record.bytes;
    for (size_t at = 0; at < it->disk.record.len; at += 7) {
        bytes[at] ^= 0x20;
        cannot_start(it, RAFTZ_STORAGE, at < 4 ? "no record of raftz" : "checksum");
        bytes[at] ^= 0x20;
    }
    size_t len = it->disk.record.len;
    it->disk.record.len = 3;
    cannot_start(it, RAFTZ_STORAGE, "no record of raftz");
    it->disk.record.len = 0;
    cannot_start(it, RAFTZ_STORAGE, "not formatted");
    it->disk.record.len = len;

    struct blob *entry = &it->disk.entries[2];
    entry->bytes[9] ^= 1;
    cannot_start(it, RAFTZ_STORAGE, "checksum");
    entry->bytes[9] ^= 1;
    entry->bytes[entry->len - 1] ^= 1;
    cannot_start(it, RAFTZ_STORAGE, "checksum");
    entry->bytes[entry->len - 1] ^= 1;
    entry->len--;
    cannot_start(it, RAFTZ_STORAGE, "cut short");
    entry->len = 2;
    cannot_start(it, RAFTZ_STORAGE, "no entry");
    size_t count = it->disk.count;
    it->disk.count = 2;
    cannot_start(it, RAFTZ_STORAGE, "gave nothing for entry 3");
    it->disk.count = 0;
    cannot_start(it, RAFTZ_STORAGE, "gave nothing for entry 1");
    cannot_start(it, RAFTZ_STORAGE, "no other node");
    it->disk.count = count;
    it->disk.wrong = CANNOT_OPEN;
    cannot_start(it, RAFTZ_STORAGE, "the key is lost");
    it->disk.wrong = CANNOT_LOAD;
    cannot_start(it, RAFTZ_STORAGE, "the table is locked");
    alone_end(it);
    /* A start writes, too. */
    it = written();
    it->disk.wrong = FAILS;
    it->disk.after = 0;
    cannot_start(it, RAFTZ_STORAGE, "the disk is gone");
    alone_end(it);
}

/* A store is founded once, belongs to one node, and is open once. */
static void owning(void) {
    struct alone *it = alone();
    WANT(RAFTZ_STORAGE, raftz_node_bootstrap(it->config, &failure));
    raftz_node *node = start_in(it->network, it->config, NULL);
    raftz_config *other = config_on(&it->disk, 2, 2);
    bool is_formatted = false;
    CHECK(raftz_node_is_formatted(other, &is_formatted, &failure) == RAFTZ_STORAGE);
    CHECK(strstr(raftz_error_message(failure), "in use") != NULL);
    WANT(RAFTZ_STORAGE, RAFTZ_STORAGE);
    stop_and_free(node);
    raftz_config_free(it->config);
    it->config = other;
    cannot_start(it, RAFTZ_CONFIG, "belongs to node 1");
    raftz_bytes *shown = NULL;
    OK(raftz_config_get(other, "storage", &shown, &failure));
    CHECK(same(raftz_bytes_slice(shown), "custom"));
    raftz_bytes_free(shown);
    /* Set to something else, it is left alone. */
    uint64_t opened = tally_now(&it->disk.opened);
    OK(raftz_config_set_memory(other, &failure));
    OK(raftz_node_is_formatted(other, &is_formatted, &failure));
    stop_and_free(start_in(it->network, other, NULL));
    CHECK(is_formatted && tally_now(&it->disk.opened) == opened);
    alone_end(it);
}

/* What a store is given is of the process that opened it, not of its children. */
static void forking(void) {
    struct alone *it = alone();
    raftz_node *node = start_in(it->network, it->config, NULL);
    pid_t child = fork();
    if (child == 0) {
        raftz_slice none = {NULL, 0};
        raftz_status status = raftz_storage_complete(it->disk.completions, 1, RAFTZ_OK, none, NULL);
        _exit(status == RAFTZ_FORKED ? 0 : 1);
    }
    int ended = 1;
    CHECK(child > 0 && waitpid(child, &ended, 0) == child && ended == 0);
    stop_and_free(node);
    alone_end(it);
}

/* A seal that fails stops the replica; a store without room refuses commands, and takes them again. */
static void sealing_and_room(void) {
    struct alone *it = alone();
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_bytes *command = set_command("key", "value");
    raftz_node *node = start_in(it->network, it->config, NULL);
    reply = propose_surely(node, raftz_bytes_slice(command));
    raftz_bytes_free(reply.bytes);
    reply.bytes = NULL;
    it->disk.wrong = IS_LOW;
    raftz_status status = RAFTZ_OK;
    while (status == RAFTZ_OK) {
        status = raftz_propose_wait(node, raftz_bytes_slice(command), NULL, &reply, &failure);
        raftz_bytes_free(reply.bytes);
        reply.bytes = NULL;
    }
    WANT(RAFTZ_STORAGE_FULL, status);
    it->disk.wrong = NOTHING;
    reply = propose_surely(node, raftz_bytes_slice(command));
    raftz_bytes_free(reply.bytes);
    reply.bytes = NULL;
    CHECK(tally_now(&it->fault.told) == 0);
    it->disk.wrong = CANNOT_SEAL;
    do {
        status = raftz_propose_wait(node, raftz_bytes_slice(command), NULL, &reply, &failure);
        raftz_bytes_free(reply.bytes);
        reply.bytes = NULL;
        raftz_error_free(failure);
        failure = NULL;
        /* Long enough for the lane to be idle; else the next round is. */
        struct timespec idle = {0, 100000000};
        nanosleep(&idle, NULL);
    } while (status == RAFTZ_OK);
    tally_wait(&it->fault.told, 1);
    CHECK(strstr(it->fault.words, "no wax") != NULL);
    raftz_bytes_free(command);
    stop_and_free(node);
    it->disk.wrong = NOTHING;
    alone_end(it);
}

static void alone_nodes(void) {
    failing_write(FAILS);
    failing_write(FAILS_LATE);
    failing_read(FLIPS, "checksum");
    failing_read(SKIPS, "came where");
    failing_read(CANNOT_READ, "the head is stuck");
    failing_read(GIVES_NOTHING, "gave nothing");
    garbage();
    owning();
    sealing_and_room();
}

static void clusters(void) {
    carrying_a_cluster(LATE);
    carrying_a_cluster(BACKWARDS);
    carrying_a_cluster(NOTHING);
    healing(false);
    healing(true);
}

/* On a thread that ends: what Rust keeps of a thread is freed with it, of the main thread only with the process. */
static void *run(void *argument) {
    const char *only = argument;
    if (only == NULL || strcmp(only, "clusters") == 0) {
        clusters();
    }
    if (only == NULL || strcmp(only, "alone") == 0) {
        alone_nodes();
    }
    if (only == NULL) {
        suite();
        never_completing();
        forking();
    } else if (strcmp(only, "alone") == 0) {
        conforming(LATE, 0, 0);
        nonconforming(FLIPS, 0, "checksum");
        nonconforming(FAILS_LATE, 9, "the disk is gone");
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread;
    watchdog(240);
    CHECK(pthread_create(&thread, NULL, run, argc > 1 ? argv[1] : NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return 0;
}
