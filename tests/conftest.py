"""What holds for all tests, however and wherever they are started."""

from __future__ import annotations

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let no busy machine fail a property, and let children hear a hangup, also under `nohup`."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # which children would inherit
        signal.signal(signal.SIGHUP, _survive)
    if config.pluginmanager.hasplugin("hypothesispytest"):
        from hypothesis import settings

        settings.register_profile("untimed", deadline=None)
        settings.load_profile("untimed")


def _survive(_number: int, _frame: object) -> None:
    """Go on, as when the signal is ignored; but children begin with its default."""
