"""Where a recording holds: pieces of the (b, s, t) space in which a run's events are the same.

Batch 1 skips copies that larger batches need; attention pads a mask whose length is no multiple
of 16; a sliding window brings a mask once the input is as long as the window. Each such piece is
recorded by itself. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from peftadvisor.simulator.polynomials import Point

ALIGNMENT = 16
Lengths = Literal["any", "aligned", "ragged", "source-ragged", "target-ragged", "one"]
_LENGTHS_BY_RAGGED: Mapping[tuple[bool, bool], Lengths] = {
    (False, False): "aligned",
    (True, True): "ragged",
    (True, False): "source-ragged",
    (False, True): "target-ragged",
}
_WINDOW_KEYS = ("sliding_window", "attention_chunk_size", "local_attention")


@dataclass(frozen=True, slots=True, order=True)
class Regime:
    """One piece: batch 1 or more, which lengths are aligned, and the window that is exceeded.

    ``lengths`` "any" stands for lengths of all kinds, where they make no difference. A length of
    one token ("one") is never recorded: attention and copies treat it by itself.
    """

    single: bool
    lengths: Lengths
    beyond_window: int = 0

    @property
    def key(self) -> str:
        """A short name, used in file names: ``many-aligned``, ``one-ragged-w4096``."""
        window = f"-w{self.beyond_window}" if self.beyond_window else ""
        return f"{'one' if self.single else 'many'}-{self.lengths}{window}"

    def recorded(self) -> tuple[Regime, ...]:
        """The pieces that may be recorded for it, the widest first; none for one token."""
        if self.lengths == "one":
            return ()
        return replace(self, lengths="any"), self


def windows(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Attention windows of a model, ascending; empty where every token sees all others."""
    text = {**config, **(config.get("text_config") or {})}
    if text.get("use_sliding_window") is False:
        return ()
    found = {text.get(key) for key in _WINDOW_KEYS}
    return tuple(sorted(w for w in found if isinstance(w, int) and w > 0))


def regime_of(point: Point, config: Mapping[str, Any]) -> Regime:
    """The piece that (b, s, t) lies in."""
    b, s, t = point
    passed = [w for w in windows(config) if s >= w]
    ragged = (s % ALIGNMENT != 0, t % ALIGNMENT != 0)
    return Regime(
        single=b == 1,
        lengths="one" if min(s, t) == 1 else _LENGTHS_BY_RAGGED[ragged],
        beyond_window=max(passed, default=0),
    )


_LENGTHS = (160, 272, 400, 512, 720, 96, 336, 848, 208, 624)
_ODD = (1, 3, 7, 9, 13, 5, 11, 2, 15, 6)
_BATCHES = (2, 3, 2, 5, 4, 3, 2, 4, 5, 3)


def sample_points(
    regime: Regime, config: Mapping[str, Any], limit: int | None, uses_target: bool
) -> list[Point]:
    """Points to record in one piece: more of them than any formula has terms.

    ``limit`` is the longest input the model takes (None: any). Lengths of both kinds take turns
    where the piece does not tell them apart.
    """
    above = [w for w in windows(config) if w > regime.beyond_window]
    high = min([*above, (limit or 1 << 30) + 1])
    sources = _lengths_between(regime.beyond_window, high)
    targets = sources[3:] + sources[:3] if uses_target else [128] * len(sources)
    if regime.lengths in ("ragged", "source-ragged", "any"):
        sources = _ragged(sources, high, regime.lengths == "any")
    if uses_target and regime.lengths in ("ragged", "target-ragged", "any"):
        targets = _ragged(targets, high, regime.lengths == "any")
    batches = (1,) * len(_BATCHES) if regime.single else _BATCHES
    count = (7 if regime.single else 9) if uses_target else (4 if regime.single else 5)
    count += regime.lengths == "any"
    return list(zip(batches, sources, targets, strict=False))[:count]


def _ragged(lengths: list[int], high: int, every_other: bool) -> list[int]:
    """Lengths beside the alignment: all of them, or every other one."""
    odd = [min(n + extra, high - 1) for n, extra in zip(lengths, _ODD, strict=False)]
    if not every_other:
        return odd
    return [o if i % 2 else n for i, (n, o) in enumerate(zip(lengths, odd, strict=True))]


def _lengths_between(low: int, high: int) -> list[int]:
    """Lengths in [low, high), multiples of the alignment, unlike in size."""
    start = -(-low // ALIGNMENT) * ALIGNMENT
    if high - start > max(_LENGTHS) + ALIGNMENT:
        return [start + n for n in _LENGTHS]
    room = (high - 1 - start) // ALIGNMENT
    steps = [1 + (n * room) // (max(_LENGTHS) + 64) for n in _LENGTHS]
    return [min(start + ALIGNMENT * n, high - 1) for n in steps]
