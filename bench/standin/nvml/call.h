/* The frame around every NVML function: counts it, plays the script, finds the card, locks, logs. */
#ifndef STANDIN_CALL_H
#define STANDIN_CALL_H

#include "card.h"

typedef struct {
    Function function;
    Rack *rack;
    Card *card; /* NULL for functions of the whole system */
    uint32_t card_index, first, second;
    int locked;
    Rule rule; /* what the script wants of this call; inactive: nothing */
} Call;

struct nvmlDevice {
    uint32_t index;
};

/* library.c: this process's view; NULL before nvmlInit and after nvmlShutdown. */
Rack *opened_rack(void);
nvmlDevice_t device_at(uint32_t index);

/* Begin a call. Unless it returns NVML_SUCCESS, go straight to call_end with what it returned. */
nvmlReturn_t call_begin(Call *call, Function function, nvmlDevice_t device);
nvmlReturn_t system_begin(Call *call, Function function);
/* As call_begin; first and second are logged, and only the privileged user may go on. */
nvmlReturn_t setter_begin(Call *call, Function function, nvmlDevice_t device, uint32_t first, uint32_t second);
nvmlReturn_t call_end(Call *call, nvmlReturn_t code);

/* What the script says about one value of nvmlDeviceGetFieldValues; the rack is locked. */
nvmlReturn_t scripted_code(Call *call, Function function);

nvmlReturn_t copy_text(const char *text, char *out, uint32_t length);

#endif
