"""Recordings as bytes, and where they are kept: bundled with the package, or the user's cache.

A recording file is a zip of members, one per variant; a member is a JSON header and the arrays it
lists, compressed together. What can be worked out again (births, running numbers) is left out.
Nothing is ever unpickled. No torch here.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftadvisor.errors import UsageError
from peftadvisor.simulator.growth import Growth
from peftadvisor.simulator.parts import (
    BASE_UNITS,
    NO_FORMULA,
    SHAPE_WIDTH,
    Blocks,
    Events,
    Formulas,
    Kernels,
    Storages,
)
from peftadvisor.simulator.polynomials import Term
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.trace import Event, Owner, Phase, Segment

FORMAT = 1
MAX_BYTES = 1 << 28
"""A recording unpacked is below 1 MB, at full depth a few; what is larger than this is none."""
_GROWTH_FIELDS = ("size", "low", "high", "counts", "stored")
_DAMAGED = (
    zlib.error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def pack(recording: Recording) -> bytes:
    """A recording as compressed bytes."""
    events, blocks = recording.events, recording.blocks
    freed = events.ref[events.kind == Event.FREE]
    born_before = np.cumsum(events.kind == Event.ALLOC)[events.kind == Event.FREE]
    arrays: dict[str, NDArray[Any]] = {
        "kind": events.kind,
        "kernel": _narrow(events.ref[events.kind == Event.KERNEL]),
        "freed_back": (born_before - freed).astype(np.int32),
        "phase": events.phase,
        "starts": np.diff(np.flatnonzero(np.diff(events.block, prepend=-1)), prepend=0).astype(
            np.int32
        ),
        "segment": events.segment[np.flatnonzero(np.diff(events.block, prepend=-1))],
        "stack": blocks.stack,
        "layer": blocks.layer,
        "chain": blocks.chain.astype(np.int32),
        "descending": blocks.descending.astype(np.int8),
        "formula": _narrow(recording.storages.formula),
        "owner": recording.storages.owner,
        "canonical": (
            recording.storages.canonical - np.arange(len(recording.storages.canonical))
        ).astype(np.int32),
        "name": _narrow(recording.kernels.name),
        "flops": _narrow(recording.kernels.flops),
        "touched": _narrow(recording.kernels.touched),
        "shapes": _narrow(recording.kernels.shapes),
        "coefficients": recording.formulas.coefficients,
        "depth": recording.formulas.depth,
    }
    growth, more = recording.growth, {}
    if growth is not None:
        arrays |= {"growth": growth.coefficients, "growth_depth": growth.depth}
        more["growth"] = {name: getattr(growth, name) for name in _GROWTH_FIELDS}
    header = {
        "format": FORMAT,
        "facts": dict(recording.facts),
        **more,
        "names": list(recording.kernels.names),
        "terms": [[t.batch, *t.source, *t.target] for t in recording.formulas.terms],
        "arrays": [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()],
    }
    head = json.dumps(header, separators=(",", ":")).encode()
    body = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())
    return zlib.compress(len(head).to_bytes(4, "little") + head + body, 9)


def _narrow(numbers: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in 16 bits if they fit, else in 32."""
    fits = np.abs(numbers).max(initial=0) <= np.iinfo(np.int16).max
    return numbers.astype(np.int16 if fits else np.int32)


def unpack(data: bytes) -> Recording:
    """The recording that ``pack`` was given.

    Raises:
        UsageError: the bytes are no recording of this format.
    """
    try:
        header, arrays = _read(data)
        recording = _recording(header, arrays)
        _require_consistent(recording)
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:100]
        raise UsageError(
            f"this recording is damaged ({reason}); delete it and run again"
        ) from error
    return recording


def _read(data: bytes) -> tuple[Mapping[str, Any], dict[str, NDArray[Any]]]:
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(data, MAX_BYTES)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("it is cut short, too long or followed by something else")
    size = int.from_bytes(raw[:4], "little")
    header = json.loads(raw[4 : 4 + size])
    if header["format"] != FORMAT:
        raise UsageError(f"this recording has format {header['format']}, not {FORMAT}; delete it")
    offset, arrays = 4 + size, {}
    for name, dtype, shape in header["arrays"]:
        kind = np.dtype(dtype)
        if kind.kind != "i" or any(n < 0 for n in shape):
            raise ValueError(f"array {name} holds no integers")
        count = math.prod(shape)
        arrays[name] = np.frombuffer(raw, kind, count, offset).reshape(shape)
        offset += arrays[name].nbytes
    return header, arrays


