from __future__ import annotations

import pytest
from made_up_card import write_card


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_card(tmp_path_factory.mktemp("cards")))
