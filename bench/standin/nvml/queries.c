/* What a card is, and who uses it. */
#include "call.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>

#define BEGIN(function)                                      \
    Call call;                                               \
    nvmlReturn_t code = call_begin(&call, function, device); \
    if (code != NVML_SUCCESS)                                \
        return call_end(&call, code);                        \
    const Make *make = &call.card->make;                     \
    (void)make

#define END(code) return call_end(&call, code)

EXPORTED nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *out, unsigned length)
{
    BEGIN(FN_NAME);
    END(copy_text(make->name, out, length));
}

EXPORTED nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *out, unsigned length)
{
    BEGIN(FN_UUID);
    END(copy_text(make->uuid, out, length));
}

EXPORTED nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *index)
{
    BEGIN(FN_INDEX);
    *index = call.card_index;
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned *architecture)
{
    BEGIN(FN_ARCHITECTURE);
    *architecture = make->architecture;
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    BEGIN(FN_CAPABILITY);
    *major = (int)make->compute_major;
    *minor = (int)make->compute_minor;
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info)
{
    BEGIN(FN_PCI_INFO);
    *info = (nvmlPciInfo_t){.bus = call.card_index + 1};
    snprintf(info->bus_id, sizeof info->bus_id, "%s", make->bus_id);
    memcpy(info->bus_id_legacy, make->bus_id, sizeof info->bus_id_legacy - 1);
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    BEGIN(FN_MEMORY_INFO);
    *memory = (nvmlMemory_t){.total = 1ull << 35, .free = 1ull << 35};
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned *mode)
{
    BEGIN(FN_PERSISTENCE);
    *mode = 1;
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, unsigned *state)
{
    BEGIN(FN_PERFORMANCE);
    *state = card_state(call.card).idle ? 8 : 0;
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    BEGIN(FN_UTILIZATION);
    *rates = (nvmlUtilization_t){.gpu = (uint32_t)(card_state(call.card).utilisation * 100.0)};
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned *current, unsigned *pending)
{
    BEGIN(FN_MIG);
    if (!(make->abilities & HAS_MIG))
        END(NVML_ERROR_NOT_SUPPORTED);
    *current = *pending = call.card->script.mig;
    END(NVML_SUCCESS);
}

/* API 0 is the application clocks, the only one that can be opened to everybody. */
EXPORTED nvmlReturn_t nvmlDeviceGetAPIRestriction(nvmlDevice_t device, unsigned api, unsigned *restricted)
{
    BEGIN(FN_RESTRICTION);
    if (api != 0 || !(make->abilities & CAN_SET_APPLICATION_CLOCKS))
        END(NVML_ERROR_NOT_SUPPORTED);
    *restricted = !(make->abilities & ANYBODY_SETS_APPLICATION_CLOCKS);
    END(NVML_SUCCESS);
}

static int is_alive(uint32_t pid) { return kill((pid_t)pid, 0) == 0 || errno == EPERM; }

static uint32_t add_once(uint32_t *pids, uint32_t count, uint32_t pid)
{
    for (uint32_t i = 0; i < count; i++)
        if (pids[i] == pid)
            return count;
    pids[count] = pid;
    return count + 1;
}

/* Those that the control named, and every living process that ever booked a batch. */
static uint32_t find_processes(const Card *card, uint32_t pids[MAX_PROCESSES + MAX_BOOKINGS])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < card->script.process_count; i++)
        count = add_once(pids, count, card->script.processes[i]);
    for (int i = 0; i < MAX_BOOKINGS; i++) {
        uint32_t pid = card->motion.bookings[i].pid;
        if (pid != 0 && is_alive(pid))
            count = add_once(pids, count, pid);
    }
    return count;
}

static nvmlReturn_t list_processes(const Card *card, unsigned *count, nvmlProcessInfo_t *out)
{
    uint32_t pids[MAX_PROCESSES + MAX_BOOKINGS];
    uint32_t found = find_processes(card, pids), room = *count;
    *count = found;
    if (found > 0 && (out == NULL || room < found))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (uint32_t i = 0; i < found; i++)
        out[i] = (nvmlProcessInfo_t){pids[i], 1 << 20, UINT32_MAX, UINT32_MAX};
    return NVML_SUCCESS;
}

EXPORTED nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(
    nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *out)
{
    BEGIN(FN_PROCESSES);
    END(list_processes(call.card, count, out));
}

EXPORTED nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(
    nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *out)
{
    return nvmlDeviceGetComputeRunningProcesses_v3(device, count, out);
}

EXPORTED nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(
    nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *out)
{
    (void)out;
    BEGIN(FN_MPS_PROCESSES);
    *count = 0;
    END(NVML_SUCCESS);
}

EXPORTED nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(
    nvmlDevice_t device, unsigned *count, nvmlProcessInfo_t *out)
{
    (void)out;
    BEGIN(FN_GRAPHICS_PROCESSES);
    *count = 0;
    END(NVML_SUCCESS);
}
