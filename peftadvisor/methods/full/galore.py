"""GaLore: every weight is trained, Adam's states are kept for gradients projected to rank r.

Zhao et al. 2024, arXiv 2403.03507. The projection comes from the SVD of a gradient and is made
again every ``gap`` steps. As in the authors' code the update runs weight by weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.full import full
from peftadvisor.methods.sites import sites

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

RATE, BETAS, EPSILON = 1e-4, (0.9, 0.999), 1e-8


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Train everything; the model keeps the settings for its optimizer.

    Raises:
        UnsupportedError: the base is quantized.
    """
    model = full.attach(model, settings)
    model.low_rank_settings = dict(settings)
    return model


def optimizer(model: Any, _: Any) -> Any:
    """Adam, of rank r on the weights of the layers' linear maps and plain on all others."""
    settings = model.low_rank_settings
    return low_rank_adam()(grouped(model, settings, _projected))


def grouped(model: Any, settings: Mapping[str, Any], direction: Any) -> list[dict[str, Any]]:
    """Parameters by how they are updated: by ``direction`` those of linear layers, by Adam others.

    ``direction(state, gradient, settings)`` is the step to take, with what it needs kept in state.
    """
    linear = {id(site.module.weight) for site in sites(model)}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {
            "params": [p for p in trained if id(p) in linear],
            "direction": direction,
            "settings": settings,
        },
        {"params": [p for p in trained if id(p) not in linear], "direction": _plain},
    ]


@cache
def low_rank_adam() -> type:
    """The optimizer's class; torch is not imported before it is needed."""
    import torch

    class LowRankAdam(torch.optim.Optimizer):
        """One weight after another, each by its group's direction."""

        def __init__(self, groups: list[dict[str, Any]]) -> None:
            filled = [group for group in groups if group["params"]]
            super().__init__(filled, {"lr": RATE, "settings": {}})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        step = group["direction"](self.state[p], p.grad, group["settings"])
                        p.add_(step, alpha=-group["lr"])

    return LowRankAdam


def adam(state: dict[str, Any], gradient: Any) -> Any:
    """Adam's step for a gradient; both averages are kept in ``state``."""
    import torch

    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = (
            torch.zeros_like(gradient),
            torch.zeros_like(gradient),
        )
    state["step"] = state.get("step", 0) + 1
    (first, second), t = BETAS, state["step"]
    state["exp_avg"].mul_(first).add_(gradient, alpha=1 - first)
    state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    spread = state["exp_avg_sq"].sqrt().add_(EPSILON)
    correction = float((1 - second**t) ** 0.5 / (1 - first**t))
    return (state["exp_avg"] / spread).mul_(correction)


def _plain(state: dict[str, Any], gradient: Any, _: Mapping[str, Any]) -> Any:
    return adam(state, gradient)


def _projected(state: dict[str, Any], gradient: Any, settings: Mapping[str, Any]) -> Any:
    """Adam in the subspace of the gradient's r largest singular vectors, on its shorter side."""
    tall = gradient.shape[0] >= gradient.shape[1]
    if state.get("step", 0) % settings["gap"] == 0:
        state["projector"] = _principal(gradient, settings["rank"], tall)
    basis = state["projector"]
    step = adam(state, gradient @ basis.T if tall else basis.T @ gradient)
    return (step @ basis if tall else basis @ step).mul_(settings["scale"])


def _principal(gradient: Any, rank: int, tall: bool) -> Any:
    import torch

    left, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
    return (right[:rank] if tall else left[:, :rank]).to(gradient.dtype, copy=True)


def trainable(layout: Layout, _: Mapping[str, Any]) -> int:
    """Every parameter."""
    return layout.total


GALORE = Method(
    name="galore",
    title="GaLore: full fine-tuning with projected gradients",
    family="full",
    year=2024,
    citation="Zhao et al. 2024, arXiv 2403.03507",
    axes=Axes("no", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 128, 4, 1024, rule="a quarter of the width or less", source="paper"),
        Hyperparameter("gap", 200, 50, 1000, rule="steps between SVDs", source="paper"),
        Hyperparameter("scale", 0.25, 0.25, 2, source="the authors' code", shapes="none"),
    ),
    attach=attach,
    trainable=trainable,
    merge=lambda model: model,
    optimizer=optimizer,
)
