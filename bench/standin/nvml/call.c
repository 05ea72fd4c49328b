#include "call.h"

#include <string.h>
#include <unistd.h>

enum { ANY_CARD = -1, FOR_EVER = -1 };

static int is_meant(const Rule *rule, Function function)
{
    return rule->function == function || (rule->function == EVERY_FUNCTION && function != FN_RUN_BATCH);
}

static int applies(const Rule *rule, Function function, int32_t card, int64_t now_ns)
{
    return rule->active && is_meant(rule, function) && rule->remaining != 0 && now_ns >= rule->from_ns
        && (rule->card == ANY_CARD || rule->card == card);
}

/* Take the first rule that applies and use up one of its times; the rack is locked. */
static Rule take_rule(Rack *rack, Function function, int32_t card)
{
    int64_t now_ns = rack_now(rack);
    for (int i = 0; i < MAX_RULES; i++) {
        Rule *rule = &rack->rules[i];
        if (!applies(rule, function, card, now_ns))
            continue;
        if (rule->remaining != FOR_EVER)
            rule->remaining--;
        return *rule;
    }
    return (Rule){.active = 0};
}

nvmlReturn_t scripted_code(Call *call, Function function)
{
    call->rack->calls[function]++;
    return (nvmlReturn_t)take_rule(call->rack, function, (int32_t)call->card_index).code;
}

static void lock(Call *call)
{
    rack_lock(call->rack);
    call->locked = 1;
}

static void unlock(Call *call)
{
    rack_unlock(call->rack);
    call->locked = 0;
}

/* Count the call and do what the script wants before the effect. Slow calls keep nobody else waiting. */
static nvmlReturn_t play_script(Call *call)
{
    lock(call);
    call->rack->calls[call->function]++;
    call->rule = take_rule(call->rack, call->function, call->card != NULL ? (int32_t)call->card_index : ANY_CARD);
    if (!call->rule.active || call->rule.when == WHEN_AFTER)
        return NVML_SUCCESS;
    if (call->rule.when == WHEN_HOLDING) {
        sleep_ns(call->rule.delay_ns);
    } else {
        unlock(call);
        sleep_ns(call->rule.delay_ns);
        lock(call);
    }
    return (nvmlReturn_t)call->rule.code;
}

static nvmlReturn_t begin(Call *call, Function function)
{
    *call = (Call){.function = function, .rack = opened_rack()};
    return call->rack == NULL ? NVML_ERROR_UNINITIALIZED : NVML_SUCCESS;
}

nvmlReturn_t system_begin(Call *call, Function function)
{
    nvmlReturn_t code = begin(call, function);
    return code != NVML_SUCCESS ? code : play_script(call);
}

static nvmlReturn_t find_card(Call *call, nvmlDevice_t device)
{
    if (device == NULL || device != device_at(device->index) || device->index >= call->rack->count)
        return NVML_ERROR_INVALID_ARGUMENT;
    call->card_index = device->index;
    call->card = &call->rack->cards[device->index];
    return NVML_SUCCESS;
}

nvmlReturn_t call_begin(Call *call, Function function, nvmlDevice_t device)
{
    nvmlReturn_t code = begin(call, function);
    if (code == NVML_SUCCESS)
        code = find_card(call, device);
    if (code == NVML_SUCCESS)
        code = play_script(call);
    if (code == NVML_SUCCESS && call->card->script.lost)
        code = NVML_ERROR_GPU_IS_LOST;
    if (code == NVML_SUCCESS)
        advance_card(call->card, rack_now(call->rack));
    return code;
}

static int permitted(const Call *call)
{
    const Make *make = &call->card->make;
    if (call->function == FN_SET_APP || call->function == FN_RESET_APP)
        if (make->abilities & ANYBODY_SETS_APPLICATION_CLOCKS)
            return 1;
    return geteuid() == make->privileged_uid;
}

/* A setter takes its time before anything changes, while others go on. */
static void take_time(Call *call)
{
    if (call->card->make.setter_ns <= 0)
        return;
    unlock(call);
    sleep_ns(call->card->make.setter_ns);
    lock(call);
    advance_card(call->card, rack_now(call->rack));
}

nvmlReturn_t setter_begin(Call *call, Function function, nvmlDevice_t device, uint32_t first, uint32_t second)
{
    nvmlReturn_t code = call_begin(call, function, device);
    call->first = first;
    call->second = second;
    if (code == NVML_SUCCESS && !permitted(call))
        code = NVML_ERROR_NO_PERMISSION;
    if (code == NVML_SUCCESS)
        take_time(call);
    return code;
}

/* The rack is locked. */
static void write_log(const Call *call, nvmlReturn_t code)
{
    Rack *rack = call->rack;
    rack->log[rack->logged % MAX_LOG] = (LogEntry){
        .at_ns = monotonic_ns(),
        .pid = (uint32_t)getpid(),
        .uid = geteuid(),
        .function = call->function,
        .card = call->card_index,
        .first = call->first,
        .second = call->second,
        .code = code,
    };
    rack->logged++;
}

nvmlReturn_t call_end(Call *call, nvmlReturn_t code)
{
    if (!call->locked)
        return code;
    int after = call->rule.active && call->rule.when == WHEN_AFTER;
    if (after && code == NVML_SUCCESS)
        code = (nvmlReturn_t)call->rule.code;
    if (is_setter(call->function))
        write_log(call, code);
    unlock(call);
    if (after)
        sleep_ns(call->rule.delay_ns);
    return code;
}

nvmlReturn_t copy_text(const char *text, char *out, uint32_t length)
{
    if (out == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, text);
    return NVML_SUCCESS;
}
