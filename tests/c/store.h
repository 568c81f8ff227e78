/* A store in memory, as simple as the interface allows. What it keeps outlives the nodes that open it; and it does one
 * thing wrong, if a test wants that. */
#ifndef STORE_H
#define STORE_H

#include "check.h"

enum wrong {
    NOTHING,
    /* Good in their own way. */
    LATE,
    BACKWARDS,
    TWICE,
    /* From the submission on that `after` says. */
    NEVER,
    FAILS,
    FAILS_LATE,
    KEEPS_REMOVED,
    /* From the read on that `after` says. */
    FLIPS,
    SKIPS,
    REPEATS,
    CANNOT_READ,
    GIVES_NOTHING,
    /* At a close. */
    FORGETS,
    FORGETS_RECORD,
    FORGETS_LAST,
    CANNOT_CLOSE,
    /* Whenever it is asked. */
    CANNOT_OPEN,
    CANNOT_LOAD,
    CANNOT_SEAL,
    IS_LOW
};

struct blob {
    uint64_t index;
    size_t len;
    uint8_t *bytes;
};

struct job {
    const raftz_log_write *writes;
    size_t count;
    uint64_t number;
};

struct disk {
    /* Changed by the test while nodes run. */
    _Atomic enum wrong wrong;
    _Atomic uint64_t after;
    /* Between the one that writes and the one that reads. */
    pthread_mutex_t lock;
    struct blob record, older;
    struct blob *entries;
    size_t count, room;
    _Atomic uint64_t submits, reads;
    struct tally opened, closed, destroyed;
    /* Of one open. */
    bool is_open;
    raftz_completions *completions;
    pthread_t worker;
    bool has_worker, is_ending;
    pthread_cond_t work;
    struct job jobs[4096];
    size_t job_count;
};
#define DISK_INIT {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER,            \
                   .opened = TALLY_INIT, .closed = TALLY_INIT, .destroyed = TALLY_INIT}

static inline void blob_set(struct blob *blob, raftz_slice from) {
    free(blob->bytes);
    blob->bytes = malloc(from.len + 1);
    CHECK(blob->bytes != NULL);
    memcpy(blob->bytes, from.data, from.len);
    blob->len = from.len;
}

static inline raftz_slice blob_slice(const struct blob *blob) {
    return (raftz_slice){blob->bytes, blob->len};
}

static inline void disk_write(struct disk *disk, const struct job *job) {
    bool removes = disk->wrong != KEEPS_REMOVED || disk->submits <= disk->after;
    pthread_mutex_lock(&disk->lock);
    for (size_t at = 0; at < job->count; at++) {
        const raftz_log_write *write = &job->writes[at];
        CHECK(write->group == 1 && write->record.len > 0);
        if (disk->record.len > 0) {
            blob_set(&disk->older, blob_slice(&disk->record));
        }
        blob_set(&disk->record, write->record);
        size_t left = 0;
        for (size_t of = 0; of < disk->count; of++) {
            struct blob *entry = &disk->entries[of];
            if (removes && ((write->remove_from > 0 && entry->index >= write->remove_from)
                            || entry->index <= write->remove_upto)) {
                free(entry->bytes);
            } else {
                disk->entries[left++] = *entry;
            }
        }
        disk->count = left;
        for (size_t of = 0; of < write->entry_count; of++) {
            if (disk->count == disk->room) {
                disk->room = 2 * disk->room + 64;
                disk->entries = realloc(disk->entries, disk->room * sizeof *disk->entries);
                CHECK(disk->entries != NULL);
            }
            CHECK(!removes || disk->count == 0
                  || disk->entries[disk->count - 1].index + 1 == write->entries[of].index);
            struct blob *entry = &disk->entries[disk->count++];
            *entry = (struct blob){write->entries[of].index, 0, NULL};
            blob_set(entry, write->entries[of].bytes);
        }
    }
    pthread_mutex_unlock(&disk->lock);
}

