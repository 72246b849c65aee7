"""Methods as configs name them: one spec, with what differs from our defaults and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.methods import find_method
from peftadvisor.specs import MethodSpec, Quantization

ALL_LINEAR = "all-linear"
VARIANTS: Mapping[str, str] = {
    "dora": "magnitudes besides",
    "pissa": "another start",
    "olora": "another start",
    "lora-plus": "another learning rate for B",
    "rslora": "another scale",
}
"""Switches of LoRA that our methods are named for, those that change most first."""


def method_of(name: str, settings: Mapping[str, Any]) -> MethodSpec:
    """The method with the settings that are not its defaults."""
    defaults = find_method(name).defaults
    changed = {key: value for key, value in settings.items() if value != defaults[key]}
    return MethodSpec(name=name).with_settings(**changed)


def lora_of(
    switched: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    quantization: Quantization,
) -> tuple[MethodSpec, tuple[str, ...]]:
    """LoRA under the name of what is switched on, and notes on what else is.

    ``switched`` are names of ``VARIANTS``, each with settings that it brings along.
    """
    on = [name for name in VARIANTS if name in switched]
    if on:
        notes = tuple(
            f"{name} ({VARIANTS[name]}) besides {on[0]} is left out of the prediction"
            for name in on[1:]
        )
        return method_of(on[0], {**settings, **switched[on[0]]}), notes
    return method_of(_plain(settings["target_modules"], quantization), settings), ()


def _plain(target_modules: Any, quantization: Quantization) -> str:
    if target_modules != ALL_LINEAR:
        return "lora"
    return "qlora" if quantization in ("nf4", "nf4-dq") else "lora-all"
