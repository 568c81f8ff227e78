/* Transports of a C program's own: nodes on them keep what they were told, whatever the transport does with messages;
 * whoever does not belong is refused by name; and no misuse does more than end a link. */
#include "cluster.h"
#include "store.h"
#include "wires.h"

#include <sys/wait.h>

/* What a node told. */
struct told {
    pthread_mutex_t lock;
    char words[16384];
};

/* A link of somebody unknown, for whom there is no room for this much. */
static struct {
    raftz_links *links;
    uint64_t link;
    raftz_slice bytes;
    struct tally tried;
} no_room = {.tried = TALLY_INIT};

/* To wait for room is refused in a callback; to try is not. */
static void wait_in_callback(void) {
    raftz_error *error = NULL;
    CHECK(raftz_links_deliver(no_room.links, no_room.link, no_room.bytes, 0, NULL) == RAFTZ_BUSY);
    CHECK(raftz_links_deliver(no_room.links, no_room.link, no_room.bytes, 1000, &error) == RAFTZ_IN_CALLBACK);
    CHECK(strstr(raftz_error_message(error), "must not be done in") != NULL);
    raftz_error_free(error);
    no_room.link = 0;
    tally_add(&no_room.tried, 1);
}

static void on_event(void *user_data, const raftz_event_info *event) {
    struct told *told = user_data;
    if (event->kind == RAFTZ_EVENT_NETWORK_TROUBLE && no_room.link != 0) {
        wait_in_callback();
    }
    pthread_mutex_lock(&told->lock);
    size_t len = strlen(told->words);
    if (event->text.len + len + 32 < sizeof told->words) {
        snprintf(told->words + len, sizeof told->words - len, "%u: %.*s\n", (unsigned)event->kind,
                 (int)event->text.len, (const char *)event->text.data);
    }
    pthread_mutex_unlock(&told->lock);
}

static bool was_told(struct told *told, const char *words) {
    pthread_mutex_lock(&told->lock);
    bool was = strstr(told->words, words) != NULL;
    pthread_mutex_unlock(&told->lock);
    return was;
}

static void wait_told(struct told *told, const char *words) {
    uint64_t until = now_ms() + 30000 * slowness();
    while (!was_told(told, words)) {
        if (now_ms() > until) {
            fprintf(stderr, "\"%s\" was not told, but:\n%s\n", words, told->words);
            _exit(1);
        }
        moment();
    }
}

/* Three nodes on stores in memory, which outlive them. */
struct trio {
    struct wires *wires;
    struct disk disks[NODES];
    struct told told[NODES];
    struct cluster cluster;
};

static struct trio it;

static raftz_config *config_at(unsigned at, unsigned members) {
    raftz_config *config = new_config(at + 1, members);
    raftz_storage storage = disk_table(&it.disks[at]);
    raftz_transport transport = post_table(&it.wires->posts[at]);
    OK(raftz_config_set_storage(config, &storage, &failure));
    OK(raftz_config_set_transport(config, &transport, &failure));
    OK(raftz_config_set_event_callback(config, RAFTZ_EVENTS_ALL, on_event, &it.told[at], NULL, &failure));
    return config;
}

static void start_at(unsigned at) {
    OK(raftz_node_start(it.cluster.configs[at], NULL, NULL, &it.cluster.nodes[at], &failure));
}

static void stop_at(unsigned at) {
    stop_and_free(it.cluster.nodes[at]);
    it.cluster.nodes[at] = NULL;
}

static void found(enum way way, unsigned members) {
    memset(&it.cluster, 0, sizeof it.cluster);
    it.wires = wires_new(way);
    for (unsigned at = 0; at < members; at++) {
        it.disks[at] = (struct disk)DISK_INIT;
        it.told[at] = (struct told){PTHREAD_MUTEX_INITIALIZER, ""};
        it.cluster.configs[at] = config_at(at, members);
        OK(raftz_node_bootstrap(it.cluster.configs[at], &failure));
    }
}

static void end_all(void) {
    for (unsigned at = 0; at < NODES; at++) {
        if (it.cluster.nodes[at] != NULL) {
            stop_at(at);
        }
        raftz_config_free(it.cluster.configs[at]);
        disk_wipe(&it.disks[at]);
    }
    wires_free(it.wires);
}

