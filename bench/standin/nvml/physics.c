/* A small physics: power from clock and utilisation, energy from power, heat from both. Simulated, not measured.
 *
 * Power of a card at work: idle + standing * V^2 + active * utilisation * f * V^2 * memory, with f the SM clock over its
 * maximum and V the voltage over its maximum: flat up to a knee, then rising in a straight line, the shape that
 * clock sweeps of real cards show. Between two events (a booking ends, a setting is in force, the card falls
 * idle) power is constant, so energy is integrated exactly.
 */
#include <math.h>

#include "card.h"

enum { THERMAL_STEP_NS = 50000000 };
#define AVERAGE_S 1.0        /* the time constant of the averaged power reading */
#define COOLED_C 3.0         /* so far below the slowdown temperature a card speeds up again */
#define NEVER_NS (INT64_MIN / 4)

static int is_idle(const Card *card)
{
    return card->motion.now_ns >= card->motion.busy_until_ns + card->make.idle_after_ns;
}

static double utilisation(const Card *card)
{
    double sum = 0.0;
    for (int i = 0; i < MAX_BOOKINGS; i++)
        if (card->motion.bookings[i].until_ns > card->motion.now_ns)
            sum += card->motion.bookings[i].utilisation;
    return sum < 1.0 ? sum : 1.0;
}

static double voltage(const Make *make, double clock)
{
    if (clock <= make->knee)
        return make->floor_voltage;
    return make->floor_voltage + (1.0 - make->floor_voltage) * (clock - make->knee) / (1.0 - make->knee);
}

static double memory_factor(const Card *card)
{
    const Make *make = &card->make;
    double clock = (double)memory_span(card).high / make->memory_mhz[make->memory_count - 1];
    return 1.0 - make->memory_share * (1.0 - clock);
}

static double working_w(const Card *card, uint32_t sm_mhz, double busy)
{
    const Make *make = &card->make;
    double clock = (double)sm_mhz / make->sm_mhz[make->sm_count - 1];
    double squared = voltage(make, clock) * voltage(make, clock);
    return make->idle_w + make->standing_w * squared + make->active_w * busy * clock * squared * memory_factor(card);
}

static uint64_t slowdown_reasons(const Card *card)
{
    uint64_t reasons = card->script.forced_reasons;
    if (card->motion.too_hot)
        reasons |= REASON_SW_THERMAL_SLOWDOWN;
    return reasons;
}

static uint32_t slowed_down(const Card *card, uint64_t reasons, uint32_t sm_mhz)
{
    const uint64_t slow = REASON_HW_SLOWDOWN | REASON_SW_THERMAL_SLOWDOWN | REASON_HW_THERMAL_SLOWDOWN
        | REASON_HW_POWER_BRAKE;
    uint32_t limit = card->script.forced_clock_mhz;
    if (limit == 0 && (reasons & slow) != 0)
        limit = card->make.slowdown_mhz;
    if (limit != 0)
        limit = legal_below(card->make.sm_mhz, card->make.sm_count, limit);
    return limit != 0 && limit < sm_mhz ? limit : sm_mhz;
}

/* The largest legal clock that keeps the power limit; the smallest when none does. */
static uint32_t capped(const Card *card, uint32_t sm_mhz, double busy)
{
    const Make *make = &card->make;
    uint32_t clock = sm_mhz;
    for (uint32_t i = make->sm_count; i-- > 0;) {
        if (make->sm_mhz[i] > sm_mhz)
            continue;
        clock = make->sm_mhz[i];
        if (working_w(card, clock, busy) * 1000.0 <= card->settings.limit_mw)
            break;
    }
    return clock;
}

static uint32_t idle_clock(const Card *card)
{
    Span span = sm_span(card);
    uint32_t idle = card->make.idle_sm_mhz;
    if (!(card->make.abilities & IDLES_BELOW_LOCK) && span.low > idle)
        idle = span.low;
    return idle < span.high ? idle : span.high;
}

static void state_of_idle(const Card *card, State *state)
{
    state->idle = 1;
    state->sm_mhz = slowed_down(card, state->reasons, idle_clock(card));
    state->reasons |= REASON_GPU_IDLE;
    state->power_w = card->make.idle_w;
}

