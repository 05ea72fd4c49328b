"""The shared state as the C sources lay it out (nvml/rack.h); change both together."""

from __future__ import annotations

from ctypes import Array, Structure, c_char, c_double, c_int32, c_int64, c_uint32, c_uint64

MAX_CARDS = 16
MAX_CLOCKS = 256
MAX_MEMORY_CLOCKS = 8
MAX_BOOKINGS = 16
MAX_PROCESSES = 16
MAX_RULES = 128
MAX_LOG = 8192
MAX_FUNCTIONS = 96
NAME_LENGTH = 96

CAN_LOCK_SM = 0x1
CAN_LOCK_MEMORY = 0x2
CAN_SET_APPLICATION_CLOCKS = 0x4
CAN_LIMIT_POWER = 0x8
HAS_ENERGY_COUNTER = 0x10
HAS_POWER_AVERAGE = 0x20
HAS_POWER_INSTANT = 0x40
HAS_MIG = 0x80
ANYBODY_SETS_APPLICATION_CLOCKS = 0x100
IDLES_BELOW_LOCK = 0x200


class Span(Structure):
    """A range of clocks in MHz; {0, 0} where nothing was asked for."""

    low: int
    high: int
    _fields_ = (("low", c_uint32), ("high", c_uint32))


class Make(Structure):
    """What a card is."""

    uuid: bytes
    name: bytes
    bus_id: bytes
    architecture: int
    compute_major: int
    compute_minor: int
    abilities: int
    privileged_uid: int
    sm_count: int
    sm_mhz: Array[c_uint32]
    memory_count: int
    memory_mhz: Array[c_uint32]
    sm_limit_mhz: Array[c_uint32]
    idle_sm_mhz: int
    slowdown_mhz: int
    default_app_memory_mhz: int
    default_app_sm_mhz: int
    default_limit_mw: int
    least_limit_mw: int
    largest_limit_mw: int
    idle_w: float
    standing_w: float
    active_w: float
    knee: float
    floor_voltage: float
    memory_share: float
    ambient_c: float
    c_per_w: float
    thermal_s: float
    slowdown_c: float
    settle_ns: int
    idle_after_ns: int
    counter_period_ns: int
    setter_ns: int
    _fields_ = (
        ("uuid", c_char * NAME_LENGTH),
        ("name", c_char * NAME_LENGTH),
        ("bus_id", c_char * 32),
        ("architecture", c_uint32),
        ("compute_major", c_uint32),
        ("compute_minor", c_uint32),
        ("abilities", c_uint32),
        ("privileged_uid", c_uint32),
        ("sm_count", c_uint32),
        ("sm_mhz", c_uint32 * MAX_CLOCKS),
        ("memory_count", c_uint32),
        ("memory_mhz", c_uint32 * MAX_MEMORY_CLOCKS),
        ("sm_limit_mhz", c_uint32 * MAX_MEMORY_CLOCKS),
        ("idle_sm_mhz", c_uint32),
        ("slowdown_mhz", c_uint32),
        ("default_app_memory_mhz", c_uint32),
        ("default_app_sm_mhz", c_uint32),
        ("default_limit_mw", c_uint32),
        ("least_limit_mw", c_uint32),
        ("largest_limit_mw", c_uint32),
        ("idle_w", c_double),
        ("standing_w", c_double),
        ("active_w", c_double),
        ("knee", c_double),
        ("floor_voltage", c_double),
        ("memory_share", c_double),
        ("ambient_c", c_double),
        ("c_per_w", c_double),
        ("thermal_s", c_double),
        ("slowdown_c", c_double),
        ("settle_ns", c_int64),
        ("idle_after_ns", c_int64),
        ("counter_period_ns", c_int64),
        ("setter_ns", c_int64),
    )


class Settings(Structure):
    """What has been asked of a card; `app.low` is the memory clock, `app.high` the SM clock."""

    locked_sm: Span
    locked_memory: Span
    app: Span
    limit_mw: int
    _fields_ = (("locked_sm", Span), ("locked_memory", Span), ("app", Span), ("limit_mw", c_uint32))


