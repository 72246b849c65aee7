"""What the script of a method does beside PEFT's config: further steps, optimizers, columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.exports.python_source import Code, call, literal
from peftadvisor.integrations.exports.schedule import optimizer_steps
from peftadvisor.integrations.exports.value import Export

SELECTIVE = ("full", "bitfit", "attention-tuning", "cross-attention-tuning")
"""Methods that train parameters of the model itself, as they are."""
LOW_RANK = ("galore", "apollo")
"""Methods that train everything by an optimizer that transformers' Trainer knows."""
PEFT = (
    *("lora", "lora-all", "qlora", "dora", "rslora", "lora-mlp", "lora-plus", "lora-fa"),
    *("pissa", "olora", "loftq", "adalora", "x-lora", "vera", "pvera", "randlora", "gralora"),
    *("delora", "hira", "glora", "oft", "boft", "hra", "fourierft", "c3a", "loha", "miss"),
    *("road", "tinylora", "beft", "deft", "peanut", "lokr", "vb-lora", "waveft", "unilora"),
    *("psoft", "lily", "osf", "krona", "poly", "adamss", "frod"),
    *("prompt-tuning", "prefix-tuning", "spot", "warp", "p-tuning", "multitask-prompt", "cpt"),
    *("adaption-prompt", "ia3", "ln-tuning", "shira", "trainable-tokens"),
)
"""Methods that PEFT has."""
METHODS = frozenset({*SELECTIVE, *LOW_RANK, *PEFT})
TASK_IDS = frozenset({"multitask-prompt", "poly"})
"""Methods whose batches say which task each example is of."""
HEADS_BY_HAND = frozenset({"adaption-prompt", "trainable-tokens", "x-lora"})
"""Methods for which PEFT leaves a classification head frozen."""

Lines = Callable[[Mapping[str, Any]], list[str]]


@dataclass(frozen=True, slots=True)
class Steps:
    """Lines after PEFT has wrapped the model, and the imports that they need."""

    lines: Lines
    imports: tuple[str, ...] = ()


def _freeze_a(_: Mapping[str, Any]) -> list[str]:
    return [
        "for name, parameter in model.named_parameters():",
        '    if "lora_A" in name:  # LoRA-FA trains B alone',
        "        parameter.requires_grad_(False)",
    ]


def _freeze_counts(_: Mapping[str, Any]) -> list[str]:
    return [
        "for name, parameter in model.named_parameters():",
        '    if "ranknum" in name:  # a constant that PEFT leaves trainable',
        "        parameter.requires_grad_(False)",
    ]


def _start_from_words(settings: Mapping[str, Any]) -> list[str]:
    source = settings.get("source_prompt")
    if source is not None:
        return [
            f"saved = load_file({literal(str(source))})",
            'prompt = next(tensor for name, tensor in saved.items() if "prompt" in name)',
            "with torch.no_grad():",
            '    model.prompt_encoder["default"].embedding.weight.copy_(prompt)',
        ]
    mask, words = settings.get("mask_token_id"), "model.word_embeddings.weight"
    drawn = f"torch.randint(len({words}), (len(prompt),))" if mask is None else str(int(mask))
    return [
        'prompt = model.prompt_encoder["default"].embedding.weight',
        "with torch.no_grad():  # starts as embeddings of words",
        f"    prompt.copy_({words}[{drawn}])",
    ]


def _own_storage(settings: Mapping[str, Any]) -> list[str]:
    return [
        "for module in model.modules():  # views that would keep whole decompositions alive",
        '    for cache in [getattr(module, "_psoft_A_cache", {})]:',
        "        for name in list(cache.keys()):",
        "            cache[name] = cache[name].clone()",
    ]


def _own_directions(settings: Mapping[str, Any]) -> list[str]:
    return [
        "for module in model.modules():  # views that would keep whole decompositions alive",
        '    for name, part in getattr(module, "osf_svd_params", {}).items():',
        '        part["V_low"].data = part["V_low"].data.clone()',
        "        if name in module._osf_V_high:",
        "            module._osf_V_high[name] = module._osf_V_high[name].clone()",
    ]


def _in_place(_: Mapping[str, Any]) -> list[str]:
    return [
        "for encoder in model.prompt_encoder.values():  # no new tensor at every forward pass",
        "    project = type(encoder).get_projection",
        "    encoder.get_projection = lambda encoder=encoder, project=project: (",
        "        encoder.delta_embedding.weight.data.copy_(project(encoder))",
        "    )",
    ]


STEPS: Mapping[str, Steps] = {
    "lora-fa": Steps(_freeze_a),
    "adalora": Steps(_freeze_counts),
    "loftq": Steps(
        lambda _: ["replace_lora_weights_loftq(model)  # reads the 16-bit weights once more"],
        ("from peft import replace_lora_weights_loftq",),
    ),
    "spot": Steps(_start_from_words, ("import torch", "from safetensors.torch import load_file")),
    "warp": Steps(_start_from_words, ("import torch",)),
    "psoft": Steps(_own_storage),
    "osf": Steps(_own_directions),
    "cpt": Steps(_in_place),
}


