"""The what-if as a page carries it: sliders, answers, and recordings for its script."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftadvisor.advisor.what_if import Card, WhatIf
from peftadvisor.profiles import Estimate, MemoryBreakdown
from peftadvisor.report.blocks import Controls, Section, Slider
from peftadvisor.report.sections import percent
from peftadvisor.simulator.tape import Reel, Tape
from peftadvisor.simulator.trace import Owner, Phase
from peftadvisor.units import format_bytes, format_count, format_gib, format_seconds

OWNERS = tuple(part.name.removesuffix("_bytes") for part in fields(MemoryBreakdown))
_HELD_BY: Mapping[Owner, str] = {
    Owner.TEMPORARY: "activation",
    Owner.WEIGHT: "weights",
    Owner.ADAPTER: "adapter",
    Owner.GRADIENT: "gradient",
    Owner.OPTIMIZER: "optimizer",
    Owner.ACTIVATION: "activation",
    Owner.LOGITS: "logits",
    Owner.WORKSPACE: "workspace",
    Owner.INPUT: "activation",
}
ANSWERS = (
    ("verdict", "Verdict"),
    ("risk", "Risk of running out"),
    ("device", "Device memory"),
    ("interval", "90 % interval, GiB"),
    ("reserved", "Reserved"),
    ("allocated", "Allocated"),
    ("phase", "Peak in"),
    ("step", "Step"),
    ("throughput", "Tokens per second"),
    ("flops", "TFLOP per step"),
    ("trained", "Trained"),
    ("price", "$ per 1M tokens"),
)
"""What the what-if tells at each place: names in the page, and heads."""
_VERDICTS = {"fits": "fits", "tight": "tight", "oom": "does not fit"}


def words(estimate: Estimate) -> dict[str, str]:
    """The answers of the what-if to an estimate, as its script shows them."""
    memory, time = estimate.memory, estimate.time
    usd = estimate.cost.usd_per_hour
    owners = {name: getattr(memory.breakdown, f"{name}_bytes") for name in OWNERS}
    return {
        "verdict": _VERDICTS[estimate.verdict],
        "risk": percent(estimate.oom_probability),
        "device": format_bytes(memory.device_peak_bytes),
        "interval": f"{format_gib(memory.low_bytes)} – {format_gib(memory.high_bytes)}",
        "reserved": format_bytes(memory.reserved_peak_bytes),
        "allocated": format_bytes(memory.allocated_peak_bytes),
        "phase": memory.peak_phase,
        "step": format_seconds(time.step_s),
        "throughput": f"{time.tokens_per_s:,.0f}",
        "flops": f"{estimate.flops.total / 1e12:,.2f}",
        "trained": format_count(estimate.parameters.trainable),
        "price": "–" if usd is None else f"{usd / 3600 / time.tokens_per_s * 1e6:,.3f}",
        **{f"owner-{name}": format_bytes(size) for name, size in owners.items()},
    }


def section(what_if: WhatIf, method: str) -> Section:
    """The what-if as a part of the page."""
    gpu, size, batch, length = what_if.start
    sliders = [
        Slider(name="batch", label="Micro-batch", stops=_numbers(what_if.batches), start=batch),
        Slider(
            name="length", label="Tokens per sample", stops=_numbers(what_if.lengths), start=length
        ),
        Slider(name="gpu", label="GPU", stops=tuple(card.id for card in what_if.cards), start=gpu),
    ]
    if what_if.sizes:
        label = (what_if.size_name or "size").replace("_", " ").capitalize()
        sliders.insert(
            2, Slider(name="size", label=label, stops=_numbers(what_if.sizes), start=size)
        )
    return Section(
        key="what-if",
        title=f"What if: {method} elsewhere",
        lead="Batch, length, rank and GPU, all else as in this run. Your browser replays the "
        "recorded allocations at each place; step times were worked out for each when the page was "
        "made.",
        blocks=(
            Controls(
                sliders=tuple(sliders),
                answers=ANSWERS,
                owners=tuple((name, name) for name in OWNERS),
                data=_data(what_if),
            ),
        ),
    )


def _numbers(values: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{value:,}" for value in values)


def _data(what_if: WhatIf) -> dict[str, Any]:
    reels: list[Reel] = []
    for tape in what_if.tapes:
        if tape.reel not in reels:
            reels.append(tape.reel)
    return {
        "batches": what_if.batches,
        "lengths": what_if.lengths,
        "sizes": len(what_if.sizes) or 1,
        "target": what_if.target_len,
        "microBatches": what_if.micro_batches,
        "counted": what_if.counted,
        "accepted": what_if.accepted_risk,
        "interval": what_if.interval,
        "scores": what_if.scores.tolist(),
        "weights": what_if.weights.tolist(),
        "owners": OWNERS,
        "heldBy": [OWNERS.index(_HELD_BY[owner]) for owner in Owner],
        "phases": [phase.name.lower() for phase in Phase],
        "optimizer": int(Phase.OPTIMIZER),
        "cards": [_card(card) for card in what_if.cards],
        "reels": [_reel(reel) for reel in reels],
        "tapes": [_tape(tape, reels.index(tape.reel)) for tape in what_if.tapes],
        "tape": packed(what_if.tape, "<i2"),
        "step": packed(what_if.step_s, "<f8"),
    }


def _card(card: Card) -> dict[str, Any]:
    load = card.loading
    return {
        "id": card.id,
        "name": card.name,
        "note": card.note,
        "usable": card.usable_bytes,
        "context": card.context_bytes,
        "workspace": card.workspace_bytes,
        "usd": card.usd_per_hour,
        "loading": load
        and {
            "allocated": load.allocated_peak_bytes,
            "reserved": load.reserved_peak_bytes,
            "device": load.device_peak_bytes,
            "phase": load.peak_phase,
            "owners": list(asdict(load.breakdown).values()),
            "risk": card.loading_risk,
        },
    }


def _reel(reel: Reel) -> dict[str, str]:
    return {
        "back": packed(reel.back, "<i4"),
        "formula": packed(reel.formula, "<u2"),
        "owner": packed(reel.owner, "<u1"),
        "phase": packed(reel.phase, "<u1"),
    }


def _tape(tape: Tape, reel: int) -> dict[str, Any]:
    return {
        "reel": reel,
        "terms": [(term.batch, *term.source, *term.target) for term in tape.terms],
        "coefficients": packed(tape.coefficients, "<i8"),
        "constants": packed(tape.constants, "<i8"),
        "flops": packed(tape.flop_coefficients, "<i8"),
        "flopConstants": packed(tape.flop_constants, "<i8"),
        "virtual": tape.virtual_tokens,
        "trained": tape.parameters[1],
    }


def packed(values: NDArray[Any], form: str) -> str:
    """Numbers of one form, deflated and written in base64."""
    narrow = values.astype(form)
    assert np.array_equal(narrow, values)
    return base64.b64encode(zlib.compress(narrow.tobytes(), 9)).decode("ascii")
