/* Calls a fault that was planted on the Rust side, or none, beside the library. */
#include "check.h"

void planted_leak(void);
uint8_t planted_use_after_free(void);
uint64_t planted_race(void);

int main(int count, char **arguments) {
    const char *fault = count > 1 ? arguments[1] : "";
    watchdog(60);
    CHECK(raftz_version() == RAFTZ_VERSION);
    if (strcmp(fault, "leak") == 0) {
        planted_leak();
    } else if (strcmp(fault, "use-after-free") == 0) {
        printf("%u\n", planted_use_after_free());
    } else if (strcmp(fault, "race") == 0) {
        printf("%u\n", (unsigned)(planted_race() % 2));
    }
    return 0;
}