static inline void disk_complete(struct disk *disk, uint64_t number) {
    raftz_slice none = {NULL, 0};
    if (disk->wrong == FAILS_LATE && number > disk->after) {
        raftz_slice words = raftz_text("the disk is gone");
        raftz_storage_complete(disk->completions, number, RAFTZ_CALLBACK_FAILED, words, NULL);
        return;
    }
    OK(raftz_storage_complete(disk->completions, number, RAFTZ_OK, none, &failure));
    if (disk->wrong == TWICE) {
        raftz_error *error = NULL;
        CHECK(raftz_storage_complete(disk->completions, number, RAFTZ_CALLBACK_FAILED, none, &error)
              == RAFTZ_INVALID_ARG);
        CHECK(strstr(raftz_error_message(error), "already") != NULL);
        raftz_error_free(error);
        CHECK(raftz_storage_complete(disk->completions, number + 1000000, RAFTZ_OK, none, NULL)
              == RAFTZ_INVALID_ARG);
    }
}

/* Writes from where the library has the writes: they stay there until they are completed. */
static void *disk_work(void *argument) {
    struct disk *disk = argument;
    struct job *jobs = malloc(sizeof disk->jobs);
    CHECK(jobs != NULL);
    pthread_mutex_lock(&disk->lock);
    while (!disk->is_ending || disk->job_count > 0) {
        if (disk->job_count == 0) {
            pthread_cond_wait(&disk->work, &disk->lock);
            continue;
        }
        size_t count = disk->job_count;
        memcpy(jobs, disk->jobs, count * sizeof *jobs);
        disk->job_count = 0;
        pthread_mutex_unlock(&disk->lock);
        for (size_t at = 0; at < count; at++) {
            disk_write(disk, &jobs[at]);
        }
        for (size_t at = 0; at < count; at++) {
            disk_complete(disk, jobs[disk->wrong == BACKWARDS ? count - 1 - at : at].number);
        }
        pthread_mutex_lock(&disk->lock);
    }
    pthread_mutex_unlock(&disk->lock);
    free(jobs);
    return NULL;
}

static inline raftz_status disk_refuse(raftz_sink *why, const char *words) {
    OK(raftz_sink_fail(why, raftz_text(words)));
    return RAFTZ_CALLBACK_FAILED;
}

static inline raftz_storage disk_table(struct disk *disk);

/* In here nothing of raftz may wait. */
static inline void disk_is_called_back(struct disk *disk) {
    raftz_storage table = disk_table(disk);
    CHECK(raftz_storage_conformance(&table, NULL, NULL) == RAFTZ_IN_CALLBACK);
}

static inline raftz_status disk_open(void *user_data, raftz_completions *completions,
                                     raftz_sink *why, void **store) {
    struct disk *disk = user_data;
    CHECK(completions != NULL);
    disk_is_called_back(disk);
    if (disk->wrong == CANNOT_OPEN) {
        return disk_refuse(why, "the key is lost");
    }
    if (disk->is_open) {
        return disk_refuse(why, "in use");
    }
    disk->is_open = true;
    disk->is_ending = false;
    disk->completions = completions;
    disk->has_worker =
        disk->wrong == LATE || disk->wrong == BACKWARDS || disk->wrong == FAILS_LATE;
    if (disk->has_worker) {
        CHECK(pthread_create(&disk->worker, NULL, disk_work, disk) == 0);
    }
    tally_add(&disk->opened, 1);
    *store = disk;
    return RAFTZ_OK;
}

static inline void disk_destroy(void *store) {
    struct disk *disk = store;
    disk_is_called_back(disk);
    if (disk->has_worker) {
        pthread_mutex_lock(&disk->lock);
        disk->is_ending = true;
        pthread_cond_signal(&disk->work);
        pthread_mutex_unlock(&disk->lock);
        CHECK(pthread_join(disk->worker, NULL) == 0);
    }
    CHECK(disk->is_open);
    disk->is_open = false;
    disk->completions = NULL;
    tally_add(&disk->destroyed, 1);
}

static inline raftz_status disk_load(void *store, uint32_t group, raftz_sink *record) {
    struct disk *disk = store;
    CHECK(group == 1);
    disk_is_called_back(disk);
    if (disk->wrong == CANNOT_LOAD) {
        return disk_refuse(record, "the table is locked");
    }
    return raftz_sink_write(record, blob_slice(&disk->record));
}

