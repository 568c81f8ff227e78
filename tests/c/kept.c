/*
 * A machine that persists itself: it is given everything once, whatever number of times its node starts,
 * and is not taken with a log that is not its own.
 *
 *     kept <folder>
 */
#include "check.h"

/* What such a machine would keep in a file of its own. */
struct store {
    uint64_t applied_index;
    uint64_t commands;
    uint64_t asked;
    bool fails;
};

static raftz_status apply(void *machine, const raftz_command *commands, size_t count,
                          raftz_replies *replies) {
    struct store *store = machine;
    for (size_t at = 0; at < count; at++) {
        /* Twice, or out of order, would be a failure of the library. */
        CHECK(commands[at].index > store->applied_index);
        store->applied_index = commands[at].index;
        store->commands++;
        raftz_replies_push(replies, commands[at].data);
    }
    return RAFTZ_OK;
}

static raftz_status applied_index(void *machine, raftz_sink *why, uint64_t *index) {
    struct store *store = machine;
    store->asked++;
    /* Words alone are no failure. */
    raftz_sink_fail(why, raftz_text("nothing is wrong"));
    *index = store->applied_index;
    if (store->fails) {
        raftz_sink_fail(why, raftz_text("the file is gone"));
    }
    return store->fails ? RAFTZ_CALLBACK_FAILED : RAFTZ_OK;
}

static raftz_config *configured(const char *folder, const char *name) {
    char path[4096];
    raftz_config *config = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    OK(raftz_config_new(1, "5e1f", &config, &failure));
    OK(raftz_config_add_founder(config, 1, "127.0.0.1:9", &failure));
    OK(raftz_config_set_directory(config, path, &failure));
    OK(raftz_node_bootstrap(config, &failure));
    return config;
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    watchdog(120);
    struct store store = {0, 0, 0, false};
    raftz_machine table = RAFTZ_MACHINE_INIT;
    table.user_data = &store;
    table.apply = apply;
    table.applied_index = applied_index;
    raftz_config *config = configured(arguments[1], "own");
    for (uint64_t round = 1; round <= 3; round++) {
        raftz_node *node = NULL;
        OK(raftz_node_start(config, &table, NULL, &node, &failure));
        CHECK(store.asked == round);
        /* What it has counts as applied before anything else happens. */
        OK(raftz_node_wait_for_applied(node, store.applied_index, 30000, &failure));
        for (uint64_t command = 1; command <= 10; command++) {
            raftz_reply reply = RAFTZ_REPLY_INIT;
            OK(raftz_propose_wait(node, raftz_text("x"), NULL, &reply, &failure));
            CHECK(reply.index == store.applied_index);
            raftz_bytes_free(reply.bytes);
        }
        CHECK(store.commands == 10 * round);
        OK(raftz_node_stop(node, 30000, &failure));
        raftz_node_free(node);
    }
    raftz_node *node = NULL;
    store.fails = true;
    raftz_status status = raftz_node_start(config, &table, NULL, &node, &failure);
    CHECK(strstr(raftz_error_message(failure), "applied_index returned RAFTZ_CALLBACK_FAILED") != NULL);
    CHECK(strstr(raftz_error_message(failure), ": the file is gone") != NULL);
    WANT(RAFTZ_MACHINE, status);
    store.fails = false;
    raftz_config_free(config);
    /* The log is gone, and the machine's own storage is not. */
    config = configured(arguments[1], "another");
    WANT(RAFTZ_MACHINE, raftz_node_start(config, &table, NULL, &node, &failure));
    CHECK(node == NULL && store.commands == 30);
    raftz_config_free(config);
    return 0;
}
