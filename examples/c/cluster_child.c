/*
 * A child of cluster.c: one raftz node, and one writer that goes through it.
 *
 * What it acknowledges to its parent is what the node acknowledged to it, and nothing sooner.
 */
#define _GNU_SOURCE

#include <pthread.h>
#include <stdarg.h>
#include <unistd.h>

#include "cluster.h"

/* Keys asked for at once when the store is read back. */
enum { PAGE = 500 };

typedef struct child {
    int id;
    const char *root;
    /* Where the writer begins: all before was acknowledged. */
    uint64_t from;
    char **addresses;
    /* For the test of the test: hides one key when the store is read back. */
    bool is_liar;
    raftz_node *node;
    /* Where the writer's proposals end. */
    raftz_queue *queue;
} child;

/* Tells the parent a line: whole, in one write, since several threads tell. */
static void tell(const char *format, ...) {
    char line[2 * LINE_BYTES];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    if (length > (int)sizeof line - 2) {
        length = (int)sizeof line - 2;
    }
    line[length] = '\n';
    /* Nobody to tell means that the parent is gone, which the end of the orders says too. */
    (void)!write(STDOUT_FILENO, line, (size_t)length + 1);
}

/* As ok(), to the parent. */
static bool told(raftz_status status, raftz_error **error) {
    if (status != RAFTZ_OK) {
        tell("fatal %s: %s", raftz_status_name(status), raftz_error_message(*error));
        raftz_error_free(*error);
        *error = NULL;
    }
    return status == RAFTZ_OK;
}

static void on_event(void *user_data, const raftz_event_info *event) {
    (void)user_data;
    if (event->kind == RAFTZ_EVENT_FAULTED) {
        tell("fatal %.*s", (int)event->text.len, (const char *)event->text.data);
    } else if (event->kind == RAFTZ_EVENT_SNAPSHOT) {
        if (event->phase == RAFTZ_SNAPSHOT_BUILT) {
            tell("built %" PRIu64, event->index);
        } else if (event->phase == RAFTZ_SNAPSHOT_INSTALLED) {
            tell("installed %" PRIu64, event->index);
        }
    } else if (event->role == RAFTZ_ROLE_LEADER) {
        tell("leads %" PRIu64, event->term);
    } else {
        tell("follows %" PRIu64, event->term);
    }
}

static bool child_start(child *self) {
    raftz_error *error = NULL;
    raftz_config *config = NULL;
    bool is_formatted = false;
    char directory[4096];
    const uint64_t kinds =
        1u << RAFTZ_EVENT_ROLE | 1u << RAFTZ_EVENT_FAULTED | 1u << RAFTZ_EVENT_SNAPSHOT;
    snprintf(directory, sizeof directory, "%s/node-%d", self->root, self->id);
    bool started =
        told(raftz_config_new((uint64_t)self->id, "c1a5", &config, &error), &error) &&
        told(raftz_config_set_directory(config, directory, &error), &error) &&
        told(raftz_config_set_listen_address(config, self->addresses[self->id - 1], &error),
             &error) &&
        /* Far fewer than the default, so that a few seconds are enough to outrun a dead node. */
        told(raftz_config_set(config, "snapshot_log_entries", "200", &error), &error) &&
        told(raftz_config_set(config, "snapshot_retain_bytes", "0", &error), &error) &&
        told(raftz_config_set_event_callback(config, kinds, on_event, NULL, NULL, &error), &error);
    for (int id = 1; id <= NODES && started; id++) {
        const char *address = self->addresses[id - 1];
        started = told(raftz_config_add_founder(config, (uint64_t)id, address, &error), &error);
    }
    started = started && told(raftz_node_is_formatted(config, &is_formatted, &error), &error) &&
              (is_formatted || told(raftz_node_bootstrap(config, &error), &error)) &&
              told(raftz_queue_new(NULL, &self->queue, &error), &error) &&
              told(raftz_node_start(config, NULL, NULL, &self->node, &error), &error);
    raftz_config_free(config);
    return started;
}

/* Proposes commands and takes those out that are done. What was refused is certainly not in the
 * log. What is unknown may be, but giving a key the same value twice is as good as once: so the
 * rest may all be tried again. */
static bool propose(child *self, raftz_bytes **commands, size_t *count, raftz_outcome *last) {
    raftz_error *error = NULL;
    raftz_event *event = NULL;
    raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
    raftz_slice slices[BATCH];
    for (size_t at = 0; at < *count; at++) {
        slices[at] = raftz_bytes_slice(commands[at]);
    }
    const raftz_status status =
        raftz_propose_queued(self->node, slices, *count, NULL, self->queue, NULL, &error);
    if (status != RAFTZ_OK && raftz_error_is_retriable(error)) {
        raftz_error_free(error);
        return true;
    }
    /* A call ends by its deadline, be it with an unknown outcome. */
    if (!told(status, &error) ||
        !told(raftz_queue_next(self->queue, WAIT_MS, &event, &error), &error) ||
        !told(raftz_event_get(event, &info, &error), &error)) {
        raftz_event_free(event);
        return false;
    }
    size_t left = 0;
    bool is_right = true;
    for (size_t at = 0; at < info.outcome_count; at++) {
        const raftz_outcome *outcome = &info.outcomes[at];
        if (outcome->status != RAFTZ_OK) {
            commands[left++] = commands[at];
            continue;
        }
        is_right = is_right && (outcome->flags & RAFTZ_OUTCOME_REJECTED) == 0;
        last->index = outcome->index > last->index ? outcome->index : last->index;
        last->term = outcome->term > last->term ? outcome->term : last->term;
        raftz_bytes_free(commands[at]);
    }
    *count = left;
    raftz_event_free(event);
    if (!is_right) {
        tell("fatal a set was rejected");
    }
    return is_right;
}

