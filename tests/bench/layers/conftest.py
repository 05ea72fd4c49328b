"""A small network, and what timing it may look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_cnn import write_small_cnn


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cnn(tmp_path_factory.mktemp("layers"))
