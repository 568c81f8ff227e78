/* Clients that write keys of their own, and need no threads: each has one write outstanding, and
 * the completion of one proposes the next. A client that was refused is idle until the load's one
 * thread, after a pause, lets it try again; one that is idle when the load ends has ended. */
#include "testnode.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pause after a refusal, which often comes at once and would come at once again. */
#define REFUSED_PAUSE_MS 2
#define TAG_BYTES 96

struct client {
    struct load *load;
    unsigned number;
    uint64_t n;
    /* Its write is on its way, and the client is the completion's. Guarded by the load's lock. */
    bool is_waiting;
    /* The last refusal: said when it changes, not at each attempt. */
    char why[WORDS_BYTES];
};

struct load {
    raftz_node *node;
    char tag[TAG_BYTES];
    pthread_mutex_t lock;
    pthread_cond_t news;
    pthread_t tender;
    bool is_stopping;
    struct load *next;
    unsigned count;
    struct client clients[];
};

static void key_of(const struct client *client, char key[KEY_BYTES])
{
    snprintf(key, KEY_BYTES, "%s.%u.%" PRIu64, client->load->tag, client->number, client->n);
}

/* The one right value under a key of a test; the test knows it, too. */
static void value_of(const char *key, char value[KEY_BYTES])
{
    uint64_t hash = 0xcbf29ce484222325;
    for (const char *byte = key; *byte != '\0'; byte++)
        hash = (hash ^ (unsigned char)*byte) * 0x100000001b3;
    snprintf(value, KEY_BYTES, "%016" PRIx64 "-%zu", hash, strlen(key));
}

static void idle(struct client *client)
{
    pthread_mutex_lock(&client->load->lock);
    client->is_waiting = false;
    pthread_cond_broadcast(&client->load->news);
    pthread_mutex_unlock(&client->load->lock);
}

static void refused(struct client *client, raftz_slice message)
{
    char why[WORDS_BYTES];
    snprintf(why, sizeof why, "%.*s", TEXT(message));
    if (strcmp(client->why, why) != 0) {
        say("refused %s", why);
        strcpy(client->why, why);
    }
    idle(client);
}

static void propose(struct client *client);

static void ended(void *user_data, const raftz_outcome *outcome)
{
    struct client *client = user_data;
    char key[KEY_BYTES];
    key_of(client, key);
    if (outcome->status == RAFTZ_OK) {
        say("ack %s", key);
        client->why[0] = '\0';
    } else if (outcome->flags & RAFTZ_OUTCOME_UNKNOWN) {
        /* It may be there or not; the next key is another write. */
        say("unknown %s", key);
    } else {
        refused(client, outcome->message);
        return;
    }
    client->n++;
    propose(client);
}

/* Proposes the client's next write, unless its load is ending. */
static void propose(struct client *client)
{
    struct load *load = client->load;
    char key[KEY_BYTES], value[KEY_BYTES];
    raftz_bytes *command = NULL;
    raftz_error *error = NULL;
    pthread_mutex_lock(&load->lock);
    bool is_stopping = load->is_stopping;
    pthread_mutex_unlock(&load->lock);
    if (is_stopping) {
        idle(client);
        return;
    }
    key_of(client, key);
    value_of(key, value);
    must(raftz_kv_set(raftz_text(key), raftz_text(value), &command, &error), &error);
    if (raftz_propose_bytes(load->node, command, NULL, ended, client, &error) != RAFTZ_OK) {
        refused(client, raftz_text(raftz_error_message(error)));
        raftz_error_free(error);
    }
}

/* Takes an idle client in hand. */
static bool take(struct client *client)
{
    pthread_mutex_lock(&client->load->lock);
    bool is_idle = !client->is_waiting;
    client->is_waiting = true;
    pthread_mutex_unlock(&client->load->lock);
    return is_idle;
}

/* Under the lock. */
static unsigned waiting(const struct load *load)
{
    unsigned count = 0;
    for (unsigned at = 0; at < load->count; at++)
        count += load->clients[at].is_waiting;
    return count;
}

static void *tend(void *argument)
{
    struct load *load = argument;
    pthread_mutex_lock(&load->lock);
    while (!load->is_stopping) {
        if (waiting(load) == load->count) {
            pthread_cond_wait(&load->news, &load->lock);
            continue;
        }
        pthread_mutex_unlock(&load->lock);
        for (unsigned at = 0; at < load->count; at++) {
            if (take(&load->clients[at]))
                propose(&load->clients[at]);
        }
        pause_ms(REFUSED_PAUSE_MS);
        pthread_mutex_lock(&load->lock);
    }
    pthread_mutex_unlock(&load->lock);
    return NULL;
}

struct load *load_begin(raftz_node *node, const char *tag, unsigned life, unsigned count,
                        struct load *next)
{
    struct load *load = allocate(1, sizeof *load + count * sizeof load->clients[0]);
    load->node = node;
    snprintf(load->tag, sizeof load->tag, "%s.%u", tag, life);
    load->next = next;
    load->count = count;
    for (unsigned at = 0; at < count; at++) {
        load->clients[at].load = load;
        load->clients[at].number = at;
    }
    pthread_mutex_init(&load->lock, NULL);
    pthread_cond_init(&load->news, NULL);
    if (pthread_create(&load->tender, NULL, tend, load) != 0)
        give_up("no thread for the load");
    return load;
}

void load_halt(struct load *load)
{
    for (; load != NULL; load = load->next) {
        pthread_mutex_lock(&load->lock);
        load->is_stopping = true;
        pthread_cond_broadcast(&load->news);
        pthread_mutex_unlock(&load->lock);
        pthread_join(load->tender, NULL);
    }
}

void load_end(struct load *load)
{
    while (load != NULL) {
        struct load *next = load->next;
        pthread_mutex_lock(&load->lock);
        while (waiting(load) > 0)
            pthread_cond_wait(&load->news, &load->lock);
        pthread_mutex_unlock(&load->lock);
        pthread_cond_destroy(&load->news);
        pthread_mutex_destroy(&load->lock);
        free(load);
        load = next;
    }
}