/* Until it is done: what was lost on its way is written again, which is as good. */
static uint64_t set(raftz_node *node, const char *key, const char *value) {
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    raftz_bytes *command = set_command(key, value);
    raftz_reply reply = RAFTZ_REPLY_INIT;
    opts.timeout_ms = 2000 * slowness();
    while (raftz_propose_wait(node, raftz_bytes_slice(command), &opts, &reply, &failure) != RAFTZ_OK) {
        CHECK(raftz_error_is_retriable(failure) || raftz_error_is_outcome_unknown(failure));
        raftz_error_free(failure);
        failure = NULL;
    }
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
    return reply.index;
}

/* Every node that runs has the same, and so many keys. */
static void alike(uint64_t index, uint64_t keys) {
    uint64_t digest = 0;
    bool is_first = true;
    for (unsigned at = 0; at < NODES; at++) {
        raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
        raftz_reply reply = RAFTZ_REPLY_INIT;
        raftz_kv_reply *answer = NULL;
        raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
        raftz_bytes *request = NULL;
        if (it.cluster.nodes[at] == NULL) {
            continue;
        }
        opts.level = RAFTZ_READ_STALE;
        OK(raftz_node_wait_for_applied(it.cluster.nodes[at], index, 60000 * slowness(), &failure));
        OK(raftz_kv_digest(&request, &failure));
        OK(raftz_read_wait(it.cluster.nodes[at], raftz_bytes_slice(request), &opts, &reply, &failure));
        OK(raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &failure));
        OK(raftz_kv_reply_get(answer, &info, &failure));
        CHECK(info.count == keys);
        CHECK(is_first || digest == (uint64_t)info.number);
        digest = (uint64_t)info.number;
        is_first = false;
        raftz_kv_reply_free(answer);
        raftz_bytes_free(reply.bytes);
        raftz_bytes_free(request);
    }
}

/* A cluster keeps what it was told, through any node, without its leader, and with it again. */
static void carrying(enum way way) {
    char key[32];
    uint64_t index = 0, keys = 0;
    /* Of several lengths: some are copied into a message, and some are a part of their own. */
    static char values[4][100001];
    const size_t lengths[] = {1, 100, 5000, 100000};
    for (unsigned of = 0; of < 4; of++) {
        memset(values[of], 'v', lengths[of]);
    }
    found(way, NODES);
    for (unsigned at = 0; at < NODES; at++) {
        start_at(at);
    }
    for (; keys < 24; keys++) {
        snprintf(key, sizeof key, "%u", (unsigned)keys);
        index = set(it.cluster.nodes[keys % NODES], key, values[keys % 4]);
    }
    unsigned leader = cluster_leader(&it.cluster);
    stop_at(leader);
    for (; keys < 40; keys++) {
        snprintf(key, sizeof key, "%u", (unsigned)keys);
        index = set(it.cluster.nodes[(leader + 1 + keys % 2) % NODES], key, values[keys % 4]);
    }
    alike(index, keys);
    start_at(leader);
    index = set(it.cluster.nodes[leader], "last", "value");
    /* What comes garbled or fails ends links; the others stand. */
    alike(index, keys + 1);
    if (way == SEND_FAILS || way == FLIPS_BITS) {
        CHECK(tally_now(&it.wires->posts[0].ended) + tally_now(&it.wires->posts[1].ended) > 2);
    }
    if (way == PLAIN) {
        for (unsigned at = 0; at < NODES; at++) {
            CHECK(!was_told(&it.told[at], "link") && !was_told(&it.told[at], "refuse"));
        }
    }
    end_all();
}

