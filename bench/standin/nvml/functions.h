/* Every function that can be counted and made to fail, by the name that NVML gives it without its version.
 *
 * X(identifier, name): the two `field:` entries stand for single values of nvmlDeviceGetFieldValues.
 */
#ifndef STANDIN_FUNCTIONS_H
#define STANDIN_FUNCTIONS_H

#define STANDIN_QUERIES(X)                                        \
    X(INIT, "nvmlInit")                                           \
    X(SHUTDOWN, "nvmlShutdown")                                   \
    X(DRIVER_VERSION, "nvmlSystemGetDriverVersion")               \
    X(NVML_VERSION, "nvmlSystemGetNVMLVersion")                   \
    X(CUDA_VERSION, "nvmlSystemGetCudaDriverVersion")             \
    X(CARD_COUNT, "nvmlDeviceGetCount")                           \
    X(BY_INDEX, "nvmlDeviceGetHandleByIndex")                     \
    X(BY_UUID, "nvmlDeviceGetHandleByUUID")                       \
    X(BY_BUS, "nvmlDeviceGetHandleByPciBusId")                    \
    X(NAME, "nvmlDeviceGetName")                                  \
    X(UUID, "nvmlDeviceGetUUID")                                  \
    X(INDEX, "nvmlDeviceGetIndex")                                \
    X(ARCHITECTURE, "nvmlDeviceGetArchitecture")                  \
    X(CAPABILITY, "nvmlDeviceGetCudaComputeCapability")           \
    X(PCI_INFO, "nvmlDeviceGetPciInfo")                           \
    X(MEMORY_INFO, "nvmlDeviceGetMemoryInfo")                     \
    X(PERSISTENCE, "nvmlDeviceGetPersistenceMode")                \
    X(PERFORMANCE, "nvmlDeviceGetPerformanceState")               \
    X(UTILIZATION, "nvmlDeviceGetUtilizationRates")               \
    X(MIG, "nvmlDeviceGetMigMode")                                \
    X(RESTRICTION, "nvmlDeviceGetAPIRestriction")                 \
    X(PROCESSES, "nvmlDeviceGetComputeRunningProcesses")          \
    X(MPS_PROCESSES, "nvmlDeviceGetMPSComputeRunningProcesses")   \
    X(GRAPHICS_PROCESSES, "nvmlDeviceGetGraphicsRunningProcesses")\
    X(CLOCK_INFO, "nvmlDeviceGetClockInfo")                       \
    X(MAX_CLOCK, "nvmlDeviceGetMaxClockInfo")                     \
    X(CLOCK, "nvmlDeviceGetClock")                                \
    X(APP_CLOCK, "nvmlDeviceGetApplicationsClock")                \
    X(DEFAULT_APP_CLOCK, "nvmlDeviceGetDefaultApplicationsClock") \
    X(MEMORY_CLOCKS, "nvmlDeviceGetSupportedMemoryClocks")        \
    X(GRAPHICS_CLOCKS, "nvmlDeviceGetSupportedGraphicsClocks")    \
    X(POWER, "nvmlDeviceGetPowerUsage")                           \
    X(ENERGY, "nvmlDeviceGetTotalEnergyConsumption")              \
    X(FIELDS, "nvmlDeviceGetFieldValues")                         \
    X(FIELD_ENERGY, "field:83")                                   \
    X(FIELD_AVERAGE, "field:185")                                 \
    X(FIELD_INSTANT, "field:186")                                 \
    X(POWER_LIMIT, "nvmlDeviceGetPowerManagementLimit")           \
    X(DEFAULT_LIMIT, "nvmlDeviceGetPowerManagementDefaultLimit")  \
    X(LIMIT_RANGE, "nvmlDeviceGetPowerManagementLimitConstraints")\
    X(ENFORCED_LIMIT, "nvmlDeviceGetEnforcedPowerLimit")          \
    X(REASONS, "nvmlDeviceGetCurrentClocksEventReasons")          \
    X(THROTTLE, "nvmlDeviceGetCurrentClocksThrottleReasons")      \
    X(SUPPORTED_REASONS, "nvmlDeviceGetSupportedClocksEventReasons") \
    X(TEMPERATURE, "nvmlDeviceGetTemperature")                    \
    X(TEMPERATURE_V, "nvmlDeviceGetTemperatureV")                 \
    X(RUN_BATCH, "standinRunBatch")

#define STANDIN_SETTERS(X)                                        \
    X(LOCK_SM, "nvmlDeviceSetGpuLockedClocks")                    \
    X(UNLOCK_SM, "nvmlDeviceResetGpuLockedClocks")                \
    X(LOCK_MEMORY, "nvmlDeviceSetMemoryLockedClocks")             \
    X(UNLOCK_MEMORY, "nvmlDeviceResetMemoryLockedClocks")         \
    X(SET_APP, "nvmlDeviceSetApplicationsClocks")                 \
    X(RESET_APP, "nvmlDeviceResetApplicationsClocks")             \
    X(SET_LIMIT, "nvmlDeviceSetPowerManagementLimit")

#define STANDIN_IDENTIFIER(identifier, name) FN_##identifier,
typedef enum {
    STANDIN_QUERIES(STANDIN_IDENTIFIER)
    FN_FIRST_SETTER,
    FN_BEFORE_SETTERS = FN_FIRST_SETTER - 1,
    STANDIN_SETTERS(STANDIN_IDENTIFIER)
    FN_COUNT
} Function;

static inline int is_setter(Function function) { return (int)function >= (int)FN_FIRST_SETTER; }

#endif
