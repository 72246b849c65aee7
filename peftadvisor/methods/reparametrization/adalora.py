"""AdaLoRA: rank moved to the layers that need it while training (arXiv 2303.10512).

Zhang et al. 2023. A change is B·diag(E)·A; singular values E that matter least are set to zero,
from ``init_rank`` per layer down to ``target_rank`` on average. What matters is held in three
tensors like each factor, which stay on the device while training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Hyperparameter, MakeOptimizer, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, merge, query_value_targets, task_type, wrap
from peftadvisor.methods.reparametrization import lora

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's AdaLoRA; its loss gains the penalty for factors not orthogonal.

    Raises:
        UnsupportedError: PEFT refuses the model or the schedule.
    """
    from peft import AdaLoraConfig

    steps = settings["total_steps"]
    config = AdaLoraConfig(
        task_type=task_type(model),
        init_r=settings["init_rank"],
        target_r=settings["target_rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        tinit=steps // 10,
        tfinal=steps // 3,
        deltaT=settings["interval"],
        total_step=steps,
        target_modules=settings["target_modules"] or query_value_targets(model),
        exclude_modules=lora.refused_modules(model),
    )
    wrapped = wrap(model, config)
    for name, parameter in wrapped.named_parameters():
        if "ranknum" in name:  # a constant, which PEFT unfreezes where the base has 16 bits
            parameter.requires_grad_(False)
    return wrapped


def optimizer(model: Any, make: MakeOptimizer) -> Any:
    """The user's optimizer; after each step ranks are allocated anew.

    Each call for a model starts the schedule of ``total_steps`` from the beginning.
    """
    chosen = make([p for p in model.parameters() if p.requires_grad])
    tuner, steps = model.base_model, count()

    def allocate(*_: Any) -> None:
        """Note how much each singular value matters, and zero those beyond the budget."""
        if next(model.parameters()).is_meta:
            tuner.rankallocator.update_ipt(tuner.model)
        else:
            tuner.update_and_allocate(next(steps))

    chosen.register_step_post_hook(allocate)
    return chosen


def trainable(layout: Layout, settings: Settings) -> int:
    """Factors and singular values per adapted layer, r·(in + out + 1); a head as a whole."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(settings["init_rank"] * (x.inputs + x.outputs + 1) for x in chosen)


ADALORA = Method(
    name="adalora",
    title="AdaLoRA on all linear layers",
    family="reparametrization",
    year=2023,
    citation="Zhang et al. 2023, arXiv 2303.10512",
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=(
        Hyperparameter("target_rank", 8, 2, 16, rule="average rank at the end", source="PEFT"),
        Hyperparameter("init_rank", 12, rule="1.5 times the target", source="AdaLoRA paper"),
        Hyperparameter("total_steps", 1000, rule="the number of optimizer steps of the run"),
        Hyperparameter("interval", 1, 1, 100, rule="steps between allocations", source="PEFT"),
        *(p for p in lora.ALL_LINEAR if p.name != "rank"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    optimizer=optimizer,
    quantized_base=True,
)
