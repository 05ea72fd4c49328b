/* What no NVML has: work to be done, and the view of the control, which sees everything and sets what it likes. */
#include "call.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

/* This process's booking, else one whose work is done; NULL when too many processes work at once. */
static Booking *find_booking(Motion *motion, uint32_t pid)
{
    Booking *done = NULL;
    for (int i = 0; i < MAX_BOOKINGS; i++) {
        Booking *booking = &motion->bookings[i];
        if (booking->pid == pid)
            return booking;
        if (done == NULL && booking->until_ns <= motion->now_ns)
            done = booking;
    }
    return done;
}

/* The rack is locked, the card advanced to now. */
EXPORTED nvmlReturn_t standinBook(Card *card, double seconds, double utilisation)
{
    Motion *motion = &card->motion;
    Booking *booking = find_booking(motion, (uint32_t)getpid());
    if (booking == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    int64_t start_ns = booking->until_ns > motion->now_ns ? booking->until_ns : motion->now_ns;
    *booking = (Booking){start_ns + (int64_t)(seconds * 1e9), utilisation, (uint32_t)getpid()};
    if (booking->until_ns > motion->busy_until_ns)
        motion->busy_until_ns = booking->until_ns;
    return NVML_SUCCESS;
}

/* Keep the card busy for so many seconds from now; returns at once. A batch that overlaps the previous one of
 * this process runs after it, and the utilisation (0 to 1) is then that of both. */
EXPORTED nvmlReturn_t standinRunBatch(nvmlDevice_t device, double seconds, double utilisation)
{
    Call call;
    nvmlReturn_t code = call_begin(&call, FN_RUN_BATCH, device);
    if (code == NVML_SUCCESS && !(seconds >= 0.0 && seconds < 1e6 && utilisation >= 0.0 && utilisation <= 1.0))
        code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS)
        code = standinBook(call.card, seconds, utilisation);
    return call_end(&call, code);
}

/* The control's side. Unless it says otherwise, the rack is locked. */

EXPORTED void standinStart(Card *card, int64_t now_ns) { start_motion(card, now_ns); }

EXPORTED void standinAdvance(Card *card, int64_t now_ns) { advance_card(card, now_ns); }

EXPORTED void standinState(const Card *card, State *state) { *state = card_state(card); }

static const char *const names[FN_COUNT] = {
#define STANDIN_NAME(identifier, name) [FN_##identifier] = name,
    STANDIN_QUERIES(STANDIN_NAME) STANDIN_SETTERS(STANDIN_NAME)
};

_Static_assert((int)FN_COUNT <= (int)MAX_FUNCTIONS, "the counters have too little room");

/* The name of a function by its number; NULL after the last. Needs no lock. */
EXPORTED const char *standinFunction(uint32_t function) { return function < FN_COUNT ? names[function] : NULL; }
