/*
 * The store of the example custom_storage, to be taken elsewhere with custom_storage_sqlite.c.
 */
#ifndef RAFTZ_EXAMPLES_CUSTOM_STORAGE_H
#define RAFTZ_EXAMPLES_CUSTOM_STORAGE_H

#include <raftz.h>

/* The store whose SQLite database is at `path`, which must stay as long as the store is used. */
raftz_storage sqlite_at(char *path);

#endif
