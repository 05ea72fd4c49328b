"""Where the programs of this package print."""

from __future__ import annotations

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let whoever runs the command say that nobody reads any more: rich would end the process with 1."""
        raise  # it is called while the error is handled


def make_console(*, markup: bool = True) -> Console:
    """Return a console; without a terminal one that is wide enough to keep lines and tables whole.

    Args:
        markup: whether words in square brackets are colours; not where names that others gave are printed.
    """
    console = _Console(markup=markup)
    return console if console.is_terminal else _Console(width=WIDTH_WITHOUT_TERMINAL, markup=markup)
