/* Clients that do a bit of everything to a few keys and tell the history of it, as those of
 * tests/src/mixed.rs do:
 *
 *   op call    <id> <at_us> <command>      before it is proposed; the id is the process's own
 *   op done    <id> <at_us> <reply>        ok:… or rejected:…
 *   op refused <id> <at_us> <words>
 *   op unknown <id> <at_us> <words>
 *
 * A call takes any of the forms that C has: a callback, one for a batch, a queue, a wait. The keys
 * change by the same clock as those of the nodes in Rust, so that both work on the same ones. */
#include "testnode.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long a key is used. */
#define KEY_LIFE_US 4000000
/* Pause after a refusal, which often comes at once and would come at once again. */
#define REFUSED_PAUSE_MS 20
/* Largest value; most are a few bytes long. */
#define VALUE_BYTES_MAX 6000
#define BATCH_MAX 4
/* A value that no client writes. */
static const char NEVER_WRITTEN[] = "\0never written";

enum verb { DELETE, SET, INCREMENT, SWAP, READ };

/* A value, or that there is none. */
struct value {
    bool is_there;
    size_t len;
    uint8_t bytes[VALUE_BYTES_MAX + KEY_BYTES];
};

struct call {
    uint64_t id;
    enum verb verb;
    char key[KEY_BYTES];
    /* What a set or a swap leaves there. */
    struct value value;
    raftz_bytes *command;
};

struct client {
    struct mixed *mixed;
    unsigned number;
    uint64_t dice;
    /* What was under this key not long ago. */
    char seen_key[KEY_BYTES];
    struct value seen;
    raftz_queue *queue;
    unsigned count;
    struct call calls[BATCH_MAX];
    pthread_mutex_t lock;
    pthread_cond_t news;
    bool is_ended;
    bool was_refused;
    pthread_t thread;
};

struct mixed {
    raftz_node *node;
    struct mix mix;
    atomic_bool is_stopping;
    struct mixed *next;
    struct client clients[];
};

static atomic_uint_fast64_t ids;

static uint64_t below(struct client *client, uint64_t bound)
{
    uint64_t drawn = client->dice += 0x9e3779b97f4a7c15;
    drawn = (drawn ^ (drawn >> 30)) * 0xbf58476d1ce4e5b9;
    drawn = (drawn ^ (drawn >> 27)) * 0x94d049bb133111eb;
    drawn ^= drawn >> 31;
    return bound > 0 ? drawn % bound : 0;
}

static raftz_slice slice_of(const struct value *value)
{
    raftz_slice slice = {value->bytes, value->len};
    return slice;
}

/* What does not fit is of no use to anybody here: it is taken for nothing. */
static void put(struct value *value, raftz_slice bytes)
{
    value->is_there = bytes.len <= sizeof value->bytes;
    value->len = value->is_there ? bytes.len : 0;
    if (value->len > 0)
        memcpy(value->bytes, bytes.data, value->len);
}

static raftz_slice never_written(void)
{
    raftz_slice slice = {(const uint8_t *)NEVER_WRITTEN, sizeof NEVER_WRITTEN - 1};
    return slice;
}

/* A number, or a word that no other call writes. */
static void draw_value(struct client *client, struct call *call, bool is_number)
{
    char text[KEY_BYTES];
    if (is_number) {
        snprintf(text, sizeof text, "%" PRIu64, call->id);
        put(&call->value, raftz_text(text));
        return;
    }
    snprintf(text, sizeof text, "%s.%u#%" PRIu64, client->mixed->mix.tag, client->number, call->id);
    put(&call->value, raftz_text(text));
    if (below(client, 30) == 0) {
        size_t more = below(client, VALUE_BYTES_MAX);
        memset(call->value.bytes + call->value.len, '.', more);
        call->value.len += more;
    }
}

/* On a key that counts words are rare: they end the counting. */
static enum verb draw_verb(struct client *client, bool counts)
{
    uint64_t drawn = below(client, 20);
    if (counts)
        return drawn == 0 ? DELETE : drawn < 3 ? SET : drawn < 8 ? READ : INCREMENT;
    if (drawn < 2)
        return drawn == 0 ? DELETE : INCREMENT;
    return drawn < 8 ? SET : drawn < 14 ? SWAP : READ;
}