static inline void disk_submit(void *store, const raftz_log_write *writes, size_t count,
                               uint64_t number) {
    struct disk *disk = store;
    struct job job = {writes, count, number};
    disk_is_called_back(disk);
    disk->submits++;
    if (disk->wrong == NEVER && disk->submits > disk->after) {
        return;
    }
    if (disk->wrong == FAILS && disk->submits > disk->after) {
        raftz_slice words = raftz_text("the disk is gone");
        OK(raftz_storage_complete(disk->completions, number, RAFTZ_CALLBACK_FAILED, words,
                                  &failure));
        return;
    }
    if (disk->has_worker) {
        pthread_mutex_lock(&disk->lock);
        CHECK(disk->job_count < sizeof disk->jobs / sizeof *disk->jobs);
        disk->jobs[disk->job_count++] = job;
        pthread_cond_signal(&disk->work);
        pthread_mutex_unlock(&disk->lock);
        return;
    }
    disk_write(disk, &job);
    disk_complete(disk, number);
}

static inline raftz_status disk_read(void *store, uint32_t group, uint64_t first, uint64_t last,
                                     raftz_entries *entries) {
    struct disk *disk = store;
    raftz_status status = RAFTZ_OK;
    bool wants_more = true;
    CHECK(group == 1 && first > 0 && first <= last);
    disk_is_called_back(disk);
    pthread_mutex_lock(&disk->lock);
    bool is_wrong = ++disk->reads > disk->after;
    if (is_wrong && disk->wrong == CANNOT_READ) {
        OK(raftz_entries_fail(entries, raftz_text("the head is stuck")));
        status = RAFTZ_CALLBACK_FAILED;
        wants_more = false;
    }
    if (is_wrong && disk->wrong == GIVES_NOTHING) {
        wants_more = false;
    }
    first += is_wrong && disk->wrong == SKIPS;
    /* Ordered by index, without gaps. */
    size_t at = 0;
    if (disk->count > 0 && first > disk->entries[0].index && disk->wrong != KEEPS_REMOVED) {
        at = first - disk->entries[0].index;
    }
    for (; at < disk->count && wants_more && status == RAFTZ_OK; at++) {
        struct blob *entry = &disk->entries[at];
        if (entry->index < first || entry->index > last) {
            continue;
        }
        if (is_wrong && disk->wrong == FLIPS) {
            entry->bytes[entry->len - 1] ^= 1;
        }
        status = raftz_entries_push(entries, blob_slice(entry), &wants_more);
        if (is_wrong && disk->wrong == FLIPS) {
            entry->bytes[entry->len - 1] ^= 1;
        }
        if (is_wrong && disk->wrong == REPEATS && wants_more) {
            status = raftz_entries_push(entries, blob_slice(entry), &wants_more);
        }
    }
    pthread_mutex_unlock(&disk->lock);
    return status;
}

static inline raftz_status disk_idle(void *store, raftz_sink *why) {
    struct disk *disk = store;
    return disk->wrong == CANNOT_SEAL ? disk_refuse(why, "no wax") : RAFTZ_OK;
}

static inline uint32_t disk_is_low(void *store) {
    return ((struct disk *)store)->wrong == IS_LOW ? 7 : 0;
}

static inline uint64_t disk_bytes(void *store) {
    return ((struct disk *)store)->submits;
}

static inline void disk_wipe(struct disk *disk) {
    for (size_t at = 0; at < disk->count; at++) {
        free(disk->entries[at].bytes);
    }
    free(disk->entries);
    free(disk->record.bytes);
    free(disk->older.bytes);
    disk->entries = NULL;
    disk->count = disk->room = 0;
    disk->record = disk->older = (struct blob){0, 0, NULL};
}

static inline raftz_status disk_close(void *store, raftz_sink *why) {
    struct disk *disk = store;
    tally_add(&disk->closed, 1);
    disk_is_called_back(disk);
    if (disk->wrong == CANNOT_CLOSE) {
        return disk_refuse(why, "the door is stuck");
    }
    if (disk->wrong == FORGETS) {
        disk_wipe(disk);
    }
    if (disk->wrong == FORGETS_RECORD) {
        blob_set(&disk->record, blob_slice(&disk->older));
    }
    if (disk->wrong == FORGETS_LAST && disk->count > 0) {
        free(disk->entries[--disk->count].bytes);
    }
    return RAFTZ_OK;
}

static inline raftz_storage disk_table(struct disk *disk) {
    raftz_storage table = RAFTZ_STORAGE_INIT;
    table.user_data = disk;
    table.open = disk_open;
    table.destroy = disk_destroy;
    table.load = disk_load;
    table.submit = disk_submit;
    table.read = disk_read;
    table.idle = disk_idle;
    table.is_low_on_space = disk_is_low;
    table.log_bytes = disk_bytes;
    table.close = disk_close;
    return table;
}

#endif