/* No command runs twice, although each message comes twice, and some again much later, over other links. */
static void counting(enum way way) {
    const int64_t times = 60;
    found(way, 2);
    start_at(0);
    start_at(1);
    raftz_bytes *command = NULL, *request = NULL;
    OK(raftz_kv_increment(raftz_text("count"), 1, &command, &failure));
    int64_t done = 0, unknown = 0;
    for (int64_t at = 0; at < times; at++) {
        raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
        raftz_reply reply = RAFTZ_REPLY_INIT;
        opts.timeout_ms = 2000 * slowness();
        /* Half of them are handed over by the follower. */
        raftz_status status = raftz_propose_wait(it.cluster.nodes[at % 2], raftz_bytes_slice(command),
                                                 &opts, &reply, &failure);
        if (status == RAFTZ_OK) {
            done++;
            raftz_bytes_free(reply.bytes);
        } else if (raftz_error_is_outcome_unknown(failure)) {
            unknown++;
        } else {
            CHECK(raftz_error_is_retriable(failure));
            at--;
        }
        raftz_error_free(failure);
        failure = NULL;
        if (at % 20 == 19) {
            wires_cut(it.wires, 0, 1, true);
            raftz_node_wait_for_leader(it.cluster.nodes[0], 20, NULL, NULL);
            wires_cut(it.wires, 0, 1, false);
        }
    }
    set(it.cluster.nodes[0], "end", "value");
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_kv_reply *answer = NULL;
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    opts.level = RAFTZ_READ_LINEARIZABLE;
    opts.timeout_ms = 30000 * slowness();
    OK(raftz_kv_get(raftz_text("count"), &request, &failure));
    OK(raftz_read_wait(it.cluster.nodes[1], raftz_bytes_slice(request), &opts, &reply, &failure));
    OK(raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &failure));
    OK(raftz_kv_reply_get(answer, &info, &failure));
    char shown[32];
    memcpy(shown, info.value.data, info.value.len < 31 ? info.value.len : 31);
    shown[info.value.len < 31 ? info.value.len : 31] = '\0';
    int64_t counted = strtoll(shown, NULL, 10);
    if (counted < done || counted > done + unknown) {
        fprintf(stderr, "%lld were done, %lld unknown, and %s counted\n", (long long)done,
                (long long)unknown, shown);
        _exit(1);
    }
    raftz_kv_reply_free(answer);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(request);
    raftz_bytes_free(command);
    end_all();
}

static struct tally pending = TALLY_INIT, acknowledged = TALLY_INIT;

static void on_done(void *user_data, const raftz_outcome *outcome) {
    (void)user_data;
    tally_add(&pending, 1);
    if (outcome->status == RAFTZ_OK) {
        tally_add(&acknowledged, 1);
    } else {
        CHECK(raftz_status_is_outcome_unknown(outcome->status) || outcome->status == RAFTZ_NO_LEADER
              || outcome->status == RAFTZ_BUSY || outcome->status == RAFTZ_NOT_LEADER
              || outcome->status == RAFTZ_OVERWRITTEN);
    }
}

/* Two nodes lose their link in the middle of traffic. What was acknowledged is there; nothing is while it is cut; and it
 * goes on when it heals. */
static void healing(void) {
    found(PLAIN, 2);
    start_at(0);
    start_at(1);
    uint64_t sent = 0;
    set(it.cluster.nodes[0], "begin", "value");
    uint64_t before = tally_now(&pending), good = tally_now(&acknowledged);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned at = 0; at < 200; at++) {
            char key[32];
            raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
            opts.timeout_ms = 10000 * slowness();
            snprintf(key, sizeof key, "%u/%u", round, at);
            raftz_bytes *command = set_command(key, "value");
            OK(raftz_propose(it.cluster.nodes[at % 2], raftz_bytes_slice(command), &opts, on_done, NULL,
                             &failure));
            raftz_bytes_free(command);
            sent++;
            if (at == 100) {
                wires_cut(it.wires, 0, 1, true);
            }
        }
        /* Until neither has the other, and nobody leads two. */
        while (state_of(it.cluster.nodes[0]).leader_id != 0 || state_of(it.cluster.nodes[1]).leader_id != 0) {
            moment();
        }
        wait_told(&it.told[1], "hung up");
        raftz_bytes *command = set_command("cut", "value");
        raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
        raftz_reply reply = RAFTZ_REPLY_INIT;
        opts.timeout_ms = 200;
        for (unsigned at = 0; at < 2; at++) {
            raftz_status status = raftz_propose_wait(it.cluster.nodes[at], raftz_bytes_slice(command),
                                                     &opts, &reply, &failure);
            CHECK(status == RAFTZ_NO_LEADER || raftz_status_is_outcome_unknown(status));
            CHECK(status != RAFTZ_NO_LEADER || strstr(raftz_error_message(failure), "node") != NULL);
            WANT(status, status);
        }
        raftz_bytes_free(command);
        wires_cut(it.wires, 0, 1, false);
        set(it.cluster.nodes[round % 2], "healed", "value");
    }
    tally_wait(&pending, before + sent);
    uint64_t index = set(it.cluster.nodes[0], "end", "value");
    CHECK(tally_now(&acknowledged) > good);
    /* Every acknowledged write is there; of the others those that were committed are. */
    OK(raftz_node_wait_for_applied(it.cluster.nodes[1], index, 60000, &failure));
    raftz_bytes *request = NULL;
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    uint64_t counts[2], digests[2];
    OK(raftz_kv_digest(&request, &failure));
    opts.level = RAFTZ_READ_STALE;
    for (unsigned at = 0; at < 2; at++) {
        raftz_reply reply = RAFTZ_REPLY_INIT;
        raftz_kv_reply *answer = NULL;
        raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
        OK(raftz_node_wait_for_applied(it.cluster.nodes[at], index, 60000, &failure));
        OK(raftz_read_wait(it.cluster.nodes[at], raftz_bytes_slice(request), &opts, &reply, &failure));
        OK(raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &failure));
        OK(raftz_kv_reply_get(answer, &info, &failure));
        counts[at] = info.count;
        digests[at] = (uint64_t)info.number;
        raftz_kv_reply_free(answer);
        raftz_bytes_free(reply.bytes);
    }
    raftz_bytes_free(request);
    CHECK(counts[0] == counts[1] && digests[0] == digests[1]);
    CHECK(counts[0] >= tally_now(&acknowledged) - good + 3);
    end_all();
}

