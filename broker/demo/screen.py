"""
What the tour shows: sentences, commands, what the commands print, files.

Drawn on a terminal, plain in a pipe. It refuses to decide anything.
"""

from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

MARGIN: Final = 2


class Screen:
    """
    Where the tour is shown.

    Attributes:
        width: columns that a command's output has.
        terminal: whether somebody looks at it, and not a pipe.

    """

    def __init__(self, console: Console | None = None) -> None:
        """Show the tour on ``console``, or on stdout."""
        self._console = console or Console(highlight=False)
        self.terminal = self._console.is_terminal
        self.width = self._console.width - 2 * MARGIN

    def title(self, text: str) -> None:
        """Show what this is."""
        if self.terminal:
            self._console.print(Panel(text, border_style="cyan", padding=(0, MARGIN)))
        else:
            self._console.print(text, soft_wrap=True)

    def step(self, number: int, title: str) -> None:
        """Begin a step."""
        self._console.print()
        if self.terminal:
            self._console.print(Rule(f"[bold]{number}. {escape(title)}[/]", align="left", style="cyan"))
        else:
            self._console.print(f"{number}. {title}", soft_wrap=True, markup=False)

    def say(self, text: str) -> None:
        """Say something about what comes."""
        self._console.print(text, soft_wrap=not self.terminal, markup=False)

    def command(self, command: str) -> None:
        """Show a command as it can be typed: in one piece, so that it can be copied."""
        for number, line in enumerate(command.splitlines()):
            prompt = "$ " if not number else "  "
            self._console.print(Text(prompt, "green") + Text(line, "bold"), soft_wrap=True)

    def output(self, text: str) -> None:
        """Show what a command printed."""
        for line in Text.from_ansi(text.strip("\n")).split() if text.strip() else ():
            self._console.print(Text(" " * MARGIN) + line, soft_wrap=True)

    def file(self, name: str, text: str, language: str) -> None:
        """Show a file."""
        if self.terminal:
            code = Syntax(text.rstrip(), language, theme="ansi_dark", background_color="default", word_wrap=True)
            self._console.print(Padding(Panel(code, title=name, title_align="left", border_style="dim"), (0, MARGIN)))
        else:
            self.output(text)

    def good(self, text: str) -> None:
        """Say what has been seen to be true."""
        self._console.print(Text("✓ ", "green") + Text(text), soft_wrap=not self.terminal)

    def end(self, text: str) -> None:
        """Say how it ended."""
        self._console.print()
        self.title(text)

    def bad(self, text: str) -> None:
        """Say what has turned out not to be true."""
        self._console.print(Text("✗ ", "red") + Text(text, "bold"), soft_wrap=not self.terminal)
