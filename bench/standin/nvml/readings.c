/* What a card measures: clocks, power, energy, temperature, and why it is not at its clock. */
#include "call.h"

#include <math.h>

#define BEGIN(function)                                      \
    Call call;                                               \
    nvmlReturn_t code = call_begin(&call, function, device); \
    if (code != NVML_SUCCESS)                                \
        return call_end(&call, code);                        \
    const Card *card = call.card

#define END(code) return call_end(&call, code)

static nvmlReturn_t pick_clock(unsigned type, uint32_t sm_mhz, uint32_t memory_mhz, unsigned *mhz)
{
    if (type > NVML_CLOCK_VIDEO)
        return NVML_ERROR_INVALID_ARGUMENT;
    *mhz = type == NVML_CLOCK_MEM ? memory_mhz : sm_mhz;
    return NVML_SUCCESS;
}

static nvmlReturn_t current_clock(const Card *card, unsigned type, unsigned *mhz)
{
    State state = card_state(card);
    return pick_clock(type, state.sm_mhz, state.memory_mhz, mhz);
}

static nvmlReturn_t default_app_clock(const Card *card, unsigned type, unsigned *mhz)
{
    const Make *make = &card->make;
    if (!(make->abilities & CAN_SET_APPLICATION_CLOCKS))
        return NVML_ERROR_NOT_SUPPORTED;
    return pick_clock(type, make->default_app_sm_mhz, make->default_app_memory_mhz, mhz);
}

static nvmlReturn_t app_clock(const Card *card, unsigned type, unsigned *mhz)
{
    Span app = card->settings.app;
    if (app.high == 0)
        return default_app_clock(card, type, mhz);
    return pick_clock(type, app.high, app.low, mhz);
}

EXPORTED nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    BEGIN(FN_CLOCK_INFO);
    END(current_clock(card, type, mhz));
}

EXPORTED nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    BEGIN(FN_MAX_CLOCK);
    const Make *make = &card->make;
    END(pick_clock(type, make->sm_mhz[make->sm_count - 1], make->memory_mhz[make->memory_count - 1], mhz));
}

EXPORTED nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    BEGIN(FN_APP_CLOCK);
    END(app_clock(card, type, mhz));
}

EXPORTED nvmlReturn_t nvmlDeviceGetDefaultApplicationsClock(nvmlDevice_t device, unsigned type, unsigned *mhz)
{
    BEGIN(FN_DEFAULT_APP_CLOCK);
    END(default_app_clock(card, type, mhz));
}

EXPORTED nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, unsigned type, unsigned which, unsigned *mhz)
{
    BEGIN(FN_CLOCK);
    switch (which) {
    case NVML_CLOCK_ID_CURRENT: END(current_clock(card, type, mhz));
    case NVML_CLOCK_ID_APP_CLOCK_TARGET: END(app_clock(card, type, mhz));
    case NVML_CLOCK_ID_APP_CLOCK_DEFAULT: END(default_app_clock(card, type, mhz));
    default: END(NVML_ERROR_NOT_SUPPORTED);
    }
}

/* NVML lists clocks from the highest down, and tells their number to who brings too little room. */
static nvmlReturn_t list_clocks(const uint32_t *clocks, uint32_t found, unsigned *count, unsigned *out)
{
    uint32_t room = *count;
    *count = found;
    if (out == NULL || room < found)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (uint32_t i = 0; i < found; i++)
        out[i] = clocks[found - 1 - i];
    return NVML_SUCCESS;
}

EXPORTED nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned *count, unsigned *out)
{
    BEGIN(FN_MEMORY_CLOCKS);
    END(list_clocks(card->make.memory_mhz, card->make.memory_count, count, out));
}