static void draw(struct client *client, struct call *call)
{
    /* Few steps, so that increments of unknown ends are interchangeable: the checker would have to
     * try every subset of different ones. */
    static const int64_t STEPS[] = {1, 10, 100};
    uint64_t slot = below(client, client->mixed->mix.keys);
    raftz_error *error = NULL;
    raftz_slice key, value, never = never_written(), expected = slice_of(&client->seen);
    call->id = atomic_fetch_add(&ids, 1);
    call->verb = draw_verb(client, slot == 0);
    snprintf(call->key, sizeof call->key, "m%" PRIu64 ".%" PRIu64, slot, now_us() / KEY_LIFE_US);
    key = raftz_text(call->key);
    draw_value(client, call, slot == 0 && below(client, 2) == 0);
    value = slice_of(&call->value);
    raftz_status made = RAFTZ_OK;
    bool has_seen;
    switch (call->verb) {
    case DELETE:
        made = raftz_kv_delete(key, &call->command, &error);
        break;
    case SET:
        made = raftz_kv_set(key, value, &call->command, &error);
        break;
    case INCREMENT:
        made = raftz_kv_increment(key, slot == 0 ? STEPS[below(client, 3)] : 1, &call->command,
                                  &error);
        break;
    case SWAP:
        /* Expects what was there when this client last saw the key. */
        has_seen = client->seen.is_there && strcmp(client->seen_key, call->key) == 0;
        call->value.is_there = below(client, 8) > 0;
        made = raftz_kv_compare_and_set(key, has_seen ? &expected : NULL,
                                        call->value.is_there ? &value : NULL, &call->command,
                                        &error);
        break;
    case READ:
        made = raftz_kv_compare_and_set(key, &never, NULL, &call->command, &error);
        break;
    }
    must(made, &error);
}

static void say_call(uint64_t id, const raftz_bytes *command)
{
    say_bytes(raftz_bytes_slice(command), "op call %" PRIu64 " %" PRIu64 " ", id, now_us());
}

static void say_end(uint64_t id, const raftz_outcome *outcome)
{
    uint64_t at_us = now_us();
    if (outcome->status == RAFTZ_OK) {
        bool is_rejected = (outcome->flags & RAFTZ_OUTCOME_REJECTED) != 0;
        say_bytes(outcome->reply, "op done %" PRIu64 " %" PRIu64 " %s:", id, at_us,
                  is_rejected ? "rejected" : "ok");
    } else {
        bool is_unknown = (outcome->flags & RAFTZ_OUTCOME_UNKNOWN) != 0;
        say("op %s %" PRIu64 " %" PRIu64 " %.*s", is_unknown ? "unknown" : "refused", id, at_us,
            TEXT(outcome->message));
    }
}

/* Remembers what is under the key now. */
static void learn(struct client *client, const struct call *call, const raftz_outcome *outcome)
{
    raftz_error *error = NULL;
    raftz_kv_reply *reply = NULL;
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    char number[24];
    must(raftz_kv_reply_read(outcome->reply, outcome->flags, &reply, &error), &error);
    must(raftz_kv_reply_get(reply, &info, &error), &error);
    bool has_learnt = true;
    switch (info.kind) {
    case RAFTZ_KV_STORED:
    case RAFTZ_KV_SWAPPED:
        client->seen = call->value;
        break;
    case RAFTZ_KV_NOT_SWAPPED:
        put(&client->seen, info.value);
        client->seen.is_there = client->seen.is_there && info.is_on;
        break;
    case RAFTZ_KV_NUMBER:
        snprintf(number, sizeof number, "%" PRId64, info.number);
        put(&client->seen, raftz_text(number));
        break;
    case RAFTZ_KV_DELETED:
        client->seen.is_there = false;
        break;
    default:
        has_learnt = false;
    }
    if (has_learnt)
        strcpy(client->seen_key, call->key);
    raftz_kv_reply_free(reply);
}

