"""Tracks as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2v_cli.audio.tracks import (
    MixOptions,
    Track,
    as_tracks,
    check_sweep,
    check_tracks,
    parse_track,
    parse_tracks,
    sweep_weights,
)
from s2v_cli.errors import OptionError, SoundError


@pytest.mark.parametrize(
    ("text", "track"),
    [
        ("a.wav", Track("a.wav")),
        ("-", Track("-")),
        ("-:0.5", Track("-", 0.5)),
        ("a.wav:0.7", Track("a.wav", 0.7)),
        ("a.wav:.5", Track("a.wav", 0.5)),
        ("a.wav:+1e-2", Track("a.wav", 0.01)),
        ("a.wav:-6dB", Track("a.wav", -6, in_db=True)),
        ("a.wav:3 DB", Track("a.wav", 3, in_db=True)),
        ("a.wav:-0.5", Track("a.wav", -0.5)),
        ("a.wav:0.5@2.5s", Track("a.wav", 0.5, offset_s=2.5)),
        ("a.wav:@2.5s", Track("a.wav", offset_s=2.5)),
        ("in 12:30/a.wav:0.7", Track("in 12:30/a.wav", 0.7)),
        ("C:\\a.wav", Track("C:\\a.wav")),
        ("no:such:file", Track("no:such:file")),
        (":0.5", Track(":0.5")),
    ],
)
def test_what_people_write(folder: Path, text: str, track: Track) -> None:
    assert parse_track(text) == track


def test_names_with_colons(folder: Path) -> None:
    """A file of the whole name wins; else the last colon that leaves a weight divides."""
    Path("12:30").touch()
    assert parse_track("12:30") == Track("12:30")
    assert parse_track("12:30:0.5") == Track("12:30", 0.5)
    assert parse_track("12:31") == Track("12", 31)
    Path("a.wav").touch()
    assert parse_track("a.wav:0.7") == Track("a.wav", 0.7)
    assert parse_track("a.wav:-6dB@1:02") == Track("a.wav", -6, in_db=True, offset_s=62)
    assert parse_track("a.wav@2.5s") == Track("a.wav", offset_s=2.5)
    assert parse_track("-@1:02") == Track("-", offset_s=62)
    assert parse_track("b@2x.wav") == Track("b@2x.wav")
    Path("a.wav:0.7").touch()
    assert parse_track("a.wav:0.7") == Track("a.wav:0.7")
    assert parse_track("a.wav:0.7:1") == Track("a.wav:0.7", 1)


@settings(deadline=None)
@given(
    st.sampled_from(["a.wav", "-", "12:30.wav", "x:1"]),
    st.floats(-1000, 1000) | st.integers(-100, 60).map(float),
    st.booleans(),
    st.floats(0, 1e4),
)
def test_what_is_written_is_read(source: str, weight: float, in_db: bool, offset_s: float) -> None:
    if in_db and not -120 <= weight <= 60:
        weight = 0.0
    track = Track(source, weight, in_db, offset_s if offset_s < 1 / 1000 else round(offset_s, 3))
    if 0 < track.offset_s < 1e-3:  # written with an exponent, which a time of day has not
        track = Track(source, weight, in_db)
    assert parse_track(str(track)) == track


def test_gains() -> None:
    assert Track("a", -6.0205999132796239, in_db=True).gain == pytest.approx(0.5)
    assert Track("a", 20, in_db=True).gain == 10
    assert Track("a", -0.5).gain == -0.5
    assert str(Track("a.wav", -6.0, in_db=True, offset_s=2.5)) == "a.wav:-6dB@2.5s"
    assert [Track("x/a.b.wav").stem, Track("-").stem] == ["a.b", "stdin"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.wav:loud", "says 'loud' of 'a.wav'; allowed: a gain"),
        ("a.wav:", "says '' of 'a.wav'"),
        ("a.wav:dB", "says 'dB'"),
        ("a.wav:nan", "says 'nan'"),
        ("a.wav@soon", "the offset of 'a.wav' is 'soon'"),
        ("a.wav:1@soon", "the offset of 'a.wav' is 'soon'"),
        ("a.wav:1@-2s", "the offset of 'a.wav' is '-2s'"),
        ("a.wav:1e9", "The weight of 'a.wav' is 1e[+]09; allowed: -1000 to 1000"),
        ("a.wav:99dB", "The weight of 'a.wav' is 99 dB; allowed: -120 to 60 dB"),
    ],
)
def test_bad_weights(folder: Path, text: str, said: str) -> None:
    Path("a.wav").touch()
    with pytest.raises(OptionError, match=said):
        parse_track(text)


def test_missing_sounds_are_told_together(folder: Path) -> None:
    Path("a.wav").touch()
    Path("sounds").mkdir()
    with pytest.raises(SoundError, match=r"No sound at 'b\.wav', 'c:x'\."):
        parse_tracks(["a.wav:1", "b.wav:0.5", "c:x"])
    with pytest.raises(SoundError, match="'sounds' is a folder"):
        parse_tracks(["a.wav", "sounds:0.5"])
    with pytest.raises(OptionError, match="more than once"):
        parse_tracks(["-", "-:0.5"])
    assert as_tracks([Track("x"), "a.wav:2"]) == [Track("x"), Track("a.wav", 2)]


def test_what_cannot_be_mixed() -> None:
    plain, inverted = MixOptions(), MixOptions(allow_inversion=True)
    one, minus = Track("a", 1), Track("b", -0.5)
    with pytest.raises(OptionError, match=r"use --allow-inversion if you mean that, or -0\.5dB"):
        check_tracks([one, minus], plain)
    check_tracks([one, minus], inverted)
    for weights in ((0.0, 0.0), (1.0, -1.0), (0.1, 0.2, -0.3)):
        with pytest.raises(OptionError, match="sum to zero"):
            check_tracks([Track("a", weight) for weight in weights], inverted)
    with pytest.raises(OptionError, match="A mix of 0 sounds; allowed: 1 to 32"):
        check_tracks([], plain)
    with pytest.raises(OptionError, match="A mix of 33 sounds"):
        check_tracks([one] * 33, plain)
    with pytest.raises(OptionError, match="clip is 'softly'; allowed: warn, cut, scale, error"):
        MixOptions(clip="softly")  # type: ignore[arg-type]


def test_sweeps() -> None:
    weights = sweep_weights(5)
    assert weights == [(1, 0), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0, 1)]
    assert sweep_weights(7)[3] == (0.5, 0.5)
    for steps in (-1, 0, 1, 101):
        with pytest.raises(OptionError, match=f"sweep is {steps}; allowed: 2 to 100"):
            sweep_weights(steps)
    check_sweep([Track("a"), Track("b")])
    with pytest.raises(OptionError, match="from one sound to another; 3 were given"):
        check_sweep([Track("a")] * 3)
    with pytest.raises(OptionError, match="The weight of 'b' is 0"):
        check_sweep([Track("a"), Track("b", 0)])