static void state_at_work(const Card *card, State *state)
{
    uint32_t wanted = sm_span(card).high;
    uint32_t slowed = slowed_down(card, state->reasons, wanted);
    state->utilisation = utilisation(card);
    state->sm_mhz = capped(card, slowed, state->utilisation);
    if (state->sm_mhz < slowed)
        state->reasons |= REASON_SW_POWER_CAP;
    if (card->settings.app.high != 0 && slowed == card->settings.app.high)
        state->reasons |= REASON_APPLICATIONS_CLOCKS;
    state->power_w = working_w(card, state->sm_mhz, state->utilisation);
}

State card_state(const Card *card)
{
    State state = {.memory_mhz = memory_span(card).high, .reasons = slowdown_reasons(card)};
    if (is_idle(card))
        state_of_idle(card, &state);
    else
        state_at_work(card, &state);
    state.power_mw = (uint32_t)lround(state.power_w * 1000.0);
    return state;
}

static void sooner(const Card *card, int64_t event_ns, int64_t *next_ns)
{
    if (event_ns > card->motion.now_ns && event_ns < *next_ns)
        *next_ns = event_ns;
}

static int64_t next_event(const Card *card, int64_t until_ns)
{
    const Motion *motion = &card->motion;
    int64_t next_ns = until_ns;
    for (int i = 0; i < MAX_BOOKINGS; i++)
        sooner(card, motion->bookings[i].until_ns, &next_ns);
    sooner(card, motion->settled_ns, &next_ns);
    sooner(card, motion->busy_until_ns + card->make.idle_after_ns, &next_ns);
    return next_ns;
}

static double warm_c(const Make *make, double power_w) { return make->ambient_c + make->c_per_w * power_w; }

/* Near the slowdown temperature the clock follows the heat: small steps there, events alone elsewhere. */
static int64_t step_end(const Card *card, double power_w, int64_t until_ns)
{
    int64_t end_ns = next_event(card, until_ns);
    double hottest = fmax(card->motion.temperature_c, warm_c(&card->make, power_w));
    if (!card->script.temperature_fixed && hottest >= card->make.slowdown_c - COOLED_C)
        sooner(card, card->motion.now_ns + THERMAL_STEP_NS, &end_ns);
    return end_ns;
}

static double approach(double value, double goal, double seconds, double constant_s)
{
    return goal + (value - goal) * exp(-seconds / constant_s);
}

/* The counter that callers read moves at whole multiples of its period only. */
static void tick_counter(Card *card, double power_w, int64_t end_ns)
{
    int64_t period_ns = card->make.counter_period_ns;
    int64_t tick_ns = period_ns > 0 ? end_ns / period_ns * period_ns : end_ns;
    if (tick_ns >= card->motion.now_ns)
        card->motion.shown_j = card->motion.energy_j + power_w * (double)(tick_ns - card->motion.now_ns) * 1e-9;
}

static void feel_heat(Card *card)
{
    double below_c = card->make.slowdown_c - card->motion.temperature_c;
    if (below_c <= 0.0 || below_c > COOLED_C)
        card->motion.too_hot = below_c <= 0.0;
}

static void step(Card *card, double power_w, int64_t end_ns)
{
    Motion *motion = &card->motion;
    double seconds = (double)(end_ns - motion->now_ns) * 1e-9;
    tick_counter(card, power_w, end_ns);
    motion->average_w = approach(motion->average_w, power_w, seconds, AVERAGE_S);
    if (!card->script.temperature_fixed)
        motion->temperature_c =
            approach(motion->temperature_c, warm_c(&card->make, power_w), seconds, card->make.thermal_s);
    motion->energy_j += power_w * seconds;
    motion->now_ns = end_ns;
}

/* Let a card live until now. */
void advance_card(Card *card, int64_t now_ns)
{
    feel_heat(card); /* the control may have set the temperature */
    while (card->motion.now_ns < now_ns) {
        double power_w = card_state(card).power_w;
        step(card, power_w, step_end(card, power_w, now_ns));
        feel_heat(card);
    }
}

void start_motion(Card *card, int64_t now_ns)
{
    card->motion.now_ns = now_ns;
    card->motion.settled_ns = card->motion.busy_until_ns = NEVER_NS;
    card->motion.average_w = card->make.idle_w;
    card->motion.temperature_c = warm_c(&card->make, card->make.idle_w);
    card->settings.limit_mw = card->make.default_limit_mw;
}