/* Tells how the client's calls ended, in their order. */
static void tell_ends(struct client *client, const raftz_outcome *outcomes, size_t count)
{
    if (count != client->count)
        give_up("not as many outcomes as calls");
    client->was_refused = false;
    for (size_t at = 0; at < count; at++) {
        const raftz_outcome *outcome = &outcomes[at];
        say_end(client->calls[at].id, outcome);
        if (outcome->status == RAFTZ_OK)
            learn(client, &client->calls[at], outcome);
        else if (!(outcome->flags & RAFTZ_OUTCOME_UNKNOWN))
            client->was_refused = true;
    }
}

/* How a call that failed ended, as a completion would tell it. */
static raftz_outcome outcome_of(const raftz_error *error)
{
    raftz_outcome outcome = {0};
    outcome.status = raftz_error_status(error);
    outcome.flags = raftz_error_is_outcome_unknown(error) ? RAFTZ_OUTCOME_UNKNOWN : 0;
    outcome.message = raftz_text(raftz_error_message(error));
    return outcome;
}

/* Proposes a command and waits for it. */
static raftz_outcome propose_and_wait(raftz_node *node, const raftz_bytes *command,
                                      const raftz_propose_opts *opts, raftz_reply *reply,
                                      raftz_error **error)
{
    if (raftz_propose_wait(node, raftz_bytes_slice(command), opts, reply, error) != RAFTZ_OK)
        return outcome_of(*error);
    raftz_outcome outcome = {0};
    outcome.flags = reply->flags;
    outcome.reply = raftz_bytes_slice(reply->bytes);
    return outcome;
}

static void batch_ended(void *user_data, const raftz_outcome *outcomes, size_t count)
{
    struct client *client = user_data;
    tell_ends(client, outcomes, count);
    pthread_mutex_lock(&client->lock);
    client->is_ended = true;
    pthread_cond_signal(&client->news);
    pthread_mutex_unlock(&client->lock);
}

static void call_ended(void *user_data, const raftz_outcome *outcome)
{
    batch_ended(user_data, outcome, 1);
}

/* Waits for a completion. One that never came would be a call that never ends; the test sees it. */
static void wait_ended(struct client *client)
{
    pthread_mutex_lock(&client->lock);
    while (!client->is_ended)
        pthread_cond_wait(&client->news, &client->lock);
    client->is_ended = false;
    pthread_mutex_unlock(&client->lock);
}

static void wait_queued(struct client *client)
{
    raftz_error *error = NULL;
    raftz_event *event = NULL;
    raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
    must(raftz_queue_next(client->queue, RAFTZ_WAIT_FOREVER, &event, &error), &error);
    must(raftz_event_get(event, &info, &error), &error);
    if (info.kind != RAFTZ_EVENT_COMPLETION || info.user_data != client)
        give_up("not the completion that was asked for");
    tell_ends(client, info.outcomes, info.outcome_count);
    raftz_event_free(event);
}

/* One call in one of its forms, or a few as a batch. */
static void call(struct client *client)
{
    raftz_node *node = client->mixed->node;
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    raftz_error *error = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_outcome outcomes[BATCH_MAX];
    raftz_slice commands[BATCH_MAX];
    uint64_t form = below(client, 10);
    opts.timeout_ms = client->mixed->mix.timeout_ms;
    client->count = form < 2 ? 2 + (unsigned)below(client, 3) : 1;
    for (unsigned at = 0; at < client->count; at++) {
        draw(client, &client->calls[at]);
        commands[at] = raftz_bytes_slice(client->calls[at].command);
    }
    for (unsigned at = 0; at < client->count; at++)
        say_call(client->calls[at].id, client->calls[at].command);
    if (form == 0) {
        if (raftz_propose_batch(node, commands, client->count, &opts, batch_ended, client,
                                &error) == RAFTZ_OK)
            wait_ended(client);
    } else if (form < 5) {
        if (raftz_propose_queued(node, commands, client->count, &opts, client->queue, client,
                                 &error) == RAFTZ_OK)
            wait_queued(client);
    } else if (form < 7) {
        outcomes[0] = propose_and_wait(node, client->calls[0].command, &opts, &reply, &error);
        tell_ends(client, outcomes, 1);
        raftz_error_free(error);
        error = NULL;
    } else if (raftz_propose(node, commands[0], &opts, call_ended, client, &error) == RAFTZ_OK) {
        wait_ended(client);
    }
    if (error != NULL) {
        for (unsigned at = 0; at < client->count; at++)
            outcomes[at] = outcome_of(error);
        tell_ends(client, outcomes, client->count);
    }
    raftz_error_free(error);
    raftz_bytes_free(reply.bytes);
    for (unsigned at = 0; at < client->count; at++)
        raftz_bytes_free(client->calls[at].command);
}