/* A node of another cluster, one whose founders differ, and a member that lost its disk are refused by name. */
static void refusing(void) {
    found(PLAIN, NODES);
    /* The same id and address in another cluster. */
    raftz_config *other = NULL;
    OK(raftz_config_new(3, "bad", &other, &failure));
    for (unsigned member = 1; member <= NODES; member++) {
        char address[32];
        snprintf(address, sizeof address, "127.0.0.1:%u", 7000 + member);
        OK(raftz_config_add_founder(other, member, address, &failure));
    }
    raftz_transport transport = post_table(&it.wires->posts[2]);
    OK(raftz_config_set_transport(other, &transport, &failure));
    OK(raftz_config_set_event_callback(other, RAFTZ_EVENTS_ALL, on_event, &it.told[2], NULL, &failure));
    start_at(0);
    start_at(1);
    raftz_node *stranger = NULL;
    OK(raftz_node_start(other, NULL, NULL, &stranger, &failure));
    wait_told(&it.told[0], "is not this node's cluster 000000000000000000000000000000c1");
    /* Who is refused is told less, and says it to whoever asks. */
    raftz_status status = raftz_node_wait_for_leader(stranger, 3000, NULL, &failure);
    CHECK(status == RAFTZ_LEADER_TIMEOUT);
    CHECK(strstr(raftz_error_message(failure), "not this node's cluster") != NULL);
    WANT(RAFTZ_LEADER_TIMEOUT, status);
    stop_and_free(stranger);
    raftz_config_free(other);

    /* Other founders. */
    OK(raftz_config_new(3, "c1", &other, &failure));
    OK(raftz_config_add_founder(other, 3, "127.0.0.1:7003", &failure));
    OK(raftz_config_add_founder(other, 1, "127.0.0.1:7001", &failure));
    OK(raftz_config_set_transport(other, &transport, &failure));
    OK(raftz_node_start(other, NULL, NULL, &stranger, &failure));
    wait_told(&it.told[0], "another list of founders");
    stop_and_free(stranger);
    raftz_config_free(other);

    /* The real one; and once the others know its disk, one that lost it. */
    start_at(2);
    uint64_t index = set(it.cluster.nodes[0], "key", "value");
    alike(index, 1);
    unsigned leader = cluster_leader(&it.cluster);
    uint64_t until = now_ms() + 30000 * slowness();
    while (state_of(it.cluster.nodes[leader]).disk_count < 3) {
        CHECK(now_ms() < until);
        moment();
    }
    index = set(it.cluster.nodes[0], "more", "value");
    alike(index, 2);
    stop_at(2);
    disk_wipe(&it.disks[2]);
    OK(raftz_node_bootstrap(it.cluster.configs[2], &failure));
    start_at(2);
    wait_told(&it.told[0], "is a member with data directory");
    /* It faults, and says so. */
    wait_told(&it.told[2], "by another data directory");
    until = now_ms() + 30000 * slowness();
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_bytes *command = set_command("key", "value");
    status = RAFTZ_OK;
    while (status != RAFTZ_FAULTED && status != RAFTZ_UNKNOWN_FAULTED) {
        CHECK(now_ms() < until);
        raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
        opts.timeout_ms = 100;
        status = raftz_propose_wait(it.cluster.nodes[2], raftz_bytes_slice(command), &opts, &reply, NULL);
    }
    raftz_bytes_free(command);
    set(it.cluster.nodes[0], "end", "value");
    end_all();
}

