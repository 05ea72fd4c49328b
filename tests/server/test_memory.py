from __future__ import annotations

import subprocess
import sys

import pytest

from server.memory import (
    ARENAS,
    M_ARENA_MAX,
    M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD,
    MIB,
    TRIM_THRESHOLD_BYTES,
    find_mallopt,
    keep_pages,
)


class FakeMallopt:
    """Accepts everything up to `largest` and remembers what is in force."""

    def __init__(self, largest: int) -> None:
        self.largest = largest
        self.settings: dict[int, int] = {}

    def __call__(self, parameter: int, value: int) -> int:
        if value > self.largest:
            return 0
        self.settings[parameter] = value
        return 1


def test_pages_are_kept_in_few_arenas_and_large_peaks_are_given_back() -> None:
    mallopt = FakeMallopt(largest=1 << 40)
    note = keep_pages(mallopt)
    assert mallopt.settings == {
        M_ARENA_MAX: ARENAS,
        M_MMAP_THRESHOLD: 1024 * MIB,
        M_TRIM_THRESHOLD: TRIM_THRESHOLD_BYTES,
    }
    assert "1024 MiB" in note


def test_the_smaller_threshold_is_taken_where_the_larger_is_refused() -> None:
    mallopt = FakeMallopt(largest=256 * MIB)
    note = keep_pages(mallopt)
    assert mallopt.settings[M_MMAP_THRESHOLD] == 32 * MIB
    assert "32 MiB" in note


def test_a_library_that_refuses_is_no_failure() -> None:
    assert "refused" in keep_pages(FakeMallopt(largest=0))


def test_a_library_without_mallopt_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.memory.find_mallopt", lambda: None)
    assert "not glibc" in keep_pages()


# Four threads pass messages of random sizes around, sixteen alive at a time, for thousands of rounds.
CHURN = """
import random, sys, threading
from server.memory import keep_pages

print(keep_pages(), file=sys.stderr)
live, peak = [b""] * 16, 0

def churn(seed):
    global peak
    rng = random.Random(seed)
    for _ in range(800):
        live[rng.randrange(16)] = bytes(rng.choice([150_000, 600_000, 2_400_000, 4_800_000, 19_000_000]))
        peak = max(peak, sum(map(len, live)))

threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
resident = int(open("/proc/self/statm").read().split()[1]) * 4096
print(f"{peak=} {resident=}", file=sys.stderr)
sys.exit(0 if resident < 2 * peak + 128 * 2**20 else 1)
"""


@pytest.mark.skipif(find_mallopt() is None, reason="needs glibc")
def test_memory_stays_bounded_under_mixed_sizes() -> None:
    finished = subprocess.run([sys.executable, "-c", CHURN], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert "are kept" in finished.stderr


def test_the_collector_passes_over_what_was_loaded() -> None:
    code = (
        "import gc; from server.memory import COLLECTOR_THRESHOLDS, spare_collector; spare_collector(); "
        "print(gc.get_freeze_count() > 1000, gc.get_threshold() == COLLECTOR_THRESHOLDS, gc.isenabled())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["True"] * 3