EXPORTED nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(
    nvmlDevice_t device, unsigned memory_mhz, unsigned *count, unsigned *out)
{
    BEGIN(FN_GRAPHICS_CLOCKS);
    uint32_t highest = highest_sm(&card->make, memory_mhz), found = 0;
    if (highest == 0)
        END(NVML_ERROR_NOT_FOUND);
    while (found < card->make.sm_count && card->make.sm_mhz[found] <= highest)
        found++;
    END(list_clocks(card->make.sm_mhz, found, count, out));
}

EXPORTED nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts)
{
    BEGIN(FN_POWER);
    *milliwatts = card_state(card).power_mw;
    END(NVML_SUCCESS);
}

static uint64_t counter_mj(const Card *card) { return (uint64_t)(card->motion.shown_j * 1000.0); }

EXPORTED nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules)
{
    BEGIN(FN_ENERGY);
    if (!(card->make.abilities & HAS_ENERGY_COUNTER))
        END(NVML_ERROR_NOT_SUPPORTED);
    *millijoules = counter_mj(card);
    END(NVML_SUCCESS);
}

static nvmlReturn_t read_energy(Call *call, nvmlFieldValue_t *value)
{
    value->value_type = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
    value->value.unsigned_long_long = counter_mj(call->card);
    if (!(call->card->make.abilities & HAS_ENERGY_COUNTER))
        return NVML_ERROR_NOT_SUPPORTED;
    return scripted_code(call, FN_FIELD_ENERGY);
}

static nvmlReturn_t read_power(Call *call, nvmlFieldValue_t *value, int average)
{
    const Card *card = call->card;
    value->value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
    value->value.unsigned_int =
        average ? (uint32_t)lround(card->motion.average_w * 1000.0) : card_state(card).power_mw;
    if (!(card->make.abilities & (average ? HAS_POWER_AVERAGE : HAS_POWER_INSTANT)))
        return NVML_ERROR_NOT_SUPPORTED;
    return scripted_code(call, average ? FN_FIELD_AVERAGE : FN_FIELD_INSTANT);
}

static nvmlReturn_t read_field(Call *call, nvmlFieldValue_t *value)
{
    switch (value->field) {
    case NVML_FI_DEV_TOTAL_ENERGY: return read_energy(call, value);
    case NVML_FI_DEV_POWER_AVERAGE: return read_power(call, value, 1);
    case NVML_FI_DEV_POWER_INSTANT: return read_power(call, value, 0);
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
}

/* A value that cannot be had leaves nothing plausible behind. */
static nvmlReturn_t fill_field(Call *call, nvmlFieldValue_t *value)
{
    nvmlReturn_t code = read_field(call, value);
    if (code != NVML_SUCCESS)
        value->value.unsigned_long_long = 0;
    value->code = code;
    value->timestamp_us = call->card->motion.now_ns / 1000;
    return code;
}

/* Success as soon as one value could be had: each value has its own code. */
EXPORTED nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    Call call;
    nvmlReturn_t code = call_begin(&call, FN_FIELDS, device);
    if (code != NVML_SUCCESS)
        return call_end(&call, code);
    nvmlReturn_t result = count > 0 ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < count; i++)
        if (fill_field(&call, &values[i]) == NVML_SUCCESS)
            result = NVML_SUCCESS;
    return call_end(&call, result);
}

EXPORTED nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    BEGIN(FN_REASONS);
    *reasons = card_state(card).reasons;
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    BEGIN(FN_THROTTLE);
    *reasons = card_state(card).reasons;
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    BEGIN(FN_SUPPORTED_REASONS);
    (void)card;
    *reasons = REASONS_ALL;
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned sensor, unsigned *celsius)
{
    BEGIN(FN_TEMPERATURE);
    if (sensor != 0)
        END(NVML_ERROR_INVALID_ARGUMENT);
    *celsius = (unsigned)lround(card->motion.temperature_c);
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    BEGIN(FN_TEMPERATURE_V);
    if (temperature->version != NVML_TEMPERATURE_V1)
        END(NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    temperature->temperature = (int32_t)lround(card->motion.temperature_c);
    END(NVML_SUCCESS);
}
