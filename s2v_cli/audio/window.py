"""Windows: which part of a sound is heard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from s2v_cli.audio.decode import Decoder, checked_blocks, read_span
from s2v_cli.audio.mix import Wave

MAX_WINDOWS = 64  # `average` hears at most that many windows, evenly spaced
HOP_S = 0.05  # step in which the loudest window is searched
_MAX_KERNEL = 4_000_000  # weights of the resampling filter; 44.1 to 16 kHz has 76,000
_TIE = 1 + 1e-9  # of windows as loud as each other the first one is kept


@dataclass(frozen=True)
class RateChange:
    """The change of a sample rate: `step_in` samples of the file become `step_out`.

    Positions count samples of the whole resampled file, so that a window read from the middle
    equals the same span of the file resampled as a whole.
    """

    step_in: int
    step_out: int

    @classmethod
    def between(cls, rate_in: int, rate_out: int) -> RateChange:
        """The smallest whole steps.

        Rates with hardly a common divisor (44,101 and 16,000 Hz) would need a filter of
        gigabytes. They take the nearest ratio of small steps, which is off by less than 1e-6.
        """
        ratio = Fraction(rate_in, rate_out)
        if ratio.numerator * ratio.denominator > _MAX_KERNEL:
            limit = 1000
            if ratio < 1:
                ratio = 1 / (1 / ratio).limit_denominator(limit)
            else:
                ratio = ratio.limit_denominator(limit)
        return cls(ratio.numerator, ratio.denominator)

    @property
    def margin(self) -> int:
        """Samples of the file that the filter reaches to either side, and a step more."""
        # torchaudio: six zero crossings of a sinc at 0.99 of the lower Nyquist frequency.
        narrow = min(self.step_in, self.step_out)
        return math.ceil(6 * self.step_in / (0.99 * narrow)) + self.step_in

    def resampled(self, sample: int) -> int:
        """Length in resampled samples of that many samples of the file."""
        return -(-sample * self.step_out // self.step_in)

    def read(self, decoder: Decoder, start: int, count: int) -> Wave:
        """Resampled samples start to start + count: float32 [count].

        Raises:
            SoundError: the decoder ends early or a sample is not a finite number.
        """
        if self.step_in == self.step_out:
            return read_span(decoder, start, start + count)
        import torch

        from s2v_cli._torchaudio import import_torchaudio

        first_step = max(0, start // self.step_out - -(-self.margin // self.step_in))
        first = first_step * self.step_in  # lies on resampled sample first_step * step_out exactly
        last = -(-(start + count) * self.step_in // self.step_out) + self.margin
        wave = read_span(decoder, first, min(last, decoder.length))
        resample = import_torchaudio().functional.resample
        resampled = resample(torch.from_numpy(wave), self.step_in, self.step_out)
        skip = start - first_step * self.step_out
        return np.array(resampled[skip : skip + count].numpy(), np.float32)


def loudest_window(decoder: Decoder, start: int, stop: int, length: int) -> int:
    """Where the window of the highest energy begins, searched in steps of `HOP_S`.

    All samples are read once, in constant memory.

    Args:
        decoder: the file.
        start: first sample of the search.
        stop: last sample of the search, exclusive.
        length: samples in a window.

    Returns:
        A sample of the file, start to stop - length.

    Raises:
        SoundError: the decoder ends early or a sample is not a finite number.
    """
    hop = max(1, round(HOP_S * decoder.rate))
    hops = max(1, round(length / hop))
    recent = np.empty(0)
    first, best, best_hop = 0, 0.0, 0
    for energies in _hop_energies(checked_blocks(decoder, start, stop), hop):
        recent = np.concatenate([recent, energies])
        if len(recent) < hops:
            continue
        sums = np.lib.stride_tricks.sliding_window_view(recent, hops).sum(axis=1)
        loudest = float(sums.max())
        if loudest > best * _TIE:
            best, best_hop = loudest, first + int(np.argmax(sums * _TIE >= loudest))
        passed = len(recent) - hops + 1
        first, recent = first + passed, recent[passed:]
    return max(start, min(start + best_hop * hop, stop - length))


def _hop_energies(blocks: Iterable[Wave], hop: int) -> Iterator[np.ndarray]:
    """Energy of each hop of samples, a block of them at a time; the last hop may be shorter."""
    rest: Wave = np.empty(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // hop * hop
        yield np.square(rest[:whole].astype(np.float64)).reshape(-1, hop).sum(axis=1)
        rest = rest[whole:]
    if len(rest):
        yield np.square(rest.astype(np.float64)).sum(keepdims=True)


def window_starts(start: int, stop: int, length: int) -> list[int]:
    """Where the windows of `average` begin: one after the other, `MAX_WINDOWS` at most.

    What is left at the end is heard if it is at least half a window: its window then ends at
    the end of the sound and overlaps the one before. Of too many windows, `MAX_WINDOWS` evenly
    spaced ones are kept, the first and the last among them.
    """
    starts = list(range(start, stop - length + 1, length)) or [start]
    rest = stop - (starts[-1] + length)
    if 2 * rest >= length:
        starts.append(stop - length)
    if len(starts) > MAX_WINDOWS:
        kept = np.linspace(0, len(starts) - 1, MAX_WINDOWS).round().astype(int)
        starts = [starts[index] for index in kept]
    return starts
