/* What a card does of its own accord: its clocks, its power, its heat. All at the time motion.now_ns. */
#ifndef STANDIN_CARD_H
#define STANDIN_CARD_H

#include "rack.h"

typedef struct {
    uint32_t sm_mhz, memory_mhz, idle, power_mw;
    uint64_t reasons;
    double utilisation, power_w;
} State;

/* clocks.c */
uint32_t legal_below(const uint32_t *clocks, uint32_t count, uint32_t mhz);
uint32_t highest_sm(const Make *make, uint32_t memory_mhz);
Span sm_span(const Card *card);
Span memory_span(const Card *card);
void change_settings(Card *card, const Settings *settings);

/* physics.c */
State card_state(const Card *card);
void advance_card(Card *card, int64_t now_ns);
void start_motion(Card *card, int64_t now_ns);

#endif
