"""APOLLO: every weight is trained, scaled channel by channel as low-rank Adam would.

Zhu et al. 2024, arXiv 2412.05270. Adam's states are kept for gradients projected to rank r at
random; how much they shrink or stretch each channel scales the gradient itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.full.galore import adam, attach, grouped, low_rank_adam, trainable

GROWTH = 1.01
TINY = 1e-8


def optimizer(model: Any, _: Any) -> Any:
    """APOLLO on the weights of the layers' linear maps, plain Adam on all others."""
    return low_rank_adam()(grouped(model, model.low_rank_settings, _scaled))


def _scaled(state: dict[str, Any], gradient: Any, settings: Mapping[str, Any]) -> Any:
    """The gradient with each channel scaled, growing in norm by 1 % a step at most."""
    tall, step = gradient.shape[0] >= gradient.shape[1], state.get("step", 0)
    if step % settings["gap"] == 0:
        state["projector"] = _random(gradient, settings["rank"], tall, settings["seed"] + step)
    basis = state["projector"]
    small = gradient @ basis.T if tall else basis.T @ gradient
    channels = 1 if tall else 0
    wanted = adam(state, small).norm(dim=channels, keepdim=True)
    scaled = gradient * (wanted / (small.norm(dim=channels, keepdim=True) + TINY))
    norm = scaled.norm()
    if "norm" in state:
        limit = (norm / (state["norm"] + TINY)).clamp_(min=GROWTH) / GROWTH
        scaled, norm = scaled.div_(limit), norm / limit
    state["norm"] = norm
    return scaled.mul_(settings["scale"] ** 0.5)


def _random(gradient: Any, rank: int, tall: bool, seed: int) -> Any:
    """A normal projection of the shorter side to r dimensions; the same for the same seed."""
    import torch

    side = min(gradient.shape)
    size = min(rank, side)
    shape = (size, side) if tall else (side, size)
    if gradient.is_meta:
        return gradient.new_empty(shape).div_(size**0.5)
    drawn = torch.Generator(gradient.device).manual_seed(seed)
    made = torch.randn(shape, generator=drawn, device=gradient.device, dtype=gradient.dtype)
    return made.div_(size**0.5)


APOLLO = Method(
    name="apollo",
    title="APOLLO: full fine-tuning with scaled gradients",
    family="full",
    year=2024,
    citation="Zhu et al. 2024, arXiv 2412.05270",
    axes=Axes("no", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 256, 1, 512, rule="1 with scale 128 is APOLLO-Mini", source="paper"),
        Hyperparameter("gap", 200, 50, 1000, rule="steps between projections", source="paper"),
        Hyperparameter("scale", 1.0, 1, 128, source="the authors' code", shapes="none"),
        Hyperparameter("seed", 0),
    ),
    attach=attach,
    trainable=trainable,
    merge=lambda model: model,
    optimizer=optimizer,
)
