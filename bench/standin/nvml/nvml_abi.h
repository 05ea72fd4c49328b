/* The part of NVML's binary interface that the stand-in answers: return codes, constants and structures.
 *
 * Written from NVIDIA's published description of the interface; only what callers of this library see.
 */
#ifndef STANDIN_NVML_ABI_H
#define STANDIN_NVML_ABI_H

#include <stdint.h>

typedef enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
} nvmlReturn_t;

enum { NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO };
enum { NVML_CLOCK_ID_CURRENT, NVML_CLOCK_ID_APP_CLOCK_TARGET, NVML_CLOCK_ID_APP_CLOCK_DEFAULT };
enum { NVML_VALUE_TYPE_UNSIGNED_INT = 1, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3 };
enum { NVML_FI_DEV_TOTAL_ENERGY = 83, NVML_FI_DEV_POWER_AVERAGE = 185, NVML_FI_DEV_POWER_INSTANT = 186 };
enum { NVML_TEMPERATURE_V1 = 0x100000C };

enum {
    REASON_GPU_IDLE = 0x1,
    REASON_APPLICATIONS_CLOCKS = 0x2,
    REASON_SW_POWER_CAP = 0x4,
    REASON_HW_SLOWDOWN = 0x8,
    REASON_SW_THERMAL_SLOWDOWN = 0x20,
    REASON_HW_THERMAL_SLOWDOWN = 0x40,
    REASON_HW_POWER_BRAKE = 0x80,
    REASONS_ALL = 0x1ff,
};

typedef struct nvmlDevice *nvmlDevice_t;

typedef struct {
    uint32_t field, scope;
    int64_t timestamp_us, latency_us;
    uint32_t value_type, code;
    union {
        uint32_t unsigned_int;
        uint64_t unsigned_long_long;
    } value;
} nvmlFieldValue_t;

typedef struct {
    uint32_t pid;
    uint64_t used_memory;
    uint32_t gpu_instance, compute_instance;
} nvmlProcessInfo_t;

typedef struct {
    char bus_id_legacy[16];
    uint32_t domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} nvmlPciInfo_t;

typedef struct {
    uint32_t gpu, memory;
} nvmlUtilization_t;

typedef struct {
    uint64_t total, free, used;
} nvmlMemory_t;

typedef struct {
    uint32_t version, sensor;
    int32_t temperature;
} nvmlTemperature_t;

#define EXPORTED __attribute__((visibility("default")))

#endif