class Script(Structure):
    """What the control has arranged for a card."""

    lost: int
    mig: int
    forced_clock_mhz: int
    temperature_fixed: int
    forced_reasons: int
    process_count: int
    processes: Array[c_uint32]
    _fields_ = (
        ("lost", c_uint32),
        ("mig", c_uint32),
        ("forced_clock_mhz", c_uint32),
        ("temperature_fixed", c_uint32),
        ("forced_reasons", c_uint64),
        ("process_count", c_uint32),
        ("processes", c_uint32 * MAX_PROCESSES),
    )


class Booking(Structure):
    """Work that a process has given a card."""

    until_ns: int
    utilisation: float
    pid: int
    _fields_ = (("until_ns", c_int64), ("utilisation", c_double), ("pid", c_uint32))


class Motion(Structure):
    """How a card runs."""

    now_ns: int
    settled_ns: int
    busy_until_ns: int
    sm_before: Span
    memory_before: Span
    energy_j: float
    shown_j: float
    average_w: float
    temperature_c: float
    too_hot: int
    bookings: Array[Booking]
    _fields_ = (
        ("now_ns", c_int64),
        ("settled_ns", c_int64),
        ("busy_until_ns", c_int64),
        ("sm_before", Span),
        ("memory_before", Span),
        ("energy_j", c_double),
        ("shown_j", c_double),
        ("average_w", c_double),
        ("temperature_c", c_double),
        ("too_hot", c_uint32),
        ("bookings", Booking * MAX_BOOKINGS),
    )


class Card(Structure):
    """All of one card."""

    make: Make
    settings: Settings
    script: Script
    motion: Motion
    _fields_ = (("make", Make), ("settings", Settings), ("script", Script), ("motion", Motion))


class Rule(Structure):
    """One scripted failure."""

    active: int
    function: int
    when: int
    card: int
    code: int
    remaining: int
    from_ns: int
    delay_ns: int
    _fields_ = (
        ("active", c_uint32),
        ("function", c_uint32),
        ("when", c_uint32),
        ("card", c_int32),
        ("code", c_int32),
        ("remaining", c_int32),
        ("from_ns", c_int64),
        ("delay_ns", c_int64),
    )


class LogEntry(Structure):
    """One call of a setter."""

    at_ns: int
    pid: int
    uid: int
    function: int
    card: int
    first: int
    second: int
    code: int
    _fields_ = (
        ("at_ns", c_int64),
        ("pid", c_uint32),
        ("uid", c_uint32),
        ("function", c_uint32),
        ("card", c_uint32),
        ("first", c_uint32),
        ("second", c_uint32),
        ("code", c_uint32),
    )


class RackState(Structure):
    """The whole file, but for the mutex at its end, which only the library touches."""

    magic: int
    version: int
    size: int
    count: int
    stopped_ns: int
    skipped_ns: int
    driver_version: bytes
    calls: Array[c_uint64]
    logged: int
    log: Array[LogEntry]
    rules: Array[Rule]
    cards: Array[Card]
    _fields_ = (
        ("magic", c_uint32),
        ("version", c_uint32),
        ("size", c_uint32),
        ("count", c_uint32),
        ("stopped_ns", c_int64),
        ("skipped_ns", c_int64),
        ("driver_version", c_char * NAME_LENGTH),
        ("calls", c_uint64 * MAX_FUNCTIONS),
        ("logged", c_uint64),
        ("log", LogEntry * MAX_LOG),
        ("rules", Rule * MAX_RULES),
        ("cards", Card * MAX_CARDS),
    )


class State(Structure):
    """What a card does at the moment (nvml/card.h)."""

    sm_mhz: int
    memory_mhz: int
    idle: int
    power_mw: int
    reasons: int
    utilisation: float
    power_w: float
    _fields_ = (
        ("sm_mhz", c_uint32),
        ("memory_mhz", c_uint32),
        ("idle", c_uint32),
        ("power_mw", c_uint32),
        ("reasons", c_uint64),
        ("utilisation", c_double),
        ("power_w", c_double),
    )
