"""What a run holds from the start: its parameters, and the constants of quantized ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.parts import Integers
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.trace import Event, Owner, Segment

_NF4_CODE_BYTES = 64
"""The 16 fp32 values of NF4, in the buffers of each quantized weight, behind its scales."""


class Loaded(NamedTuple):
    """Storages of weights and adapters: their rows, bytes, and which are constants of others.

    Of the constants those are ``scale`` that a quantized weight has one of: its blocks' maxima.
    """

    rows: Integers
    size: Integers
    constant: NDArray[np.bool_]
    scale: NDArray[np.bool_]


def loaded(recording: Recording) -> Loaded:
    """What the base run loads, each storage once."""
    events, storages = recording.events, recording.storages
    rows = events.ref[(events.segment == Segment.LOAD) & (events.kind == Event.ALLOC)]
    rows = rows[np.isin(storages.owner[rows], (Owner.WEIGHT, Owner.ADAPTER))].astype(np.int64)
    size = recording.values((1, 1, 1), recording.facts["units"])[storages.formula[rows]]
    block = storages.birth_block[rows]
    constant, scale = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    for code in np.flatnonzero(size[1:] == _NF4_CODE_BYTES) + 1:
        constant |= (np.arange(len(rows)) >= code - 1) & (block == block[code])
        scale[code - 1] = True
    return Loaded(rows, size, constant, scale)
