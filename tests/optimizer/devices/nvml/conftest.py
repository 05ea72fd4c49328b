from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from nvml_rack import CardSpec, OpenRack, Rack, make_rack, nvml_here


@pytest.fixture
def open_rack(tmp_path: Path) -> Iterator[OpenRack]:
    """Makes a rack of the given cards that pynvml in this process talks to."""
    with ExitStack() as stack:

        def open_one(*cards: CardSpec, privileged_uid: int | None = None) -> Rack:
            rack = stack.enter_context(make_rack(tmp_path, *cards, privileged_uid=privileged_uid))
            stack.enter_context(nvml_here(rack))
            return rack

        yield open_one
