"""Answers as plain data that tests of reports share."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from peftadvisor.profiles import (
    DeviceUse,
    Estimate,
    Parameters,
    PhaseMemory,
    PhaseTime,
    Profile,
    Provenance,
    Timeline,
)
from peftadvisor.specs import MethodSpec, TrainingSpec


def plain_comparison(estimate: Estimate) -> dict[str, Any]:
    """Two methods side by side, and one that has no estimate."""
    other = replace(estimate, run=replace(estimate.run, method=MethodSpec(name="ia3")))
    both = [
        json.loads(json.dumps({**one.to_dict(), "pareto": one is estimate}))
        for one in (estimate, other)
    ]
    refused = [{"method": "bitfit", "reason": "the model has no bias"}]
    return {"schema_version": 1, "estimates": both, "refused": refused}


def profile(engine: Any, model: str = "acme/tiny") -> Profile:
    """A small run, simulated or measured."""
    measured = engine == "measure"
    return Profile(
        engine=engine,
        device="cpu",
        model=model,
        method=MethodSpec(name="lora", settings=(("rank", 8),)),
        training=TrainingSpec(seq_len=64, micro_batch_size=2),
        parameters=Parameters(total=861_312, trainable=14_336, stored_bytes=57_344),
        memory=PhaseMemory(
            static_bytes=1_750_000,
            allocated_peak_bytes=5_940_000 + measured,
            peak_phase="backward",
            phase_peak_bytes={"load": 1_750_000, "forward": 5_460_000, "backward": 5_940_000},
            owner_bytes={"parameters": 1_750_000},
        ),
        phase_flops={"forward": 187_000_000, "backward": 182_000_000, "optimizer": 0},
        time=PhaseTime(
            step_s=0.5,
            low_s=0.4,
            high_s=0.6,
            phase_s={"forward": 0.2, "backward": 0.25, "optimizer": 0.05},
            tokens_per_s=256.0,
            samples_per_s=4.0,
            steps=5,
        )
        if measured
        else None,
        provenance=Provenance(
            engine=engine, versions={"torch": "2.13.0"}, recording="made here", calibration=""
        ),
        timeline=Timeline(
            unit="seconds" if measured else "events",
            at=(0.0, 1.0, 2.0),
            held_bytes=(1_750_000, 5_940_000, 1_900_000),
        ),
        device_use=DeviceUse(missing={"power": "no driver"}) if measured else None,
    )


def plain_profiles(model: str = "acme/tiny") -> dict[str, Any]:
    """Simulated beside measured."""
    both = [profile(engine, model).to_dict() for engine in ("simulate", "measure")]
    made: dict[str, Any] = json.loads(json.dumps({"schema_version": 1, "profiles": both}))
    return made
