"""(IA)³: learned scales of keys, values and feed-forward activations.

Liu et al. 2022, arXiv 2205.05638.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import known_targets, merge, task_type, wrap
from peftadvisor.methods.roles import (
    feed_forward_projection,
    hidden_size,
    layers,
    projection_names,
    targets,
)

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's IA3, on its own table of targets or on k, v and the down projection.

    Raises:
        UnsupportedError: the model has no such projections.
    """
    from peft import IA3Config

    names, feed_forward = _names(settings, model.config.model_type)
    if feed_forward is None:
        feed_forward = _down_names(model)
    if not names:
        found = [*projection_names(model, "kv"), *feed_forward]
        if not found:
            raise UnsupportedError(
                f"{type(model).__name__} has no key, value or feed-forward layers for (IA)³; "
                "use lora-all or ln-tuning instead"
            )
        names = targets(model, found)
    config = IA3Config(
        task_type=task_type(model),
        target_modules=names,
        feedforward_modules=_within(feed_forward, names),
    )
    return wrap(model, config)


def _names(settings: Settings, model_type: str) -> tuple[Any, Any]:
    """Targets and those of them that are scaled at inputs: as set, as in PEFT's tables, or None."""
    from peft.utils import (
        TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEED_FORWARD,
    )
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as TABLE

    return (
        settings["target_modules"] or known_targets(TABLE, model_type),
        settings["feedforward_modules"] or known_targets(FEED_FORWARD, model_type),
    )


def _within(feed_forward: list[str], names: Any) -> list[str]:
    """PEFT wants no other names here than among the targets, where those are a list."""
    return feed_forward if isinstance(names, str) else [n for n in feed_forward if n in names]


def _down_names(model: Any) -> list[str]:
    """Names of the last projections of feed-forward, with their parent's as in PEFT's table."""
    width = hidden_size(model)
    names: dict[str, None] = {}
    for layer in layers(model):
        down = feed_forward_projection(layer, width)
        for path, module in layer.named_modules():
            if down is not None and module is down:
                names[".".join(path.split(".")[-2:])] = None
    return list(names)


def trainable(layout: Layout, settings: Settings) -> int:
    """A scale per input of feed-forward's last layer, per output of keys, values and others.

    Which they are PEFT's table says by name (in BERT attention's output has the name of
    feed-forward's); where the table ends, roles do.
    """
    named, feed_forward = _names(settings, layout.model_type)
    inputs = layout.targets(feed_forward, "down")
    chosen = layout.targets(named, "k v qkv down")
    return layout.head + sum(x.inputs if x in inputs else x.outputs for x in chosen)


IA3 = Method(
    name="ia3",
    title="(IA)³: scales on keys, values and feed-forward",
    family="additive",
    year=2022,
    citation="Liu et al. 2022, arXiv 2205.05638",
    axes=Axes("yes", "yes", "no", "scaling", "recalled"),
    hyperparameters=(
        Hyperparameter("target_modules", None),
        Hyperparameter(
            "feedforward_modules", None, rule="those of the targets that are scaled at their inputs"
        ),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    rules=("R17", "R18"),
    quantized_base=True,
    several=True,
)