/* A node whose transport leads nowhere, and what a program might do with its links. */
static struct post *lonely(enum way way) {
    found(way, 2);
    struct post *post = &it.wires->posts[0];
    /* Nobody dials by itself. */
    wires_cut(it.wires, 0, 1, true);
    return post;
}

static struct wire_end *nowhere(struct post *post, uint64_t peer) {
    wires_lock(post->wires);
    struct wire *wire = wire_between(post, NULL, peer);
    struct wire_end *end = &wire->ends[0];
    CHECK(end->link > 0 && !end->is_ended);
    wires_unlock(post->wires);
    return end;
}

/* It is ended, and why. */
static void wait_ended(struct wire_end *end, const char *words) {
    struct wires *wires = end->post->wires;
    wires_lock(wires);
    while (!end->is_ended) {
        wires_unlock(wires);
        moment();
        wires_lock(wires);
    }
    if (strstr(end->words, words) == NULL) {
        fprintf(stderr, "\"%s\", not \"%s\"\n", end->words, words);
        _exit(1);
    }
    wire_release(end->wire);
    wires_unlock(wires);
}

/* The first words of a handshake, as they were sent. */
static size_t caught(struct post *post, uint8_t *bytes, size_t room) {
    uint64_t until = now_ms() + 30000 * slowness();
    for (;;) {
        wires_lock(post->wires);
        size_t len = post->caught_len;
        if (len > 0) {
            CHECK(len <= room);
            memcpy(bytes, post->caught, len);
            post->caught_len = 0;
            wires_unlock(post->wires);
            return len;
        }
        wires_unlock(post->wires);
        CHECK(now_ms() < until);
        moment();
    }
}

static void ended_link(raftz_links *links, uint64_t link) {
    raftz_slice none = {NULL, 0};
    WANT(RAFTZ_CLOSED, raftz_links_deliver(links, link, none, 0, &failure));
    WANT(RAFTZ_CLOSED, raftz_links_ready(links, link, &failure));
    WANT(RAFTZ_CLOSED, raftz_links_down(links, link, none, &failure));
}

/* Gives what is no message, which ends the link, with words. */
static void bad_message(raftz_links *links, struct wire_end *end, raftz_slice bytes, const char *words) {
    raftz_status status = raftz_links_deliver(links, end->link, bytes, 0, &failure);
    CHECK(strstr(raftz_error_message(failure), words) != NULL);
    WANT(RAFTZ_INVALID_ARG, status);
    ended_link(links, end->link);
    wait_ended(end, words);
}

