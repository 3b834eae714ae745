import pytest

from s2v_cli.duration import parse_duration
from s2v_cli.errors import OptionError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("83.5", 83.5),
        (".5", 0.5),
        ("90s", 90.0),
        ("2 s", 2.0),
        ("1:23.5", 83.5),
        ("01:02:03", 3723.0),
        ("100:00", 6000.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "start") == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1:60", "1:75:00", "1:2:3:4", "abc", "5m", "nan", "inf", "1e3", "1:-2"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_duration(text, "duration")
    assert str(caught.value).startswith(f"duration is {text!r}; allowed: ")
