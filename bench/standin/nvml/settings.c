/* What can be set: locked clocks, application clocks, the power limit. */
#include "call.h"

#define BEGIN_SETTER(function, first, second, ability)                        \
    Call call;                                                                \
    nvmlReturn_t code = setter_begin(&call, function, device, first, second); \
    if (code == NVML_SUCCESS && !(call.card->make.abilities & (ability)))     \
        code = NVML_ERROR_NOT_SUPPORTED;                                      \
    if (code != NVML_SUCCESS)                                                 \
        return call_end(&call, code);                                         \
    const Make *make = &call.card->make;                                      \
    Settings settings = call.card->settings;                                  \
    (void)make

#define CHANGE_AND_END()                   \
    change_settings(call.card, &settings); \
    return call_end(&call, NVML_SUCCESS)

/* Any clocks may be asked for; the card takes the legal ones at or below, and no less than its lowest. */
static int take_span(Span *span, const uint32_t *legal, uint32_t count, unsigned low, unsigned high)
{
    if (low > high || high == 0)
        return 0;
    *span = (Span){legal_below(legal, count, low), legal_below(legal, count, high)};
    return 1;
}

EXPORTED nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, unsigned low, unsigned high)
{
    BEGIN_SETTER(FN_LOCK_SM, low, high, CAN_LOCK_SM);
    if (!take_span(&settings.locked_sm, make->sm_mhz, make->sm_count, low, high))
        return call_end(&call, NVML_ERROR_INVALID_ARGUMENT);
    CHANGE_AND_END();
}

EXPORTED nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device)
{
    BEGIN_SETTER(FN_UNLOCK_SM, 0, 0, CAN_LOCK_SM);
    settings.locked_sm = (Span){0, 0};
    CHANGE_AND_END();
}

EXPORTED nvmlReturn_t nvmlDeviceSetMemoryLockedClocks(nvmlDevice_t device, unsigned low, unsigned high)
{
    BEGIN_SETTER(FN_LOCK_MEMORY, low, high, CAN_LOCK_MEMORY);
    if (!take_span(&settings.locked_memory, make->memory_mhz, make->memory_count, low, high))
        return call_end(&call, NVML_ERROR_INVALID_ARGUMENT);
    CHANGE_AND_END();
}

EXPORTED nvmlReturn_t nvmlDeviceResetMemoryLockedClocks(nvmlDevice_t device)
{
    BEGIN_SETTER(FN_UNLOCK_MEMORY, 0, 0, CAN_LOCK_MEMORY);
    settings.locked_memory = (Span){0, 0};
    CHANGE_AND_END();
}

static int is_legal_pair(const Make *make, uint32_t memory_mhz, uint32_t sm_mhz)
{
    uint32_t highest = highest_sm(make, memory_mhz);
    return highest != 0 && sm_mhz <= highest && legal_below(make->sm_mhz, make->sm_count, sm_mhz) == sm_mhz;
}

/* Unlike locked clocks, application clocks must be a pair that the card lists. */
EXPORTED nvmlReturn_t nvmlDeviceSetApplicationsClocks(nvmlDevice_t device, unsigned memory_mhz, unsigned sm_mhz)
{
    BEGIN_SETTER(FN_SET_APP, memory_mhz, sm_mhz, CAN_SET_APPLICATION_CLOCKS);
    if (!is_legal_pair(make, memory_mhz, sm_mhz))
        return call_end(&call, NVML_ERROR_INVALID_ARGUMENT);
    settings.app = (Span){memory_mhz, sm_mhz};
    CHANGE_AND_END();
}

EXPORTED nvmlReturn_t nvmlDeviceResetApplicationsClocks(nvmlDevice_t device)
{
    BEGIN_SETTER(FN_RESET_APP, 0, 0, CAN_SET_APPLICATION_CLOCKS);
    settings.app = (Span){0, 0};
    CHANGE_AND_END();
}

EXPORTED nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned milliwatts)
{
    BEGIN_SETTER(FN_SET_LIMIT, milliwatts, 0, CAN_LIMIT_POWER);
    if (milliwatts < make->least_limit_mw || milliwatts > make->largest_limit_mw)
        return call_end(&call, NVML_ERROR_INVALID_ARGUMENT);
    settings.limit_mw = milliwatts;
    CHANGE_AND_END();
}

static nvmlReturn_t tell_limit(nvmlDevice_t device, Function function, unsigned *out)
{
    Call call;
    nvmlReturn_t code = call_begin(&call, function, device);
    if (code == NVML_SUCCESS && !(call.card->make.abilities & CAN_LIMIT_POWER))
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS)
        *out = function == FN_DEFAULT_LIMIT ? call.card->make.default_limit_mw : call.card->settings.limit_mw;
    return call_end(&call, code);
}

EXPORTED nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned *milliwatts)
{
    return tell_limit(device, FN_POWER_LIMIT, milliwatts);
}

EXPORTED nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned *milliwatts)
{
    return tell_limit(device, FN_DEFAULT_LIMIT, milliwatts);
}

EXPORTED nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned *milliwatts)
{
    return tell_limit(device, FN_ENFORCED_LIMIT, milliwatts);
}

EXPORTED nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(
    nvmlDevice_t device, unsigned *least, unsigned *largest)
{
    Call call;
    nvmlReturn_t code = call_begin(&call, FN_LIMIT_RANGE, device);
    if (code == NVML_SUCCESS && !(call.card->make.abilities & CAN_LIMIT_POWER))
        code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS) {
        *least = call.card->make.least_limit_mw;
        *largest = call.card->make.largest_limit_mw;
    }
    return call_end(&call, code);
}
