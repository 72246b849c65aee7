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
    "full": "full.full",
    "galore": "full.galore",
    "apollo": "full.apollo",
    "lisa": "full.lisa",
    "badam": "full.badam",
    "houlsby": "adapters.houlsby",
    "pfeiffer": "adapters.pfeiffer",
    "scaled-parallel": "adapters.scaled_parallel",
    "parallel-adapter": "adapters.parallel_adapter",
    "compacter": "adapters.compacter",
    "compacter-plus-plus": "adapters.compacter",
    "phm-adapter": "adapters.phm_adapter",
    "adamix": "adapters.adamix",
    "sparse-adapter": "adapters.sparse_adapter",
    "krona-adapter": "adapters.krona_adapter",
    "loretta-adapter": "adapters.loretta_adapter",
    "prompt-tuning": "prompts.prompt_tuning",
    "prefix-tuning": "prompts.prefix_tuning",
    "prefix-flat": "prompts.prefix_flat",
    "prefix-mlp": "prompts.prefix_mlp",
    "spot": "prompts.spot",
    "ipt": "prompts.ipt",
    "warp": "prompts.warp",
    "p-tuning": "prompts.p_tuning",
    "multitask-prompt": "prompts.multitask_prompt",
    "cpt": "prompts.cpt",
    "adaption-prompt": "prompts.adaption_prompt",
    "ia3": "additive.ia3",
    "ladder-side": "additive.ladder_side",
    "attention-fusion": "additive.attention_fusion",
    "lets": "additive.lets",
    "loreft": "additive.loreft",
    "ln-tuning": "selective.ln_tuning",
    "bitfit": "selective.bitfit",
    "attention-tuning": "selective.attention_tuning",
    "cross-attention-tuning": "selective.cross_attention_tuning",
    "shira": "selective.shira",
    "trainable-tokens": "selective.trainable_tokens",
    "far": "selective.far",
    "fish-mask": "selective.fish_mask",
    "lt-sft": "selective.lt_sft",
    "diff-pruning": "selective.diff_pruning",
    "sam": "selective.sam",
    "sara": "selective.sara",
    "lora": "reparametrization.lora",
    "lora-all": "reparametrization.lora",
    "qlora": "reparametrization.qlora",
    "dora": "reparametrization.dora",
    "rslora": "reparametrization.rslora",
    "lora-mlp": "reparametrization.lora_mlp",
    "lora-plus": "reparametrization.lora_plus",
    "lora-fa": "reparametrization.lora_fa",
    "pissa": "reparametrization.pissa",
    "olora": "reparametrization.olora",
    "loftq": "reparametrization.loftq",
    "dylora": "reparametrization.dylora",
    "adalora": "reparametrization.adalora",
    "x-lora": "reparametrization.x_lora",
    "vera": "reparametrization.vera",
    "pvera": "reparametrization.pvera",
    "randlora": "reparametrization.randlora",
    "gralora": "reparametrization.gralora",
    "delora": "reparametrization.delora",
    "hira": "reparametrization.hira",
    "glora": "reparametrization.glora",
    "oft": "reparametrization.oft",
    "boft": "reparametrization.boft",
    "hra": "reparametrization.hra",
    "fourierft": "reparametrization.fourierft",
    "c3a": "reparametrization.c3a",
    "loha": "reparametrization.loha",
    "miss": "reparametrization.miss",
    "road": "reparametrization.road",
    "tinylora": "reparametrization.tinylora",
    "beft": "reparametrization.beft",
    "deft": "reparametrization.deft",
    "peanut": "reparametrization.peanut",
    "lokr": "reparametrization.lokr",
    "ssl": "reparametrization.subspace_scaling",
    "ssb": "reparametrization.subspace_scaling",
    "intrinsic-said": "reparametrization.intrinsic_said",
    "lorta": "reparametrization.lorta",
    "loretta-rep": "reparametrization.loretta_rep",
    "vb-lora": "reparametrization.vb_lora",
    "waveft": "reparametrization.waveft",
    "unilora": "reparametrization.unilora",
    "psoft": "reparametrization.psoft",
    "lily": "reparametrization.lily",
    "osf": "reparametrization.osf",
    "krona": "reparametrization.krona",
    "poly": "reparametrization.poly",
    "adamss": "reparametrization.adamss",
    "frod": "reparametrization.frod",
    "smile": "reparametrization.smile",
    "mam": "hybrid.mam",
    "mam-scaled": "hybrid.mam",
    "unipelt": "hybrid.unipelt",
    "unipelt-flat": "hybrid.unipelt",
    "s4": "hybrid.s4",
    "sparse-lora": "hybrid.sparse_lora",
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
