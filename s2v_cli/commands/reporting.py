"""How far a measurement is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time

from s2v_cli.console import Console

REPORT_S = 60.0  # between lines where there is no terminal to draw a bar on


class Report:
    """Tells a console how far a measurement is; what the library takes as `progress`."""

    def __init__(self, console: Console) -> None:
        self.console, self.told = console, time.monotonic()

    def __call__(self, stage: str, step: int, steps: int, figures: dict[str, float]) -> None:
        """Tell that `step` of `steps` of a stage are done; no steps means that nobody knows."""
        self.console.progress(stage, step, steps or None)
        if not sys.stderr.isatty() and time.monotonic() - self.told > REPORT_S:
            self.told = time.monotonic()
            self.console.note(f"{stage}: {step} of {steps}" if steps else stage)