/* A read past the log, confirmed by a round or, where the cluster has them, by a lease. */
static void read_key(struct client *client)
{
    struct call *call = &client->calls[0];
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_error *error = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_bytes *query = NULL;
    raftz_outcome outcome = {0};
    uint64_t slot = below(client, client->mixed->mix.keys);
    call->id = atomic_fetch_add(&ids, 1);
    snprintf(call->key, sizeof call->key, "m%" PRIu64 ".%" PRIu64, slot, now_us() / KEY_LIFE_US);
    must(raftz_kv_get(raftz_text(call->key), &query, &error), &error);
    opts.level = below(client, 2) == 0 ? RAFTZ_READ_LINEARIZABLE : RAFTZ_READ_LEASE;
    opts.timeout_ms = client->mixed->mix.timeout_ms;
    say_bytes(raftz_text(call->key), "op read %" PRIu64 " %" PRIu64 " ", call->id, now_us());
    client->was_refused = raftz_read_wait(client->mixed->node, raftz_bytes_slice(query), &opts,
                                          &reply, &error) != RAFTZ_OK;
    if (client->was_refused)
        outcome = outcome_of(error);
    outcome.reply = raftz_bytes_slice(reply.bytes);
    say_end(call->id, &outcome);
    raftz_error_free(error);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(query);
}

static void *run(void *argument)
{
    struct client *client = argument;
    while (!atomic_load(&client->mixed->is_stopping)) {
        if (below(client, 3) == 0)
            read_key(client);
        else
            call(client);
        if (client->was_refused)
            pause_ms(REFUSED_PAUSE_MS);
        pause_ms(client->mixed->mix.pace_ms);
    }
    return NULL;
}

struct mixed *mixed_begin(raftz_node *node, const struct mix *mix, struct mixed *next)
{
    struct mixed *mixed = allocate(1, sizeof *mixed + mix->clients * sizeof mixed->clients[0]);
    mixed->node = node;
    mixed->mix = *mix;
    mixed->next = next;
    for (unsigned at = 0; at < mix->clients; at++) {
        struct client *client = &mixed->clients[at];
        raftz_error *error = NULL;
        client->mixed = mixed;
        client->number = at;
        client->dice = mix->seed + at;
        must(raftz_queue_new(NULL, &client->queue, &error), &error);
        pthread_mutex_init(&client->lock, NULL);
        pthread_cond_init(&client->news, NULL);
        if (pthread_create(&client->thread, NULL, run, client) != 0)
            give_up("no thread for a client");
    }
    return mixed;
}

void mixed_halt(struct mixed *mixed)
{
    for (; mixed != NULL; mixed = mixed->next)
        atomic_store(&mixed->is_stopping, true);
}

void mixed_end(struct mixed *mixed)
{
    while (mixed != NULL) {
        struct mixed *next = mixed->next;
        for (unsigned at = 0; at < mixed->mix.clients; at++) {
            struct client *client = &mixed->clients[at];
            pthread_join(client->thread, NULL);
            pthread_cond_destroy(&client->news);
            pthread_mutex_destroy(&client->lock);
            raftz_queue_free(client->queue);
        }
        free(mixed);
        mixed = next;
    }
}

void mixed_read(raftz_node *node, const char *key, uint32_t timeout_ms)
{
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    raftz_error *error = NULL;
    raftz_bytes *command = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_slice never = never_written();
    uint64_t id = atomic_fetch_add(&ids, 1);
    opts.timeout_ms = timeout_ms;
    must(raftz_kv_compare_and_set(raftz_text(key), &never, NULL, &command, &error), &error);
    say_call(id, command);
    raftz_outcome outcome = propose_and_wait(node, command, &opts, &reply, &error);
    say_end(id, &outcome);
    raftz_error_free(error);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
}
