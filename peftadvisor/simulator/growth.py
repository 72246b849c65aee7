"""How a recording changes with the size of its method, as the rank of LoRA. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Growth:
    """What one more of the method's size adds to every formula and count of a recording.

    ``size`` is the one that was recorded. All numbers are exact from ``low`` to ``high``, which
    were recorded too and held against it. ``coefficients`` and ``depth`` are tables like those of
    the recording's formulas, ``counts`` and ``stored`` are like its facts of these names.
    """

    size: int
    low: int
    high: int
    coefficients: Integers
    depth: Integers
    counts: Mapping[str, list[Any]] = field(hash=False)
    stored: int = 0

    def holds_for(self, size: int) -> bool:
        """Whether the recording can be set to this size."""
        return self.low <= size <= self.high

    def facts_at(self, size: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The recording's facts at another size: its parameter counts differ."""
        more = size - self.size
        counts = {
            part: (np.asarray(facts["counts"][part]) + more * np.asarray(added)).tolist()
            for part, added in self.counts.items()
        }
        kept = {"stored": facts["stored"] + more * self.stored} if "stored" in facts else {}
        return {**facts, **kept, "counts": counts}