static void misusing(void) {
    struct post *post = lonely(PLAIN);
    start_at(0);
    raftz_links *links = post->links;
    raftz_slice none = {NULL, 0};
    /* Links that never were. */
    for (unsigned at = 0; at < 2; at++) {
        uint64_t link = at == 0 ? 0 : 99;
        WANT(RAFTZ_INVALID_ARG, raftz_links_deliver(links, link, none, 0, &failure));
        WANT(RAFTZ_INVALID_ARG, raftz_links_ready(links, link, &failure));
        WANT(RAFTZ_INVALID_ARG, raftz_links_down(links, link, none, &failure));
    }
    WANT(RAFTZ_INVALID_ARG, raftz_links_unreachable(links, 0, none, &failure));
    /* What is no message. */
    static uint8_t hello[2048], changed[2048], refusal[2048];
    struct wire_end *end = nowhere(post, 2);
    size_t len = caught(post, hello, sizeof hello);
    OK(raftz_links_down(links, end->link, raftz_text("the cable is cut"), &failure));
    WANT(RAFTZ_CLOSED, raftz_links_down(links, end->link, none, &failure));
    wait_ended(end, "the cable is cut");
    size_t most = raftz_links_bytes_max(links);
    CHECK(most > (32u << 20) && most < (64u << 20));
    uint8_t *large = calloc(1, most + 1);
    CHECK(large != NULL);
    struct wire_end *unknown = nowhere(post, 0);
    no_room.links = links;
    no_room.bytes = (raftz_slice){large, most};
    no_room.link = unknown->link;
    uint64_t tried = tally_now(&no_room.tried);
    const char *garbage[] = {"", "x", "HTTP/1.1 200 OK, and what a server says",
                             "RFHS\1\0\0\0\0\0\0\0 and more of it"};
    for (unsigned at = 0; at < sizeof garbage / sizeof *garbage; at++) {
        bad_message(links, nowhere(post, 0), raftz_text(garbage[at]), "message");
    }
    wait_told(&it.told[0], "was ended: ");
    tally_wait(&no_room.tried, tried + 1);
    OK(raftz_links_down(links, unknown->link, none, &failure));
    wait_ended(unknown, "the program says that it is down");
    /* Every bit of it counts. */
    for (size_t at = 0; at < len; at += 11) {
        memcpy(changed, hello, len);
        changed[at] ^= 0x40;
        bad_message(links, nowhere(post, 0), (raftz_slice){changed, len}, "");
    }
    /* Too large, as it says. */
    bad_message(links, nowhere(post, 0), (raftz_slice){large, most + 1}, "at most");
    /* As large as can be is not taken of somebody unknown, and waits no longer than it may. */
    end = nowhere(post, 0);
    uint64_t begun = now_ms();
    WANT(RAFTZ_BUSY, raftz_links_deliver(links, end->link, (raftz_slice){large, most}, 0, &failure));
    WANT(RAFTZ_BUSY, raftz_links_deliver(links, end->link, (raftz_slice){large, most}, 50, &failure));
    CHECK(now_ms() - begun >= 50);
    /* Nor for ever: a handshake has its time, and who waits is told. */
    WANT(RAFTZ_CLOSED, raftz_links_deliver(links, end->link, (raftz_slice){large, most}, 60000, &failure));
    free(large);
    wait_ended(end, "the handshake took longer than 3000 ms");
    /* Its own hello comes back: it has reached itself, and says so, on the wire as well. */
    end = nowhere(post, 0);
    OK(raftz_links_deliver(links, end->link, (raftz_slice){hello, len}, 0, &failure));
    wait_ended(end, "reached itself");
    wait_told(&it.told[0], "reached itself");
    size_t refused = caught(post, refusal, sizeof refusal);
    CHECK(has((raftz_slice){refusal, refused}, "RFHS") && has((raftz_slice){refusal, refused}, "itself"));
    /* Where an answer is awaited, a hello counts for nothing, nor does what is addressed to another link. */
    end = nowhere(post, 2);
    OK(raftz_links_deliver(links, end->link, (raftz_slice){hello, len}, 0, &failure));
    OK(raftz_links_deliver(links, end->link, (raftz_slice){refusal, refused}, 0, &failure));
    OK(raftz_links_ready(links, end->link, &failure));
    OK(raftz_links_down(links, end->link, none, &failure));
    wait_ended(end, "the program says that it is down");
    OK(raftz_links_unreachable(links, 2, raftz_text("there is no road"), &failure));
    raftz_status status = raftz_node_wait_for_leader(it.cluster.nodes[0], 500, NULL, &failure);
    CHECK(status == RAFTZ_LEADER_TIMEOUT);
    CHECK(strstr(raftz_error_message(failure), "there is no") != NULL);
    WANT(RAFTZ_LEADER_TIMEOUT, status);
    /* More links than there may be. */
    static struct wire_end *many[4096];
    unsigned count = 0;
    for (status = RAFTZ_OK; status == RAFTZ_OK; count++) {
        CHECK(count < 4096);
        struct wire *wire = calloc(1, sizeof *wire);
        CHECK(wire != NULL);
        many[count] = &wire->ends[0];
        wire->ends[0] = (struct wire_end){.post = post, .wire = wire};
        wire->ends[1] = (struct wire_end){.wire = wire, .is_ended = true};
        wire->held = 2;
        wires_lock(post->wires);
        status = raftz_links_up(links, 0, many[count], &many[count]->link, &failure);
        if (status == RAFTZ_OK) {
            tally_add(&post->up, 1);
        }
        wires_unlock(post->wires);
    }
    CHECK(count > 1024);
    WANT(RAFTZ_BUSY, status);
    free(many[--count]->wire);
    /* All of them are ended with the node, if not before. */
    stop_at(0);
    CHECK(tally_now(&post->ended) == tally_now(&post->up));
    while (count > 0) {
        wait_ended(many[--count], "");
    }
    end_all();
}

