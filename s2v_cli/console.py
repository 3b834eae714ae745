"""What people see besides the result: notes, progress and a preview, all on standard error."""

from __future__ import annotations

import sys
import threading
import unicodedata
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from PIL.Image import Image

PATIENCE_S = 1.0  # what is done sooner shows no progress


def one_line(text: object) -> str:
    """Text that can neither break a line nor steer the terminal (file names may hold anything)."""
    return "".join(
        c
        if c.isprintable() or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode()
        for c in str(text).strip()
    )


class Console:
    """Prints for one command: results on stdout, notes and progress on stderr.

    Used as a context manager around the work. Progress appears after `PATIENCE_S`, only on a
    terminal, and leaves nothing behind.

    Attributes:
        quiet: no notes, no progress.
        errors: how many errors were printed.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.errors = 0
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._bar: Any = None
        self._state: tuple[str, float, float | None] = ("", 0.0, None)

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            self._timer = threading.Timer(PATIENCE_S, self._start_bar)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._timer = None
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def result(self, text: str) -> None:
        """Print a line of the result on stdout."""
        self._line(text, sys.stdout)

    def result_bytes(self, content: bytes) -> None:
        """Write the result on stdout as it is."""
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()

    def note(self, text: str) -> None:
        """Print a note on stderr, unless quiet."""
        if not self.quiet:
            self._line(f"s2v: note: {one_line(text)}", sys.stderr)

    def error(self, text: object) -> None:
        """Print an error on stderr, quiet or not, and count it."""
        self.errors += 1
        self._line(f"s2v: error: {one_line(text)}", sys.stderr)

    def progress(self, label: str, done: float = 0.0, total: float | None = None) -> None:
        """Say what goes on; a total of None is unknown."""
        with self._lock:
            self._state = (label, done, total)
            if self._bar is not None:
                self._bar.update(
                    self._bar.task_ids[0],
                    description=one_line(label),
                    completed=done,
                    total=total,
                )

    def ask(self, question: str) -> bool:
        """Put a yes-or-no question on the terminal; progress waits meanwhile, no answer is no."""
        with self._lock:
            self._pause()
            print(f"s2v: {one_line(question)} [y/N] ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline().strip().lower()
            self._resume()
        return answer in ("y", "yes")

    def preview(self, image: Image) -> None:
        """Show a picture in the terminal, two pixels a character."""
        from rich.console import Console as RichConsole

        screen = RichConsole(stderr=True, force_terminal=True, color_system="truecolor")
        columns = min(image.width, screen.width, 64)
        rows = max(1, round(image.height / image.width * columns / 2))
        with self._lock:
            self._pause()
            screen.print(half_blocks(image, columns, rows), end="")
            self._resume()

    def _line(self, text: str, stream: Any) -> None:
        with self._lock:
            meets = stream.isatty()  # else it does not land beside the bar
            if meets:
                self._pause()
            print(text, file=stream, flush=True)
            if meets:
                self._resume()

    def _pause(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _resume(self) -> None:
        if self._bar is not None:
            self._bar.start()

    def _start_bar(self) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import Progress

        with self._lock:
            if self._timer is None:  # the work ended meanwhile
                return
            self._bar = Progress(
                console=RichConsole(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            label, done, total = self._state
            self._bar.add_task(one_line(label), completed=done, total=total)
            self._bar.start()


def half_blocks(image: Image, columns: int, rows: int) -> Any:
    """Picture as rich text: each upper half block carries two pixels, its colours."""
    from PIL.Image import Resampling
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    pixels = image.convert("RGB").resize((columns, 2 * rows), Resampling.LANCZOS).tobytes()

    def colour(x: int, y: int) -> Color:
        start = 3 * (y * columns + x)
        return Color.from_rgb(*pixels[start : start + 3])

    text = Text(no_wrap=True, overflow="crop")
    for row in range(rows):
        for x in range(columns):
            style = Style(color=colour(x, 2 * row), bgcolor=colour(x, 2 * row + 1))
            text.append("▀", style)
        text.append("\n")
    return text
