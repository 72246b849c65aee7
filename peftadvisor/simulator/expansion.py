"""A recording played in full: every allocation and free of all layers, in order. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from peftadvisor.simulator.parts import BASE_UNITS, MIDDLE, Integers
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.trace import Event, Segment


def expand(
    recording: Recording, point: Point, units: Sequence[int], *, accumulate: bool = False
) -> tuple[Integers, Integers]:
    """All allocations and frees in order, for the allocator replay.

    With ``accumulate`` the second step has a further micro-batch before its update.

    Returns:
        ``events``: +k allocates storage k - 1, -k frees it; ``sizes``: bytes per storage.
    """
    there = moves(recording, tuple(units), accumulate=accumulate)
    formula = recording.storages.formula[there.rows]
    return there.codes, recording.values(point, units)[formula]


class Moves(NamedTuple):
    """All allocations and frees in order, whatever their sizes.

    ``codes``: +k allocates storage k - 1, -k frees it; ``rows``: the recording's row of each
    storage; ``events``: the recording's event of each code.
    """

    codes: Integers
    rows: Integers
    events: Integers


@lru_cache(maxsize=16)
def moves(recording: Recording, units: tuple[int, ...], *, accumulate: bool = False) -> Moves:
    """The recording played at these depths, as allocations and frees of numbered storages."""
    storages, events = recording.storages, recording.events
    order, layer = play(recording, units)
    keep = events.kind != Event.KERNEL
    if not accumulate:
        keep &= events.segment != Segment.ACCUMULATE
    selected = keep[order]
    order, layer = order[selected], layer[selected]
    ref = events.ref[order]
    layers = max([*units, 1]) + 1
    born = _birth_layer(recording, order, layer, units)
    key = storages.canonical[ref].astype(np.int64) * layers + born + 1
    used = np.zeros(len(storages.formula) * layers, dtype=np.int64)
    used[key] = 1
    number = np.cumsum(used)
    storage = number[key]
    rows = np.zeros(number[-1], dtype=np.int64)
    rows[storage - 1] = ref
    codes = np.where(events.kind[order] == Event.ALLOC, storage, -storage)
    codes.flags.writeable = rows.flags.writeable = False  # the answer is kept, and shared
    return Moves(codes, rows, order)


def play(recording: Recording, units: Sequence[int]) -> tuple[Integers, Integers]:
    """Base events in the order in which they are played, and the layer each is played for."""
    starts = np.flatnonzero(np.diff(recording.events.block, prepend=-1))
    lengths = np.diff(starts, append=len(recording.events.block))
    plays = [
        (block, layer)
        for block in range(len(starts))
        for layer in _layers_played(recording, block, units)
    ]
    block, layer = np.asarray(plays, dtype=np.int64).reshape(-1, 2).T
    length = lengths[block]
    first = starts[block] - (np.cumsum(length) - length)
    return np.arange(length.sum()) + np.repeat(first, length), np.repeat(layer, length)


def _layers_played(recording: Recording, block: int, units: Sequence[int]) -> Sequence[int]:
    layer = int(recording.blocks.layer[block])
    if layer < 0:
        return (-1,)
    count = units[int(recording.blocks.stack[block])]
    if layer == MIDDLE:
        middle = range(MIDDLE, count - MIDDLE)
        return middle[::-1] if recording.blocks.descending[block] else middle
    return (layer if layer < MIDDLE else count - BASE_UNITS + layer,)


def _birth_layer(
    recording: Recording, order: Integers, layer: Integers, units: Sequence[int]
) -> Integers:
    """The layer in which each event's storage was born.

    First and last layers are themselves; others are at the distance seen in the base run.
    """
    blocks, events = recording.blocks, recording.events
    birth_block = recording.storages.birth_block[events.ref]
    base = blocks.layer[birth_block].astype(np.int64)
    stack = blocks.stack[birth_block]
    here = blocks.layer[events.block].astype(np.int64)
    near = (blocks.stack[events.block] == stack) & (np.abs(base - here) < BASE_UNITS - MIDDLE)
    last = np.asarray([*units, 0], dtype=np.int64)[stack] - 1
    fixed = np.where(base > MIDDLE, last - (BASE_UNITS - 1) + base, base)
    near &= (base > 0) & (base < BASE_UNITS - 1)
    fixed = np.where(base < 0, -1, fixed)
    return np.where(near[order], layer + (base - here)[order], fixed[order])
