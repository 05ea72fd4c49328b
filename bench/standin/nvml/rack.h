/* The state that every process sees: one file, mapped by all, guarded by one mutex that survives SIGKILL.
 *
 * bench/standin/layout.py mirrors these structures; change both together, and LAYOUT_VERSION with them.
 * Times are nanoseconds of CLOCK_MONOTONIC, which on Linux is the same for every process; the cards go by
 * rack_now, which a test can stop and move on.
 */
#ifndef STANDIN_RACK_H
#define STANDIN_RACK_H

#include <pthread.h>
#include <stdint.h>

#include "functions.h"
#include "nvml_abi.h"

enum {
    LAYOUT_VERSION = 3,
    MAX_CARDS = 16,
    MAX_CLOCKS = 256,
    MAX_MEMORY_CLOCKS = 8,
    MAX_BOOKINGS = 16,
    MAX_PROCESSES = 16,
    MAX_RULES = 128,
    MAX_LOG = 8192,
    MAX_FUNCTIONS = 96,
    NAME_LENGTH = 96,
};

enum { /* what a card can do */
    CAN_LOCK_SM = 0x1,
    CAN_LOCK_MEMORY = 0x2,
    CAN_SET_APPLICATION_CLOCKS = 0x4,
    CAN_LIMIT_POWER = 0x8,
    HAS_ENERGY_COUNTER = 0x10,
    HAS_POWER_AVERAGE = 0x20,
    HAS_POWER_INSTANT = 0x40,
    HAS_MIG = 0x80,
    ANYBODY_SETS_APPLICATION_CLOCKS = 0x100,
    IDLES_BELOW_LOCK = 0x200,
};

typedef struct {
    uint32_t low, high;
} Span;

typedef struct { /* what the card is: written once, before anybody looks */
    char uuid[NAME_LENGTH], name[NAME_LENGTH], bus_id[32];
    uint32_t architecture, compute_major, compute_minor;
    uint32_t abilities, privileged_uid;
    uint32_t sm_count, sm_mhz[MAX_CLOCKS]; /* ascending */
    uint32_t memory_count, memory_mhz[MAX_MEMORY_CLOCKS], sm_limit_mhz[MAX_MEMORY_CLOCKS];
    uint32_t idle_sm_mhz, slowdown_mhz, default_app_memory_mhz, default_app_sm_mhz;
    uint32_t default_limit_mw, least_limit_mw, largest_limit_mw;
    double idle_w, standing_w, active_w, knee, floor_voltage, memory_share;
    double ambient_c, c_per_w, thermal_s, slowdown_c;
    int64_t settle_ns, idle_after_ns, counter_period_ns, setter_ns;
} Make;

typedef struct { /* what has been asked of it; {0, 0}: nothing */
    Span locked_sm, locked_memory, app; /* app: low is the memory clock, high the SM clock */
    uint32_t limit_mw;
} Settings;

typedef struct { /* what the control has arranged */
    uint32_t lost, mig, forced_clock_mhz, temperature_fixed;
    uint64_t forced_reasons;
    uint32_t process_count, processes[MAX_PROCESSES];
} Script;

typedef struct {
    int64_t until_ns;
    double utilisation;
    uint32_t pid;
} Booking;

typedef struct { /* how it runs */
    int64_t now_ns, settled_ns, busy_until_ns;
    Span sm_before, memory_before; /* in force until settled_ns */
    double energy_j, shown_j, average_w, temperature_c;
    uint32_t too_hot; /* since it reached the slowdown temperature, until it has cooled down a little */
    Booking bookings[MAX_BOOKINGS];
} Motion;

typedef struct {
    Make make;
    Settings settings;
    Script script;
    Motion motion;
} Card;

enum { WHEN_BEFORE, WHEN_AFTER, WHEN_HOLDING }; /* the effect; holding the lock, before the effect */

#define EVERY_FUNCTION UINT32_MAX /* of NVML */

typedef struct {
    uint32_t active, function, when;
    int32_t card, code, remaining; /* card -1: any; remaining -1: for ever */
    int64_t from_ns, delay_ns;
} Rule;

typedef struct {
    int64_t at_ns;
    uint32_t pid, uid, function, card, first, second, code;
} LogEntry;

typedef struct {
    uint32_t magic, version, size, count;
    int64_t stopped_ns, skipped_ns; /* see rack_now */
    char driver_version[NAME_LENGTH];
    uint64_t calls[MAX_FUNCTIONS];
    uint64_t logged;
    LogEntry log[MAX_LOG];
    Rule rules[MAX_RULES];
    Card cards[MAX_CARDS];
    pthread_mutex_t mutex; /* last, as its size differs between processors and nobody else looks inside */
} Rack;

int64_t monotonic_ns(void);
void sleep_ns(int64_t duration_ns);

/* Map the rack in a file; NULL when there is none, or one of another layout. */
Rack *rack_map(const char *path);
void rack_unmap(Rack *rack);
/* The time that cards and scripts go by: the clock, or where it was stopped, and what was skipped. Locked. */
int64_t rack_now(const Rack *rack);
void rack_lock(Rack *rack);
void rack_unlock(Rack *rack);

#endif
