/* Opening and closing NVML, the system's own facts, and the way from an index or a name to a card. */
#include "call.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NVML_VERSION_TEXT "13.0-standin"
enum { CUDA_VERSION = 13000 };

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static Rack *rack;
static char rack_path[4096];
static unsigned users;
static struct nvmlDevice devices[MAX_CARDS];

Rack *opened_rack(void) { return users > 0 ? rack : NULL; }

nvmlDevice_t device_at(uint32_t index) { return index < MAX_CARDS ? &devices[index] : NULL; }

/* The old mapping stays where it is: another thread may be in it, and there are few. */
static nvmlReturn_t open_rack(void)
{
    const char *path = getenv("BOULTON_STANDIN_NVML");
    if (path == NULL || strlen(path) >= sizeof rack_path)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (rack != NULL && strcmp(path, rack_path) == 0)
        return NVML_SUCCESS;
    Rack *found = rack_map(path);
    if (found == NULL)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    rack = found;
    strcpy(rack_path, path);
    for (uint32_t i = 0; i < MAX_CARDS; i++)
        devices[i].index = i;
    return NVML_SUCCESS;
}

EXPORTED nvmlReturn_t nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&opening);
    nvmlReturn_t code = users > 0 ? NVML_SUCCESS : open_rack();
    if (code == NVML_SUCCESS)
        users++;
    pthread_mutex_unlock(&opening);
    if (code != NVML_SUCCESS)
        return code;
    Call call;
    code = call_end(&call, system_begin(&call, FN_INIT));
    if (code != NVML_SUCCESS) {
        pthread_mutex_lock(&opening);
        users--;
        pthread_mutex_unlock(&opening);
    }
    return code;
}

EXPORTED nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
EXPORTED nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

EXPORTED nvmlReturn_t nvmlShutdown(void)
{
    Call call;
    nvmlReturn_t code = call_end(&call, system_begin(&call, FN_SHUTDOWN));
    if (code != NVML_SUCCESS)
        return code;
    pthread_mutex_lock(&opening);
    if (users > 0)
        users--;
    pthread_mutex_unlock(&opening);
    return NVML_SUCCESS;
}

static nvmlReturn_t tell_text(Function function, const char *text, char *out, unsigned length)
{
    Call call;
    nvmlReturn_t code = system_begin(&call, function);
    if (code == NVML_SUCCESS)
        code = copy_text(text != NULL ? text : call.rack->driver_version, out, length);
    return call_end(&call, code);
}

EXPORTED nvmlReturn_t nvmlSystemGetDriverVersion(char *out, unsigned length)
{
    return tell_text(FN_DRIVER_VERSION, NULL, out, length);
}

EXPORTED nvmlReturn_t nvmlSystemGetNVMLVersion(char *out, unsigned length)
{
    return tell_text(FN_NVML_VERSION, NVML_VERSION_TEXT, out, length);
}

EXPORTED nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    Call call;
    nvmlReturn_t code = system_begin(&call, FN_CUDA_VERSION);
    if (code == NVML_SUCCESS)
        *version = CUDA_VERSION;
    return call_end(&call, code);
}

EXPORTED nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return nvmlSystemGetCudaDriverVersion(version);
}

EXPORTED nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count)
{
    Call call;
    nvmlReturn_t code = system_begin(&call, FN_CARD_COUNT);
    if (code == NVML_SUCCESS)
        *count = call.rack->count;
    return call_end(&call, code);
}

EXPORTED nvmlReturn_t nvmlDeviceGetCount(unsigned *count) { return nvmlDeviceGetCount_v2(count); }

/* A lost card cannot be opened any more: NVML says so instead of handing out a handle. */
static nvmlReturn_t hand_out(const Rack *from, uint32_t index, nvmlDevice_t *device)
{
    if (from->cards[index].script.lost)
        return NVML_ERROR_GPU_IS_LOST;
    *device = device_at(index);
    return NVML_SUCCESS;
}

EXPORTED nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device)
{
    Call call;
    nvmlReturn_t code = system_begin(&call, FN_BY_INDEX);
    if (code == NVML_SUCCESS)
        code = index < call.rack->count ? hand_out(call.rack, index, device) : NVML_ERROR_INVALID_ARGUMENT;
    return call_end(&call, code);
}

EXPORTED nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static nvmlReturn_t find_by(Function function, const char *wanted, nvmlDevice_t *device)
{
    Call call;
    nvmlReturn_t code = system_begin(&call, function);
    if (code == NVML_SUCCESS) {
        code = NVML_ERROR_NOT_FOUND;
        for (uint32_t i = 0; i < call.rack->count; i++) {
            const Make *make = &call.rack->cards[i].make;
            if (strcmp(wanted, function == FN_BY_UUID ? make->uuid : make->bus_id) == 0)
                code = hand_out(call.rack, i, device);
        }
    }
    return call_end(&call, code);
}

EXPORTED nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    return find_by(FN_BY_UUID, uuid, device);
}

/* The same for whoever puts work on a card: whatever is scripted of NVML is none of its business. */
EXPORTED nvmlReturn_t standinFind(const char *uuid, nvmlDevice_t *device)
{
    Rack *opened = opened_rack();
    if (opened == NULL)
        return NVML_ERROR_UNINITIALIZED;
    for (uint32_t i = 0; i < opened->count; i++)
        if (strcmp(uuid, opened->cards[i].make.uuid) == 0) {
            *device = device_at(i);
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

EXPORTED nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    return find_by(FN_BY_BUS, bus_id, device);
}

EXPORTED const char *nvmlErrorString(nvmlReturn_t code)
{
    return code == NVML_SUCCESS ? "Success" : "Failure reported by the stand-in NVML";
}
