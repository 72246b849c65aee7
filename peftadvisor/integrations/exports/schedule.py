"""How long and how fast to learn, in the words of transformers' TrainingArguments."""

from __future__ import annotations

import math
from typing import Any

from peftadvisor.advisor.advised import Advised, Value
from peftadvisor.errors import UsageError
from peftadvisor.integrations.exports.value import Export

SCHEDULES = frozenset(
    {
        "constant",
        "constant_with_warmup",
        "cosine",
        "cosine_with_min_lr",
        "cosine_with_restarts",
        "inverse_sqrt",
        "linear",
        "polynomial",
        "warmup_stable_decay",
    }
)
"""Names of transformers' schedules."""
OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw-fused": "adamw_torch_fused",
    "adamw-8bit": "adamw_bnb_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
"""What ``TrainingArguments.optim`` is called; AdamW's for-loop has no name there."""
_FOLLOWED = frozenset(
    {"learning_rate", "lr_scheduler", "schedule", "warmup_ratio", "weight_decay"}
    | {"max_grad_norm", "epochs", "steps"}
)
REENTRANT = {"none": None, "non-reentrant": False, "reentrant": True}


def duration(export: Export) -> dict[str, float | int]:
    """``epochs`` or ``steps``: the job's own, else the advised; empty where nobody says."""
    said = {"steps": export.job.steps, "epochs": export.job.epochs}
    advised = {name: export.advice(name) for name in said}
    for source in (said, advised):
        for name, value in source.items():
            if isinstance(value, int | float):
                return {name: int(value) if name == "steps" or value == int(value) else value}
    return {}


def optimizer_steps(export: Export) -> int | None:
    """Optimizer steps of the job, None where its size is not known."""
    lasts, t, examples = duration(export), export.training, export.job.examples
    if "steps" in lasts:
        return int(lasts["steps"])
    if examples is None or "epochs" not in lasts:
        return None
    batch = t.micro_batch_size * t.gradient_accumulation_steps * export.run.gpus
    return math.ceil(examples * lasts["epochs"] / batch)


def advised_schedule(export: Export) -> Value | None:
    """The schedule under either name that it goes by."""
    named = export.advice("lr_scheduler")
    return export.advice("schedule") if named is None else named


def applied(export: Export) -> list[Advised]:
    """The advice that an export follows, the rest being settled by the run or the job."""
    lasts, settings = duration(export), export.settings
    said_by_the_job = {"epochs", "steps"} - {name for name in lasts if export.advice(name)}
    return [
        advice
        for advice in export.advised
        if (advice.name in _FOLLOWED and advice.name not in said_by_the_job)
        or (advice.name in settings and settings[advice.name] == advice.value)
    ]


def schedule(export: Export) -> str | None:
    """The advised schedule by transformers' name.

    Raises:
        UsageError: transformers has none of this name.
    """
    value = advised_schedule(export)
    if value is None:
        return None
    name = str(value).replace("-", "_").replace(" ", "_")
    if name not in SCHEDULES:
        known = ", ".join(sorted(SCHEDULES))
        raise UsageError(f"the schedule '{value}' has no name in transformers; it has: {known}")
    warms = bool(rate(export, "warmup_ratio"))
    return "constant_with_warmup" if name == "constant" and warms else name


def max_grad_norm(export: Export) -> float:
    """0 where the estimate does not clip, else the advised norm, else the estimate's."""
    estimated, advised = export.training.max_grad_norm, export.advice("max_grad_norm")
    return float(advised) if estimated and isinstance(advised, int | float) else estimated


def rate(export: Export, name: str) -> float | None:
    """One advised number."""
    value = export.advice(name)
    return float(value) if isinstance(value, int | float) else None


def trainer_arguments(export: Export, warmup: str) -> dict[str, Any]:
    """TrainingArguments that advice and job decide; what nobody says is left to their defaults.

    ``warmup`` is the argument for the share of steps to warm up in: ``warmup_steps`` takes
    numbers below 1 for that since transformers 5.

    Raises:
        UsageError: the advised schedule is none of transformers'.
    """
    lasts = duration(export)
    found = {
        "num_train_epochs": lasts.get("epochs"),
        "max_steps": lasts.get("steps"),
        "learning_rate": rate(export, "learning_rate"),
        "lr_scheduler_type": schedule(export),
        warmup: rate(export, "warmup_ratio"),
        "weight_decay": rate(export, "weight_decay"),
        "max_grad_norm": max_grad_norm(export),
    }
    return {name: value for name, value in found.items() if value is not None}
