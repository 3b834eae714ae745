"""Durations as people write them: `83.5`, `90s`, `1:23.5`, `1:02:03`."""

from __future__ import annotations

import re

from s2v_cli.errors import OptionError

_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*s?")
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d{1,2}(?:\.\d*)?)")


def parse_duration(text: str, name: str) -> float:
    """Seconds in `text`; `name` is the option that an error names.

    Raises:
        OptionError: neither seconds nor [hours:]minutes:seconds.
    """
    seconds = _SECONDS.fullmatch(text.strip())
    if seconds:
        return float(seconds[1])
    clock = _CLOCK.fullmatch(text.strip())
    if clock and float(clock[3]) < 60 and (clock[1] is None or int(clock[2]) < 60):
        return int(clock[1] or 0) * 3600.0 + int(clock[2]) * 60.0 + float(clock[3])
    raise OptionError(
        f"{name} is {text!r}; allowed: seconds (83.5 or 83.5s) or [hours:]minutes:seconds (1:23.5)."
    )
