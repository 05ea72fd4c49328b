/* Which clocks are legal, which the settings allow, and when a change of settings is in force. */
#include "card.h"

/* The largest clock of an ascending list that is not above; the smallest when all are. */
uint32_t legal_below(const uint32_t *clocks, uint32_t count, uint32_t mhz)
{
    uint32_t found = clocks[0];
    for (uint32_t i = 0; i < count && clocks[i] <= mhz; i++)
        found = clocks[i];
    return found;
}

/* The highest SM clock that goes with a memory clock; 0 when the card has no such memory clock. */
uint32_t highest_sm(const Make *make, uint32_t memory_mhz)
{
    for (uint32_t i = 0; i < make->memory_count; i++)
        if (make->memory_mhz[i] == memory_mhz)
            return legal_below(make->sm_mhz, make->sm_count, make->sm_limit_mhz[i]);
    return 0;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Memory runs at the highest clock that is allowed, whether the card is idle or not. */
static Span allowed_memory(const Card *card)
{
    const Settings *set = &card->settings;
    uint32_t top = card->make.memory_mhz[card->make.memory_count - 1];
    if (set->app.low != 0)
        top = set->app.low;
    if (set->locked_memory.high != 0)
        top = set->locked_memory.high;
    return (Span){top, top};
}

static Span allowed_sm(const Card *card)
{
    const Settings *set = &card->settings;
    uint32_t top = highest_sm(&card->make, allowed_memory(card).high);
    if (set->app.high != 0)
        top = least(top, set->app.high);
    if (set->locked_sm.high == 0)
        return (Span){card->make.idle_sm_mhz, top};
    uint32_t high = least(set->locked_sm.high, highest_sm(&card->make, allowed_memory(card).high));
    return (Span){least(set->locked_sm.low, high), high};
}

static int settled(const Card *card) { return card->motion.now_ns >= card->motion.settled_ns; }

Span sm_span(const Card *card) { return settled(card) ? allowed_sm(card) : card->motion.sm_before; }

Span memory_span(const Card *card) { return settled(card) ? allowed_memory(card) : card->motion.memory_before; }

static int same(Span a, Span b) { return a.low == b.low && a.high == b.high; }

/* New settings count at once, but the clocks they allow are in force only after the settle time. */
void change_settings(Card *card, const Settings *settings)
{
    Span sm = sm_span(card), memory = memory_span(card);
    Span allowed_before = allowed_sm(card), memory_allowed_before = allowed_memory(card);
    card->settings = *settings;
    if (same(allowed_before, allowed_sm(card)) && same(memory_allowed_before, allowed_memory(card)))
        return;
    card->motion.sm_before = sm;
    card->motion.memory_before = memory;
    card->motion.settled_ns = card->motion.now_ns + card->make.settle_ns;
}