def _recording(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Recording:
    kind = arrays["kind"]
    starts = np.cumsum(arrays["starts"])
    if arrays["starts"][0] != 0 or (arrays["starts"][1:] <= 0).any():
        raise ValueError("its blocks are out of order")
    lengths = np.diff(np.append(starts, len(kind)))
    block = np.repeat(np.arange(len(starts), dtype=np.int32), lengths)
    birth_events = np.flatnonzero(kind == Event.ALLOC)
    return Recording(
        events=Events(
            kind=kind,
            ref=_references(kind, arrays),
            segment=np.repeat(arrays["segment"], lengths),
            phase=arrays["phase"],
            block=block,
        ),
        blocks=Blocks(
            stack=arrays["stack"],
            layer=arrays["layer"],
            chain=arrays["chain"],
            descending=arrays["descending"].astype(np.bool_),
        ),
        storages=Storages(
            formula=arrays["formula"],
            owner=arrays["owner"],
            canonical=arrays["canonical"] + np.arange(len(arrays["canonical"]), dtype=np.int32),
            birth_block=block[birth_events],
        ),
        kernels=Kernels(
            tuple(header["names"]),
            arrays["name"],
            arrays["flops"],
            arrays["touched"],
            arrays["shapes"],
        ),
        formulas=Formulas(
            tuple(Term(b, (p, r), (q, u)) for b, p, r, q, u in header["terms"]),
            arrays["coefficients"],
            arrays["depth"],
        ),
        facts=header["facts"],
        growth=_growth(header.get("growth"), arrays),
    )


def _growth(header: Mapping[str, Any] | None, arrays: Mapping[str, NDArray[Any]]) -> Growth | None:
    if header is None:
        return None
    return Growth(coefficients=arrays["growth"], depth=arrays["growth_depth"], **header)


def _require_consistent(recording: Recording) -> None:
    """Raise ValueError unless every number points at something that is there."""
    events, blocks, storages = recording.events, recording.blocks, recording.storages
    kernels, formulas = recording.kernels, recording.formulas
    count, stacks = formulas.depth.shape
    _require_length(len(events.kind), events.ref, events.phase, events.segment, events.block)
    _require_length(len(blocks.stack), blocks.layer, blocks.chain, blocks.descending)
    _require_length(len(storages.birth_block), storages.formula, storages.owner, storages.canonical)
    _require_length(len(kernels.name), kernels.flops, kernels.touched, kernels.shapes)
    _require_length(stacks, recording.facts["units"])
    _require_length(count, formulas.coefficients)
    _require_length(formulas.coefficients.shape[1], formulas.terms)
    _require_length(SHAPE_WIDTH, kernels.shapes.T)
    _require_within(0, len(Event), events.kind)
    _require_within(0, len(Phase), events.phase)
    _require_within(0, len(Segment), events.segment)
    _require_within(0, len(blocks.stack), events.block)
    _require_within(-1, stacks, blocks.stack)
    _require_within(-1, BASE_UNITS, blocks.layer)
    _require_within(0, len(Owner), storages.owner)
    _require_within(0, len(storages.canonical), storages.canonical)
    _require_within(0, count, storages.formula, kernels.flops, kernels.touched)
    _require_within(NO_FORMULA, count, kernels.shapes)
    _require_within(0, len(kernels.names), kernels.name)
    _require_within(0, len(kernels.name), events.ref[events.kind == Event.KERNEL])
    born = np.cumsum(events.kind == Event.ALLOC)
    freed = events.kind == Event.FREE
    _require_within(0, np.iinfo(np.int32).max, events.ref[freed], (born - events.ref)[freed] - 1)
    if recording.growth is not None:
        _require_growth(recording, recording.growth)
    for term in formulas.terms:
        if not all(
            type(n) is int and 0 <= n <= 128 for n in (term.batch, *term.source, *term.target)
        ):
            raise ValueError(f"{term} is no term of a formula")


def _require_growth(recording: Recording, growth: Growth) -> None:
    """Raise ValueError unless the recording can be set to every size that it tells of."""
    tables = (growth.coefficients.shape, growth.depth.shape)
    if tables != (recording.formulas.coefficients.shape, recording.formulas.depth.shape):
        raise ValueError("its parts do not belong together")
    numbers = (growth.size, growth.low, growth.high, growth.stored)
    if not all(type(n) is int for n in numbers):
        raise ValueError(f"its sizes are {numbers}")
    if not 0 < growth.low <= growth.size <= growth.high < 1 << 31:
        raise ValueError(f"it holds for no size from {growth.low} to {growth.high}")
    growth.facts_at(growth.high, recording.facts)


def _require_length(length: int, *things: Sized) -> None:
    if any(len(thing) != length for thing in things):
        raise ValueError("its parts do not belong together")


def _require_within(low: int, high: int, *arrays: NDArray[Any]) -> None:
    if any(a.size and (a.min() < low or a.max() >= high) for a in arrays):
        raise ValueError("a number points at nothing")


def _references(kind: NDArray[Any], arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.int32]:
    """Births are numbered as they come; a free counts back from the last birth."""
    births, runs, frees = (kind == k for k in (Event.ALLOC, Event.KERNEL, Event.FREE))
    _require_length(int(runs.sum()), arrays["kernel"])
    _require_length(int(frees.sum()), arrays["freed_back"])
    ref = np.zeros(len(kind), dtype=np.int32)
    ref[births] = np.arange(births.sum())
    ref[runs] = arrays["kernel"]
    ref[frees] = np.cumsum(births)[frees] - arrays["freed_back"]
    return ref