/* Many threads give what they have, good and bad, while links come and go. */
static void *flood(void *argument) {
    struct post *post = argument;
    raftz_links *links = post->links;
    uint8_t bytes[64];
    for (unsigned at = 0; at < 2000; at++) {
        uint64_t link = at % 7 + 1;
        memset(bytes, (int)at, sizeof bytes);
        raftz_error *error = NULL;
        raftz_slice slice = {bytes, at % sizeof bytes};
        raftz_status status = at % 50 == 0 ? raftz_links_deliver(links, link, slice, 0, &error)
                              : at % 50 == 1 ? raftz_links_down(links, link, slice, &error)
                              : at % 3 == 0 ? raftz_links_ready(links, link, &error)
                                            : raftz_links_unreachable(links, at, slice, &error);
        CHECK(status == RAFTZ_OK || status == RAFTZ_CLOSED || status == RAFTZ_INVALID_ARG
              || status == RAFTZ_BUSY);
        CHECK((status == RAFTZ_OK) == (error == NULL));
        raftz_error_free(error);
    }
    return NULL;
}

static void flooding(void) {
    found(FROM_MANY_THREADS, 2);
    start_at(0);
    start_at(1);
    set(it.cluster.nodes[0], "key", "value");
    pthread_t threads[4];
    for (unsigned at = 0; at < 4; at++) {
        CHECK(pthread_create(&threads[at], NULL, flood, &it.wires->posts[at % 2]) == 0);
    }
    for (unsigned at = 0; at < 4; at++) {
        CHECK(pthread_join(threads[at], NULL) == 0);
    }
    alike(set(it.cluster.nodes[1], "more", "value"), 2);
    end_all();
}

/* A send that never returns keeps nobody waiting for longer than he said. */
static void blocking(bool has_stop) {
    found(PLAIN, 2);
    struct post *post = &it.wires->posts[0];
    post->has_no_stop = !has_stop;
    raftz_config_free(it.cluster.configs[0]);
    it.cluster.configs[0] = config_at(0, 2);
    start_at(0);
    start_at(1);
    set(it.cluster.nodes[0], "key", "value");
    post->after = tally_now(&post->sends);
    post->way = BLOCKS;
    tally_wait(&post->blocked, 1);
    /* The other one misses it, and says since when. */
    while (state_of(it.cluster.nodes[1]).leader_id != 0) {
        moment();
    }
    uint64_t begun = now_ms();
    if (has_stop) {
        OK(raftz_node_stop(it.cluster.nodes[0], 30000 * slowness(), &failure));
        CHECK(now_ms() - begun < 20000 * slowness());
    } else {
        WANT(RAFTZ_STILL_RUNNING, raftz_node_stop(it.cluster.nodes[0], 500, &failure));
        CHECK(tally_now(&post->destroyed) == 0);
        wires_lock(it.wires);
        post->way = PLAIN;
        pthread_cond_broadcast(&post->work);
        wires_unlock(it.wires);
        OK(raftz_node_stop(it.cluster.nodes[0], 60000, &failure));
    }
    CHECK(tally_now(&post->destroyed) == 1);
    raftz_node_free(it.cluster.nodes[0]);
    it.cluster.nodes[0] = NULL;
    end_all();
}

/* Without a word from either side for six seconds a link is over, and another one is as good. */
static void silent(void) {
    found(PLAIN, 2);
    start_at(0);
    start_at(1);
    set(it.cluster.nodes[0], "key", "value");
    struct post *post = &it.wires->posts[1];
    post->after = tally_now(&post->sends);
    post->way = BLOCKS;
    tally_wait(&post->blocked, 1);
    wait_told(&it.told[0], "nothing was heard for 6000 ms");
    /* The other one hears of that, and what waits there is not sent any more. */
    wait_told(&it.told[1], "the other side hung up");
    wires_lock(it.wires);
    post->way = PLAIN;
    pthread_cond_broadcast(&post->work);
    wires_unlock(it.wires);
    alike(set(it.cluster.nodes[1], "more", "value"), 2);
    end_all();
}

