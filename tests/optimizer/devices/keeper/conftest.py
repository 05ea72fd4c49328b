"""Racks of simulated cards for the keeper's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from keeper_process import KeeperHome, keeper_home
from nvml_rack import Rack, make_card, make_rack


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    """An A100 and a P100 that only has application clocks."""
    with make_rack(tmp_path, make_card("ampere"), make_card("pascal", 1)) as made:
        yield made


@pytest.fixture
def home(rack: Rack) -> Iterator[KeeperHome]:
    """A running keeper that may set both."""
    with keeper_home(rack) as made:
        made.start()
        yield made
