"""Recordings as bytes, and where they are kept: bundled with the package, or the user's cache.

A recording file is a zip of members, one per variant; a member is a JSON header and the arrays it
lists, compressed together. What can be worked out again (births, running numbers) is left out.
Nothing is ever unpickled. No torch here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftadvisor.errors import UsageError
from peftadvisor.simulator.polynomials import Term
from peftadvisor.simulator.recording import (
    Blocks,
    Events,
    Formulas,
    Kernels,
    Recording,
    Storages,
)
from peftadvisor.simulator.trace import Event

FORMAT = 1


def pack(recording: Recording) -> bytes:
    """A recording as compressed bytes."""
    events, blocks = recording.events, recording.blocks
    freed = events.ref[events.kind == Event.FREE]
    born_before = np.cumsum(events.kind == Event.ALLOC)[events.kind == Event.FREE]
    arrays: dict[str, NDArray[Any]] = {
        "kind": events.kind,
        "kernel": events.ref[events.kind == Event.KERNEL].astype(np.int16),
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
        "formula": recording.storages.formula.astype(np.int16),
        "owner": recording.storages.owner,
        "canonical": (
            recording.storages.canonical - np.arange(len(recording.storages.canonical))
        ).astype(np.int32),
        "name": recording.kernels.name.astype(np.int16),
        "flops": recording.kernels.flops.astype(np.int16),
        "touched": recording.kernels.touched.astype(np.int16),
        "shapes": recording.kernels.shapes.astype(np.int16),
        "coefficients": recording.formulas.coefficients,
        "depth": recording.formulas.depth,
    }
    header = {
        "format": FORMAT,
        "facts": dict(recording.facts),
        "names": list(recording.kernels.names),
        "terms": [[t.batch, *t.source, *t.target] for t in recording.formulas.terms],
        "arrays": [[name, a.dtype.str, list(a.shape)] for name, a in arrays.items()],
    }
    head = json.dumps(header, separators=(",", ":")).encode()
    body = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())
    return zlib.compress(len(head).to_bytes(4, "little") + head + body, 9)


def unpack(data: bytes) -> Recording:
    """The recording that ``pack`` was given.

    Raises:
        UsageError: the bytes are no recording of this format.
    """
    header, arrays = _read(data)
    kind = arrays["kind"]
    starts = np.cumsum(arrays["starts"])
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
    )


def _read(data: bytes) -> tuple[Mapping[str, Any], dict[str, NDArray[Any]]]:
    try:
        raw = zlib.decompress(data)
        size = int.from_bytes(raw[:4], "little")
        header = json.loads(raw[4 : 4 + size])
        offset, arrays = 4 + size, {}
        for name, dtype, shape in header["arrays"]:
            count = int(np.prod(shape))
            arrays[name] = np.frombuffer(raw, dtype, count, offset).reshape(shape)
            offset += arrays[name].nbytes
    except (zlib.error, ValueError, KeyError) as error:
        raise UsageError(f"this recording is damaged ({error}); delete it and run again") from error
    if header["format"] != FORMAT:
        raise UsageError(f"this recording has format {header['format']}, not {FORMAT}; delete it")
    return header, arrays


def _references(kind: NDArray[Any], arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.int32]:
    """Births are numbered as they come; a free counts back from the last birth."""
    births, runs, frees = (kind == k for k in (Event.ALLOC, Event.KERNEL, Event.FREE))
    ref = np.zeros(len(kind), dtype=np.int32)
    ref[births] = np.arange(births.sum())
    ref[runs] = arrays["kernel"]
    ref[frees] = np.cumsum(births)[frees] - arrays["freed_back"]
    return ref
