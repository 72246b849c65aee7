"""A recording played in full and put small: what replays its memory without this package.

At a point (b, s, t) formula f is worth Σ coefficients · terms + constant, a storage as much as its
formula, and the FLOPs of a phase likewise. A reel holds what sizes of the method (ranks) share; a
tape adds the numbers, which the size is in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.expansion import moves
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.parts import BASE_UNITS, Integers
from peftadvisor.simulator.polynomials import Term


@dataclass(frozen=True, slots=True, eq=False)
class Reel:
    """Allocations and frees in order; storages are numbered as they are made.

    ``back`` is 0 where the next storage is made, else the storage that is freed, counted back
    from the one made last (1). Per storage its ``formula`` and ``owner``; ``phase`` is of moves.
    """

    back: Integers
    formula: Integers
    owner: NDArray[np.int8]
    phase: NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """A reel with the formulas of one size; lengths are longer by ``virtual_tokens``.

    ``parameters`` are those in all and those trained.
    """

    reel: Reel
    terms: tuple[Term, ...]
    coefficients: Integers
    constants: Integers
    flop_coefficients: Integers
    flop_constants: Integers
    virtual_tokens: int
    parameters: tuple[int, int] = field(default=(0, 0))


def tape_of(simulated: Simulated, reel: Reel | None = None) -> Tape:
    """The tape of a recording, on the reel of another size of it if that is given."""
    recording, units = simulated.recording, simulated.units
    formulas, counts = recording.formulas, recording.flop_counts(units)
    constants = formulas.depth @ (np.asarray(units, dtype=np.int64) - BASE_UNITS)
    total, trained, _ = recording.parameter_counts(units)
    return Tape(
        reel=reel or reel_of(simulated),
        terms=formulas.terms,
        coefficients=formulas.coefficients,
        constants=constants,
        flop_coefficients=counts @ formulas.coefficients,
        flop_constants=counts @ constants,
        virtual_tokens=int(recording.facts["virtual_tokens"]),
        parameters=(total, trained),
    )


def reel_of(simulated: Simulated) -> Reel:
    """The recording in full, at its depth."""
    recording = simulated.recording
    there = moves(recording, tuple(simulated.units), accumulate=simulated.accumulate)
    made = there.codes > 0
    order = there.codes[made] - 1
    number = np.zeros(len(there.rows), dtype=np.int64)
    number[order] = np.arange(1, len(order) + 1)
    back = np.cumsum(made) - number[np.abs(there.codes) - 1] + 1
    rows = there.rows[order]
    return Reel(
        back=np.where(made, 0, back),
        formula=recording.storages.formula[rows].astype(np.int64),
        owner=recording.storages.owner[rows],
        phase=recording.events.phase[there.events],
    )
