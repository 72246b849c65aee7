"""Every fine-tuning method: one file each, one line here; others come by an entry point.

A package of somebody else adds a method by an entry point in the group ``peftadvisor.methods``
that names a ``Method``. Files are imported when their method is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from peftadvisor.errors import UnknownNameError, UsageError
from peftadvisor.methods.base import Method

ENTRY_POINTS = "peftadvisor.methods"

_FILES: Mapping[str, str] = {
    "full": "full",
    "lora": "lora",
    "lora-all": "lora",
    "qlora": "qlora",
    "dora": "dora",
    "ia3": "ia3",
    "ln-tuning": "ln_tuning",
    "bitfit": "bitfit",
    "prompt-tuning": "prompt_tuning",
    "prefix-tuning": "prefix_tuning",
    "prefix-flat": "prefix_flat",
    "prefix-mlp": "prefix_mlp",
    "mam": "mam",
    "mam-scaled": "mam",
    "unipelt": "unipelt",
    "unipelt-flat": "unipelt",
    "spot": "spot",
    "ipt": "ipt",
    "warp": "warp",
    "s4": "s4",
    "houlsby": "houlsby",
    "pfeiffer": "pfeiffer",
    "rslora": "rslora",
    "lora-mlp": "lora_mlp",
    "lora-plus": "lora_plus",
    "lora-fa": "lora_fa",
    "pissa": "pissa",
    "olora": "olora",
    "loftq": "loftq",
    "dylora": "dylora",
    "sparse-lora": "sparse_lora",
    "adalora": "adalora",
    "x-lora": "x_lora",
    "vera": "vera",
    "pvera": "pvera",
    "randlora": "randlora",
    "gralora": "gralora",
    "delora": "delora",
    "hira": "hira",
    "glora": "glora",
    "oft": "oft",
    "boft": "boft",
    "hra": "hra",
    "fourierft": "fourierft",
    "c3a": "c3a",
    "loha": "loha",
    "miss": "miss",
    "road": "road",
    "tinylora": "tinylora",
    "beft": "beft",
    "deft": "deft",
    "peanut": "peanut",
    "lokr": "lokr",
    "ssl": "subspace_scaling",
    "ssb": "subspace_scaling",
    "galore": "galore",
    "apollo": "apollo",
    "intrinsic-said": "intrinsic_said",
    "lorta": "lorta",
    "loretta-rep": "loretta_rep",
    "ladder-side": "ladder_side",
    "attention-fusion": "attention_fusion",
    "lets": "lets",
    "vb-lora": "vb_lora",
    "waveft": "waveft",
    "unilora": "unilora",
    "psoft": "psoft",
    "lily": "lily",
    "osf": "osf",
    "krona": "krona",
    "poly": "poly",
    "adamss": "adamss",
    "scaled-parallel": "scaled_parallel",
    "parallel-adapter": "parallel_adapter",
    "compacter": "compacter",
    "compacter-plus-plus": "compacter",
    "phm-adapter": "phm_adapter",
    "adamix": "adamix",
    "attention-tuning": "attention_tuning",
    "cross-attention-tuning": "cross_attention_tuning",
    "shira": "shira",
    "lisa": "lisa",
    "badam": "badam",
    "frod": "frod",
    "trainable-tokens": "trainable_tokens",
    "far": "far",
    "p-tuning": "p_tuning",
    "multitask-prompt": "multitask_prompt",
    "cpt": "cpt",
    "adaption-prompt": "adaption_prompt",
    "loreft": "loreft",
    "fish-mask": "fish_mask",
    "lt-sft": "lt_sft",
    "diff-pruning": "diff_pruning",
    "sam": "sam",
    "sara": "sara",
    "sparse-adapter": "sparse_adapter",
    "krona-adapter": "krona_adapter",
    "loretta-adapter": "loretta_adapter",
    "smile": "smile",
}
"""Which file each method lives in."""

COMMON = (
    "full",
    "lora",
    "lora-all",
    "qlora",
    "dora",
    "ia3",
    "ln-tuning",
    "bitfit",
    "prompt-tuning",
    "prefix-tuning",
    "houlsby",
    "pfeiffer",
)
"""What is tried where the user names no method."""


def method_names() -> tuple[str, ...]:
    """The names of all methods: ours in the order of the taxonomy, then those of others."""
    return (*_FILES, *sorted(set(_others()) - set(_FILES)))


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UnknownNameError: no such method; the message names the closest.
        UsageError: another package's entry point is no method.
    """
    if name in _FILES:
        module = import_module(f"peftadvisor.methods.{_FILES[name]}")
        return next(m for m in vars(module).values() if isinstance(m, Method) and m.name == name)
    others = _others()
    if name not in others:
        raise UnknownNameError("method", name, method_names())
    return others[name]


@cache
def _others() -> Mapping[str, Method]:
    """Methods that installed packages register."""
    from importlib.metadata import entry_points

    found = {}
    for entry in entry_points(group=ENTRY_POINTS):
        method = entry.load()
        if not isinstance(method, Method):
            raise UsageError(
                f"entry point '{entry.name}' of {entry.dist and entry.dist.name} is no Method; "
                "fix or uninstall that package"
            )
        found[method.name] = method
    return found
