"""PEFT's configs by ``peft_type``: our method, and which field is which of its settings.

Defaults are those of PEFT 0.21's config classes. ``held`` are fields that decide sizes and of
which our method has one value; another one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peftadvisor.integrations.configs.reader import amount, figure, switch, whole

Fields = Mapping[str, tuple[str, Any, Callable[[Any], Any]]]
"""Our setting, the default and the way to read it, by PEFT's field; ``...`` must be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One type of PEFT's: the method and its fields.

    ``targets`` says whether it names layers, ``usual`` whether those are query and value where it
    does not; ``dropout`` is a field of which our method has none.
    """

    method: str
    fields: Fields = field(default_factory=dict)
    held: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    targets: bool = True
    usual: bool = True
    dropout: str | None = None


def integer(value: Any) -> int:
    """A whole number that may be negative, as -1 for "as the library chooses"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("write a whole number")
    try:
        return int(value)
    except (ValueError, OverflowError):
        raise ValueError("write a whole number") from None


def ids(value: Any) -> tuple[int, ...]:
    """A list of token ids."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("write a list of token ids")
    return tuple(integer(item) for item in value)


def _rank(default: int) -> Fields:
    return {"r": ("rank", default, whole)}


def _variant(value: Any) -> Any:
    return value if value in ("bat", "mini") else switch(value)


LORA: Fields = {
    "r": ("rank", 8, whole),
    "lora_alpha": ("alpha", 8, figure),
    "lora_dropout": ("dropout", 0.0, amount),
}
_TOKENS: Fields = {"num_virtual_tokens": ("virtual_tokens", ..., whole)}
_SOFT: Mapping[str, tuple[Any, ...]] = {"num_transformer_submodules": (1, 2, None)}

KINDS: Mapping[str, Kind] = {
    "LORA": Kind(method="lora", fields=LORA, held={"lora_bias": (False,)}),
    "ADALORA": Kind(
        method="adalora",
        fields={
            "target_r": ("target_rank", 8, whole),
            "init_r": ("init_rank", 12, whole),
            "lora_alpha": ("alpha", 8, figure),
            "lora_dropout": ("dropout", 0.0, amount),
            "deltaT": ("interval", 1, whole),
            "total_step": ("total_steps", ..., whole),
        },
    ),
    "ADAMSS": Kind(
        method="adamss",
        fields={
            "r": ("rank", 100, whole),
            "num_subspaces": ("subspaces", 5, whole),
            "subspace_rank": ("subspace_rank", 1, whole),
        },
        held={"use_asa": (False,), "use_dynamic_rank": (False,)},
    ),
    "ADAPTION_PROMPT": Kind(
        method="adaption-prompt",
        targets=False,
        fields={
            "adapter_len": ("virtual_tokens", ..., whole),
            "adapter_layers": ("layers", ..., whole),
        },
    ),
    "BEFT": Kind(method="beft", usual=False),
    "BOFT": Kind(
        method="boft",
        fields={
            "boft_block_size": ("block_size", 4, whole),
            "boft_n_butterfly_factor": ("factors", 1, whole),
        },
        held={"boft_block_num": (0,)},
        dropout="boft_dropout",
    ),
    "C3A": Kind(method="c3a", fields={"block_size": ("block_size", 256, whole)}),
    "CPT": Kind(
        method="cpt",
        targets=False,
        fields={
            "cpt_token_ids": ("token_ids", ..., ids),
            "cpt_tokens_type_mask": ("token_types", None, ids),
            "opt_projection_epsilon": ("radius", 0.1, amount),
            "opt_projection_format_epsilon": ("template_radius", 0.1, amount),
        },
    ),
    "DEFT": Kind(
        method="deft",
        fields=_rank(8),
        held={"decomposition_method": ("relu",), "para": (False,)},
        dropout="deft_dropout",
    ),
    "DELORA": Kind(
        method="delora",
        fields={"r": ("rank", 8, whole), "delora_lambda": ("strength", 15, figure)},
        dropout="module_dropout",
    ),
    "FOURIERFT": Kind(
        method="fourierft",
        fields={
            "n_frequency": ("frequencies", 1000, whole),
            "scaling": ("scaling", 150.0, amount),
        },
    ),
    "FROD": Kind(
        method="frod",
        fields={"sparse_rate": ("density", 0.01, amount)},
        held={"runtime_offload_base_weight": (False,)},
        dropout="frod_dropout",
    ),
    "GLORA": Kind(
        method="glora",
        fields=_rank(8),
        held={"config_A_B": ("lora",), "config_C": ("lora",), "config_D_E": ("constant",)},
    ),
    "GRALORA": Kind(
        method="gralora",
        fields={
            "r": ("rank", 32, whole),
            "alpha": ("alpha", 64, figure),
            "gralora_k": ("blocks", 2, whole),
        },
        held={"hybrid_r": (0,)},
        dropout="gralora_dropout",
    ),
    "HIRA": Kind(method="hira", fields=_rank(32), dropout="hira_dropout"),
    "HRA": Kind(method="hra", fields=_rank(8), held={"apply_GS": (False,)}),
    "IA3": Kind(method="ia3", usual=False),
    "LILY": Kind(
        method="lily",
        fields={
            "r": ("rank", 32, whole),
            "stride_A": ("stride", 1, whole),
            "num_B": ("experts", 2, whole),
        },
    ),
    "LN_TUNING": Kind(method="ln-tuning", usual=False),
    "LOHA": Kind(
        method="loha",
        fields={"r": ("rank", 8, whole), "alpha": ("alpha", 8, figure)},
        dropout="module_dropout",
    ),
    "LOKR": Kind(
        method="lokr",
        fields={
            "r": ("rank", 8, whole),
            "alpha": ("alpha", 8, figure),
            "decompose_factor": ("factor", -1, integer),
        },
        held={"decompose_both": (False,)},
        dropout="module_dropout",
    ),
    "MISS": Kind(
        method="miss",
        fields={
            "r": ("rank", 64, whole),
            "init_weights": ("variant", True, _variant),
            "mini_r": ("mini_rank", 1, whole),
        },
        dropout="miss_dropout",
    ),
    "MULTITASK_PROMPT_TUNING": Kind(
        method="multitask-prompt",
        targets=False,
        fields={**_TOKENS, "num_ranks": ("rank", 1, whole), "num_tasks": ("tasks", 1, whole)},
        held=_SOFT,
    ),
    "OFT": Kind(
        method="oft",
        fields={"oft_block_size": ("block_size", 32, whole)},
        held={"r": (0,), "block_share": (False,), "coft": (False,), "use_cayley_neumann": (True,)},
        dropout="module_dropout",
    ),
    "OSF": Kind(method="osf", fields={"effective_rank": ("kept", None, whole)}),
    "PEANUT": Kind(method="peanut", fields=_rank(32), held={"depth": (0,)}),
    "POLY": Kind(
        method="poly",
        fields={
            "r": ("rank", 8, whole),
            "n_tasks": ("tasks", 1, whole),
            "n_skills": ("skills", 4, whole),
            "n_splits": ("splits", 1, whole),
        },
    ),
    "PREFIX_TUNING": Kind(
        method="prefix-tuning",
        targets=False,
        fields={**_TOKENS, "prefix_projection": ("projection", False, switch)},
    ),
    "PROMPT_TUNING": Kind(method="prompt-tuning", targets=False, fields=_TOKENS, held=_SOFT),
    "PSOFT": Kind(
        method="psoft",
        fields=_rank(32),
        held={"psoft_orth": (True,), "psoft_mag_a": (True,), "psoft_mag_b": (True,)},
        dropout="psoft_dropout",
    ),
    "PVERA": Kind(method="pvera", fields=_rank(256), dropout="pvera_dropout"),
    "P_TUNING": Kind(
        method="p-tuning",
        targets=False,
        fields={**_TOKENS, "encoder_hidden_size": ("encoder_width", None, whole)},
        held={**_SOFT, "encoder_reparameterization_type": ("MLP",)},
    ),
    "RANDLORA": Kind(
        method="randlora",
        fields=_rank(32),
        held={"sparse": (False,), "very_sparse": (False,)},
        dropout="randlora_dropout",
    ),
    "ROAD": Kind(
        method="road",
        fields={"group_size": ("group_size", 64, whole)},
        held={"variant": ("road_1",)},
    ),
    "SHIRA": Kind(method="shira", fields=_rank(32)),
    "TINYLORA": Kind(
        method="tinylora",
        fields={"r": ("rank", 2, whole), "u": ("width", 64, whole)},
        held={"weight_tying": (0.0, 0)},
        dropout="tinylora_dropout",
    ),
    "TRAINABLE_TOKENS": Kind(
        method="trainable-tokens",
        targets=False,
        fields={"token_indices": ("token_indices", ..., ids)},
    ),
    "UNILORA": Kind(
        method="unilora",
        fields={"r": ("rank", 4, whole), "theta_d_length": ("length", 256, whole)},
        dropout="unilora_dropout",
    ),
    "VBLORA": Kind(
        method="vb-lora",
        fields={
            "r": ("rank", 4, whole),
            "num_vectors": ("vectors", 256, whole),
            "vector_length": ("length", 256, whole),
        },
        held={"topk": (2,)},
        dropout="vblora_dropout",
    ),
    "VERA": Kind(method="vera", fields=_rank(256), dropout="vera_dropout"),
    "WAVEFT": Kind(
        method="waveft",
        fields={
            "n_frequency": ("frequencies", 2592, whole),
            "scaling": ("scaling", 25.0, amount),
        },
        held={"use_idwt": (True,), "proportional_parameters": (False,)},
    ),
    "XLORA": Kind(
        method="x-lora",
        targets=False,
        fields={"layerwise_scalings": ("layerwise", False, switch)},
        held={"xlora_depth": (1,), "use_trainable_adapters": (False,)},
    ),
}
"""Every type that one of our methods is."""
