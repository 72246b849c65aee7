"""What the CUDA caching allocator did, from the history that torch keeps: a timeline, a snapshot.

The history is private to torch and lies in host memory. Where it is missing or refuses, the
timeline and the snapshot are lost, with the reason, and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from peftadvisor.profilers.allocations import thinned
from peftadvisor.profilers.simulated import BLOCK_BYTES
from peftadvisor.profiles import Timeline

ENTRIES = 1_000_000
"""Of the history, at most: about 1 GB of the host's memory. Beyond, torch forgets the oldest."""
SIGNS = {"alloc": 1, "free_requested": -1}
"""The events that change what is allocated, as torch counts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Whose history: device ``index`` of ``cuda``, which is torch.cuda or plays its part in tests.

    ``snapshot`` is the file for https://pytorch.org/memory_viz, if one is asked for.
    """

    cuda: Any
    index: int
    snapshot: str | None = None


@dataclass(slots=True)
class History:
    """What was read of it in the end; ``missing`` says why something was not."""

    timeline: Timeline | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def spared(self, *parts: str) -> Iterator[None]:
        """What fails inside is why these parts are missing, and no more."""
        try:
            yield
        except Exception as error:  # private to torch: any is possible
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            self.missing.update(dict.fromkeys(parts, why))


@contextmanager
def recorded_history(source: Source) -> Iterator[History]:
    """The history of what happens inside, read and switched off also when that raises.

    The Python stacks of allocations are slow, and kept for a snapshot only.
    """
    history = History()
    parts = ("timeline", "snapshot") if source.snapshot else ("timeline",)
    before = int(source.cuda.memory_allocated(source.index))
    with ExitStack() as stack:
        stack.callback(_switch_off, source)
        with history.spared(*parts):
            _switch(source, "all", "alloc" if source.snapshot else None)
            stack.callback(_read, history, source, before, parts)
        yield history


def _read(history: History, source: Source, before: int, parts: Sequence[str]) -> None:
    with history.spared(*parts):
        state = source.cuda.memory._snapshot()
        with history.spared("timeline"):
            trace = state["device_traces"][source.index]
            if len(trace) < ENTRIES:
                history.timeline = _timeline(trace, before)
            else:
                history.missing["timeline"] = f"the allocator made {ENTRIES:,} events or more"
        if source.snapshot:
            with history.spared("snapshot"), open(source.snapshot, "wb") as file:
                pickle.dump(state, file)


def _switch(source: Source, enabled: str | None, context: str | None = None) -> None:
    """On or off; named stacks keep torch from getting ready for those of C++."""
    source.cuda.memory._record_memory_history(
        enabled=enabled, context=context, stacks="python", max_entries=ENTRIES
    )


def _switch_off(source: Source) -> None:
    with suppress(Exception):
        _switch(source, None)


def _timeline(trace: Sequence[dict[str, Any]], before: int) -> Timeline:
    """Bytes allocated after each event, in seconds since the first.

    The history tells of requests, which are rounded up as the simulator does it; rests of up to
    1 MiB that the allocator leaves on a block are in its peaks, not here.
    """
    changes = [event for event in trace if event["action"] in SIGNS]
    at = np.array([event["time_us"] for event in changes], dtype=np.int64)
    blocks = np.array(
        [SIGNS[event["action"]] * -(-event["size"] // BLOCK_BYTES) for event in changes],
        dtype=np.int64,
    )
    held = before + BLOCK_BYTES * np.cumsum(blocks)
    return thinned((at - at[:1].sum()) / 1e6, held, "seconds")
