import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2v_cli.errors import OptionError
from s2v_cli.options import MAX_SEED, GenerateOptions, SoundOptions, as_record


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("start_s", -0.1, "start"),
        ("start_s", float("nan"), "start"),
        ("start_s", True, "start"),
        ("duration_s", 0, "duration"),
        ("duration_s", float("inf"), "duration"),
        ("window", "middle", "window"),
        ("gain_db", 61, "gain-db"),
        ("gain_db", -121, "gain-db"),
        ("gain_db", float("nan"), "gain-db"),
    ],
)
def test_sound_options_refuse(field: str, value: object, named: str) -> None:
    with pytest.raises(OptionError) as caught:
        SoundOptions(**{field: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{named} is {value!r}; allowed: ")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"seed": MAX_SEED, "count": 2}, "seed + count - 1"),
        ({"count": 0}, "count"),
        ({"count": 10_001}, "count"),
        ({"truncation": 0}, "truncation"),
        ({"truncation": 2.1}, "truncation"),
        ({"best_of": 0}, "best-of"),
        ({"best_of": 257}, "best-of"),
        ({"size": 15}, "size"),
        ({"size": 4097}, "size"),
        ({"contrast": "loud"}, "contrast"),
        ({"prompt": 3}, "prompt"),
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"guidance": -0.1}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"sampler": "euler-a"}, "sampler"),
        ({"noise_level": 1000}, "noise-level"),
        ({"adapter_scale": 2.5}, "adapter-scale"),
    ],
)
def test_generate_options_refuse(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError) as caught:
        GenerateOptions(**fields)
    assert str(caught.value).startswith(f"{named} is ")
    assert "allowed: " in str(caught.value)


@given(
    seed=st.integers(0, MAX_SEED - 10_000),
    count=st.integers(1, 10_000),
    truncation=st.none() | st.floats(0.01, 2),
    size=st.none() | st.integers(16, 4096),
)
def test_records_give_the_options_back(
    seed: int, count: int, truncation: float | None, size: int | None
) -> None:
    options = GenerateOptions(seed=seed, count=count, truncation=truncation, size=size)
    record = json.loads(json.dumps(as_record(options)))
    assert GenerateOptions(**record) == options


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SoundOptions().gain_db = 3.0  # type: ignore[misc]