def config_fields(export: Export, fields: Mapping[str, Any]) -> dict[str, Any]:
    """PEFT's config with what the meta device hides, or what the length of the job decides."""
    method, settings, steps = export.run.method.name, export.settings, optimizer_steps(export)
    if method in ("pissa", "olora"):
        return {**fields, "init_lora_weights": settings.get("init", method)}
    if method == "adalora" and steps is not None:
        return {**fields, "tinit": steps // 10, "tfinal": steps // 3, "total_step": steps}
    return dict(fields)


def require_inputs(export: Export) -> None:
    """Refuse what was estimated with stand-ins that no training can use.

    Raises:
        UsageError: the experts of X-LoRA or the examples of CPT are not named.
    """
    needed = {
        "x-lora": ("adapters", "trained LoRA experts", '\'adapters=["FOLDER", "FOLDER"]\''),
        "cpt": ("token_ids", "the tokens of its examples", "'token_ids=[1, 2, 3]'"),
    }
    name = export.run.method.name
    if name in needed and not export.settings[needed[name][0]]:
        _, what, example = needed[name]
        raise UsageError(f"{name} needs {what}; name them: --set {example}")


@dataclass(frozen=True, slots=True)
class Optimizer:
    """A class by its import, and arguments besides the learning rate."""

    imports: str
    name: str
    arguments: Mapping[str, Any]


OPTIMIZER_CLASSES: Mapping[str, Optimizer] = {
    "adamw": Optimizer("import torch", "torch.optim.AdamW", {}),
    "adamw-loop": Optimizer("import torch", "torch.optim.AdamW", {"foreach": False}),
    "adamw-fused": Optimizer("import torch", "torch.optim.AdamW", {"fused": True}),
    "adamw-8bit": Optimizer("from bitsandbytes.optim import AdamW8bit", "AdamW8bit", {}),
    "paged-adamw-8bit": Optimizer(
        "from bitsandbytes.optim import PagedAdamW8bit", "PagedAdamW8bit", {}
    ),
    "adafactor": Optimizer(
        "from transformers import Adafactor",
        "Adafactor",
        {"scale_parameter": False, "relative_step": False},
    ),
    "sgd": Optimizer("import torch", "torch.optim.SGD", {}),
}
"""What the optimizers of an estimate are called where a class is wanted."""


def own_optimizer(export: Export) -> tuple[list[str], tuple[str, ...]]:
    """Lines that make ``optimizer``, and their imports; none where the Trainer makes it."""
    method, settings = export.run.method.name, export.settings
    chosen = OPTIMIZER_CLASSES[export.training.optimizer]
    rate = {"lr": Code("args.learning_rate")}
    decay = {"weight_decay": Code("args.weight_decay")}
    if method == "lora-fa":
        named = {"r": settings["rank"], "lora_alpha": settings["alpha"], **rate, **decay}
        lines = call("create_lorafa_optimizer", named, [Code("model")])
        return _assigned(lines), ("from peft.optimizers import create_lorafa_optimizer",)
    if method == "lora-plus":
        named = {**rate, "loraplus_lr_ratio": settings["lr_ratio"], **chosen.arguments}
        given = [Code("model"), Code(chosen.name)]
        lines = call("create_loraplus_optimizer", named, given)
        imports = ("from peft.optimizers import create_loraplus_optimizer", chosen.imports)
        return _assigned(lines), imports
    if export.training.optimizer == "adamw-loop":
        trained = Code("[p for p in model.parameters() if p.requires_grad]")
        named = {**rate, **decay, **chosen.arguments}
        return _assigned(call(chosen.name, named, [trained])), (chosen.imports,)
    return [], ()


def _assigned(lines: list[str]) -> list[str]:
    return [f"optimizer = {lines[0]}", *lines[1:]]


CALLBACKS: Mapping[str, tuple[str, ...]] = {
    "adalora": (
        "class AllocateRanks(TrainerCallback):",
        '    """Moves rank to the layers that need it, after every optimizer step."""',
        "",
        "    def on_optimizer_step(self, args, state, control, model=None, **_):",
        "        model.base_model.update_and_allocate(state.global_step)",
    )
}
"""Callbacks of the Trainer that a method needs."""


def low_rank_arguments(export: Export, linears: tuple[str, ...]) -> dict[str, Any]:
    """TrainingArguments of GaLore and APOLLO."""
    settings, method = export.settings, export.run.method.name
    if method not in LOW_RANK:
        return {}
    options = {
        "rank": settings["rank"],
        "update_proj_gap": settings["gap"],
        "scale": settings["scale"],
        **({"proj": "random", "scale_type": "channel"} if method == "apollo" else {}),
    }
    return {
        "optim": f"{method}_adamw",
        "optim_args": ",".join(f"{name}={value}" for name, value in options.items()),
        "optim_target_modules": r".*\.(" + "|".join(linears) + ")",
    }
