"""How the demo speaks: headings, commands, findings and tables, on a terminal or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule


class Kind(StrEnum):
    """Where figures come from; printed beside all of them."""

    MEASURED = "[measured]"
    SIMULATED = "[simulated]"


class DemoFailed(Exception):
    """The demo did not show what it promises; the message says what failed."""


class Stage:
    """Prints. Holds the findings so that the end can repeat them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps = 0
        self.findings: list[str] = []

    def step(self, title: str) -> None:
        """Open the next step."""
        self._steps += 1
        self._console.print()
        self._console.print(Rule(f"{self._steps}. {title}", align="left", style="cyan"))

    def say(self, text: str) -> None:
        """Explain something."""
        self._console.print(escape(text), style="dim", highlight=False)

    def command(self, words: Sequence[str]) -> None:
        """Show a command as the user would type it."""
        self._console.print(f"$ {escape(' '.join(words))}", style="bold", highlight=False, soft_wrap=True)

    def row(self, text: str, *, changed: bool = False) -> None:
        """Print one line of a growing table; a change stands out."""
        style = "bold yellow" if changed else ""
        self._console.print(escape(text), style=style, highlight=False, soft_wrap=True)

    def found(self, text: str) -> None:
        """State a finding that the demo has checked."""
        self.findings.append(text)
        self._console.print(f"[green]ok[/]  {escape(text)}", highlight=False)

    def failed(self, text: str) -> None:
        """Say what failed."""
        self._console.print(f"\n[bold red]FAILED[/]  {escape(text)}", highlight=False)

    def conclude(self) -> None:
        """Repeat what was shown."""
        self._console.print()
        self._console.print(Rule("What this showed", align="left", style="green"))
        for finding in self.findings:
            self._console.print(f"[green]ok[/]  {escape(finding)}", highlight=False)