/* Writes until the process is killed, and tells each batch once all of it is acknowledged. */
static void *writer_main(void *argument) {
    child *self = argument;
    for (uint64_t next = self->from;; next += BATCH) {
        raftz_error *error = NULL;
        raftz_bytes *commands[BATCH];
        raftz_outcome last = {.index = 0};
        size_t count = 0;
        bool goes_on = true;
        for (; count < BATCH && goes_on; count += goes_on) {
            char key[LINE_BYTES], value[LINE_BYTES];
            pair(key, value, self->id, next + count);
            goes_on = told(raftz_kv_set(raftz_text(key), raftz_text(value), &commands[count],
                                        &error),
                           &error);
        }
        while (count > 0 && goes_on) {
            goes_on = propose(self, commands, &count, &last);
            if (count > 0) {
                pause_ms(5);
            }
        }
        if (!goes_on) {
            while (count > 0) {
                raftz_bytes_free(commands[--count]);
            }
            return NULL;
        }
        tell("acked %" PRIu64 " %" PRIu64 " %" PRIu64, next + BATCH, last.term, last.index);
    }
}

/* One more write. When it is done, all that any dead leader has left in the log is before it. */
static bool child_mark(child *self) {
    const uint64_t deadline = now_ms() + PATIENCE_MS;
    raftz_error *error = NULL;
    raftz_bytes *command = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    if (!told(raftz_kv_set(raftz_text("mark"), raftz_text("set"), &command, &error), &error)) {
        return false;
    }
    raftz_status status = RAFTZ_NO_LEADER;
    do {
        raftz_error_free(error);
        error = NULL;
        status = raftz_propose_wait(self->node, raftz_bytes_slice(command), NULL, &reply, &error);
    } while (status != RAFTZ_OK && now_ms() < deadline);
    if (told(status, &error)) {
        tell("marked %" PRIu64, reply.index);
    }
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
    return status == RAFTZ_OK;
}

/* Tells a page of the node's own store; `last` is the key before it and becomes its last. */
static bool child_page(child *self, uint64_t index, char *last, bool *more) {
    raftz_error *error = NULL;
    raftz_bytes *request = NULL;
    raftz_kv_reply *answer = NULL;
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    raftz_slice key = {NULL, 0}, value = {NULL, 0};
    const raftz_slice after = raftz_text(last);
    bool read = told(raftz_kv_scan(raftz_text(""), after.len > 0 ? &after : NULL, PAGE, &request,
                                   &error),
                     &error) &&
                kv_ask(self->node, index, request, &answer, &info);
    for (size_t at = 0; read && at < info.count; at++) {
        read = told(raftz_kv_reply_entry(answer, at, &key, &value, &error), &error) &&
               key.len < LINE_BYTES;
        if (read && !(self->is_liar && after.len == 0 && at == 6)) {
            tell("pair %.*s %.*s", (int)key.len, (const char *)key.data, (int)value.len,
                 (const char *)value.data);
        }
    }
    if (read && info.count > 0) {
        memcpy(last, key.data, key.len);
        last[key.len] = '\0';
    }
    *more = info.is_on != 0;
    raftz_kv_reply_free(answer);
    return read;
}

static bool child_dump(child *self, uint64_t index) {
    char last[LINE_BYTES] = "";
    uint64_t keys = 0, digest = 0;
    for (bool more = true; more;) {
        if (!child_page(self, index, last, &more)) {
            return false;
        }
    }
    if (!kv_digest(self->node, index, &keys, &digest)) {
        return false;
    }
    tell("store %" PRIu64 " %016" PRIx64, keys, digest);
    return true;
}

/* Does as it is ordered, until it is told to stop or nobody is there any more to tell it. */
int child_main(char **arguments) {
    child self = {.id = atoi(arguments[0]),
                  .root = arguments[1],
                  .from = strtoull(arguments[2], NULL, 10),
                  .is_liar = strcmp(arguments[3], "lie") == 0,
                  .addresses = &arguments[4]};
    pthread_t writer;
    char order[LINE_BYTES];
    bool goes_on = child_start(&self), is_writing = false, was_stopped = false;
    if (goes_on) {
        tell("ready");
    }
    while (goes_on && !was_stopped && fgets(order, sizeof order, stdin) != NULL) {
        uint64_t index = 0;
        if (strcmp(order, "write\n") == 0) {
            is_writing = goes_on = pthread_create(&writer, NULL, writer_main, &self) == 0;
        } else if (strcmp(order, "mark\n") == 0) {
            goes_on = child_mark(&self);
        } else if (sscanf(order, "dump %" SCNu64, &index) == 1) {
            goes_on = child_dump(&self, index);
        } else {
            was_stopped = strcmp(order, "stop\n") == 0;
        }
    }
    /* This ends the writer's calls too, and with them the writer. */
    raftz_error *error = NULL;
    was_stopped = (self.node == NULL ||
                   told(raftz_node_stop(self.node, PATIENCE_MS, &error), &error)) &&
                  was_stopped;
    if (is_writing) {
        pthread_join(writer, NULL);
    }
    raftz_node_free(self.node);
    raftz_queue_free(self.queue);
    return was_stopped ? EXIT_SUCCESS : EXIT_FAILURE;
}