static raftz_status no_machine(void *user_data, raftz_sink *why, void **machine) {
    (void)user_data, (void)why, (void)machine;
    return RAFTZ_CALLBACK_FAILED;
}

static raftz_status no_apply(void *machine, const raftz_command *commands, size_t count,
                             raftz_replies *replies) {
    (void)machine, (void)commands, (void)count, (void)replies;
    return RAFTZ_CALLBACK_FAILED;
}

static void starting(void) {
    found(OPEN_FAILS, 1);
    raftz_node *node = NULL;
    raftz_status status = raftz_node_start(it.cluster.configs[0], NULL, NULL, &node, &failure);
    CHECK(strstr(raftz_error_message(failure), "the line is dead") != NULL);
    CHECK(strstr(raftz_error_message(failure), "RAFTZ_CALLBACK_FAILED") != NULL);
    WANT(RAFTZ_NETWORK, status);
    CHECK(node == NULL && tally_now(&it.wires->posts[0].destroyed) == 0);
    wires_set(it.wires, PLAIN);
    /* One network or the other. */
    raftz_start_opts opts = RAFTZ_START_OPTS_INIT;
    raftz_network *network = NULL;
    OK(raftz_network_new(&network, &failure));
    opts.network = network;
    WANT(RAFTZ_INVALID_ARG, raftz_node_start(it.cluster.configs[0], NULL, &opts, &node, &failure));
    raftz_network_free(network);
    /* A start that fails after the transport was opened ends it. */
    raftz_machine machine = RAFTZ_MACHINE_INIT;
    machine.create = no_machine;
    machine.apply = no_apply;
    WANT(RAFTZ_MACHINE, raftz_node_start(it.cluster.configs[0], &machine, NULL, &node, &failure));
    CHECK(tally_now(&it.wires->posts[0].opened) == 1 && tally_now(&it.wires->posts[0].destroyed) == 1);
    start_at(0);
    set(it.cluster.nodes[0], "key", "value");
    raftz_bytes *address = NULL;
    OK(raftz_node_listen_address(it.cluster.nodes[0], &address, &failure));
    CHECK(raftz_bytes_slice(address).len == 0);
    raftz_bytes_free(address);
    end_all();
}

/* What a transport is given is of the process that opened it, not of its children. */
static void forking(void) {
    found(PLAIN, 1);
    start_at(0);
    pid_t child = fork();
    if (child == 0) {
        raftz_links *links = it.wires->posts[0].links;
        raftz_slice none = {NULL, 0};
        uint64_t link = 0;
        bool is_refused = raftz_links_up(links, 2, NULL, &link, NULL) == RAFTZ_FORKED
                          && raftz_links_deliver(links, 1, none, 0, NULL) == RAFTZ_FORKED
                          && raftz_links_bytes_max(links) == 0;
        _exit(is_refused ? 0 : 1);
    }
    int ended = 1;
    CHECK(child > 0 && waitpid(child, &ended, 0) == child && ended == 0);
    end_all();
}

static void all_ways(void) {
    for (enum way way = PLAIN; way <= SEND_FAILS; way++) {
        carrying(way);
    }
    counting(DOUBLES);
    counting(LATE_AGAIN);
}

static void links(void) {
    starting();
    refusing();
    misusing();
    flooding();
    blocking(true);
    blocking(false);
}

static void breaks(void) {
    healing();
    silent();
}

/* On a thread that ends: what Rust keeps of a thread is freed with it, of the main thread only with the process. */
static void *run(void *argument) {
    const char *only = argument;
    bool all = only == NULL, is_short = !all && strcmp(only, "short") == 0;
    if (all || strcmp(only, "ways") == 0) {
        all_ways();
    }
    if (is_short) {
        carrying(HANDS_OVER);
        counting(LATE_AGAIN);
    }
    if (all || is_short || strcmp(only, "links") == 0) {
        links();
    }
    if (all || strcmp(only, "links") == 0) {
        forking();
    }
    if (all || strcmp(only, "breaks") == 0) {
        breaks();
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t thread;
    watchdog(280);
    CHECK(pthread_create(&thread, NULL, run, argc > 1 ? argv[1] : NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return 0;
}
