"""How long the loads may last for the demo to end in time: the busier the machine, the shorter."""

from __future__ import annotations

from dataclasses import dataclass

LIMIT_S = 300.0
PHASE_S = 18.0
LEAST_PHASE_S = 8.0
"""Shorter loads would not show the governor at work."""
_SPARE_S = 15.0
_REST_S = {6: (20.0, 0.35), 4: (12.0, 0.25)}
"""What is still to do beside so many phases of load, in seconds and, on top, in times of the export: servers
to start and to stop, a library to compile. On two quiet cores the export took 16 s and all of it 20 s, on two
very busy ones 177 s and 50 s."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The time that the demo has.

    Args:
        export_s: how long the export took: the measure of how busy the machine is.
        asked_s: a phase's length that somebody asked for, which is kept; None: `PHASE_S`, or less.
    """

    export_s: float
    asked_s: float | None = None

    def phase_s(self, elapsed_s: float, phases: int) -> float:
        """Return the seconds of a phase of load when so many phases, 6 or 4, are still to come."""
        if self.asked_s is not None:
            return self.asked_s
        rest_s, exports = _REST_S[phases]
        room_s = LIMIT_S - _SPARE_S - elapsed_s - rest_s - exports * self.export_s
        return float(min(PHASE_S, max(LEAST_PHASE_S, room_s // phases)))

    def said(self, phase_s: float) -> str:
        """Explain a phase that was made shorter; empty when it was not."""
        if self.asked_s is not None or phase_s == PHASE_S:
            return ""
        busy = f"This machine is slow or busy: the export took {self.export_s:.0f} s."
        text = f"{busy} Each load lasts {phase_s:g} s instead of {PHASE_S:g} s"
        if phase_s == LEAST_PHASE_S:
            return f"{text}; the demo may take more than {LIMIT_S / 60:g} minutes all the same"
        return f"{text}, for the demo to end within {LIMIT_S / 60:g} minutes"
