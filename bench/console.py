"""Where the programs of this package print."""

from __future__ import annotations

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120


def make_console(*, markup: bool = True) -> Console:
    """Return a console; without a terminal one that is wide enough to keep lines and tables whole.

    Args:
        markup: whether words in square brackets are colours; not where names that others gave are printed.
    """
    console = Console(markup=markup)
    return console if console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL, markup=markup)
