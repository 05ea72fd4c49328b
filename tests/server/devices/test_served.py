from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from optimizer.operating_point import OperatingGrid
from server.devices.served import ControlState, ServedDevice, control_state


@dataclass
class FakeGovernor:
    clock_refused: bool = False
    grid: OperatingGrid = field(default_factory=lambda: OperatingGrid((1, 2), (500, 1000)))


class FakeGpu:
    uuid = "fake"


WITHOUT_CLOCKS = FakeGovernor(grid=OperatingGrid((1, 2)))


@pytest.mark.parametrize(
    ("facts", "governor", "state"),
    [
        ({}, FakeGovernor(), ControlState.OFF),
        ({"control": True}, FakeGovernor(), ControlState.ON),
        ({"control": True}, FakeGovernor(clock_refused=True), ControlState.REFUSED),
        ({"control": True, "trouble": lambda: "no answer"}, FakeGovernor(), ControlState.REFUSED),
        ({"control": True}, WITHOUT_CLOCKS, ControlState.UNAVAILABLE),
        ({"control": True}, None, ControlState.UNAVAILABLE),
        ({"control": True, "lost": lambda: True}, FakeGovernor(clock_refused=True), ControlState.LOST),
    ],
)
def test_the_state_of_control(
    facts: dict[str, object], governor: FakeGovernor | None, state: ControlState
) -> None:
    assert control_state(ServedDevice(FakeGpu(), **facts), governor) is state
