"""What transformers 4 did otherwise than 5, where it changes memory or time.

Experts were linear layers of their own, called one after another, and so quantized with a base;
since 5 they are one tensor for all. Causal language models shifted their logits by a copy; since 5
the labels are shifted. One model kept its cache where layers are checkpointed. Read in the model
files of 4.45.2 and 4.48.1.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from peftadvisor.specs import Transformers

Logits = Literal["kept", "copied", "widened", "narrow"]
"""What becomes of the logits before the loss.

``kept``: an fp32 copy beside the model's own (5). ``copied``: that, and its shifted copy (from 4.46
on). ``widened``: fp32 alone, and the shifted copy (up to 4.45). ``narrow``: a shifted copy in the
model's dtype, no fp32.
"""

# fmt: off
NARROW = frozenset((
    "bloom", "clvp", "codegen", "ctrl", "dbrx", "falcon", "gpt2", "gpt_bigcode", "gpt_neox",
    "gpt_neox_japanese", "gptj", "kosmos2", "mpt", "openai-gpt", "opt", "persimmon", "rwkv",
    "stablelm",
))
"""Model types that left the logits as they were, in all of transformers 4."""

WIDENED = frozenset((
    "falcon_mamba", "gpt_neo", "granitemoe", "jetmoe", "mamba", "mamba2", "recurrent_gemma",
))
# fmt: on
"""Model types that kept the way of 4.45 in 4.48."""


def logits_in(config: Any, version: Transformers) -> Logits:
    """The way of a model in a version of transformers."""
    if version == "5":
        return "kept"
    if config.model_type in NARROW:
        return "narrow"
    return "widened" if version == "4.45" or config.model_type in WIDENED else "copied"


CACHED = frozenset(("gpt_bigcode",))
"""Model types that did not turn their cache off where layers are checkpointed."""


class _Cache:
    """What the projections of one forward gave, to live as long as its outputs."""

    def __init__(self) -> None:
        self.held: list[torch.Tensor] | None = None

    def begin(self, *_: Any) -> None:
        self.held = []

    def keep(self, _module: nn.Module, _args: Any, projected: torch.Tensor) -> None:
        if self.held is not None:  # None where a layer is recomputed
            self.held.append(projected)

    def hand_over(self, _module: nn.Module, _args: Any, outputs: Any) -> None:
        outputs.past_key_values, self.held = self.held, None


def keep_cache(base: Any, model: nn.Module) -> None:
    """Hold what the cache of ``base``, inside ``model``, held that was not turned off.

    gpt_bigcode's keys and values are views of its fused projection, so all of that lives on:
    2 (h + 2 d) bytes per token and layer in bf16, with h the hidden and d the head size.
    """
    if base.config.model_type not in CACHED:
        return
    cache = _Cache()
    base.base_model.register_forward_pre_hook(cache.begin)
    base.base_model.register_forward_hook(cache.hand_over)
    for path, module in model.named_modules():
        if path.endswith(".c_attn"):
            module.register_forward_hook(cache.keep)


def unfuse_experts(model: Any) -> None:
    """Replace experts that are one tensor by experts that are linear layers."""
    fused = [path for path, module in model.named_modules() if _is_fused(module)]
    for path in fused:
        model.set_submodule(path, LinearExperts(model.get_submodule(path)))


def _is_fused(module: nn.Module) -> bool:
    """Weights [E, 2 I, h] and [E, h, I] without biases; others were never linear layers."""
    up, down = (getattr(module, name, None) for name in ("gate_up_proj", "down_proj"))
    if not all(isinstance(p, nn.Parameter) and p.dim() == 3 for p in (up, down)):
        return False
    return up.shape[1] == 2 * down.shape[2] and up.shape[2] == down.shape[1]  # type: ignore[union-attr]


class Expert(nn.Module):
    """A gated feed-forward layer."""

    def __init__(self, width: int, inner: int, act: Any, like: torch.Tensor) -> None:
        super().__init__()
        made: dict[str, Any] = {"bias": False, "device": like.device, "dtype": like.dtype}
        self.gate_proj = nn.Linear(width, inner, **made)
        self.up_proj = nn.Linear(width, inner, **made)
        self.down_proj = nn.Linear(inner, width, **made)
        self.act_fn = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, h] to [T, h]."""
        out: torch.Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return out


class LinearExperts(nn.ModuleList):
    """Experts called one by one, each with an even share of the tokens."""

    def __init__(self, source: Any) -> None:
        experts, width, inner = source.down_proj.shape
        made = (Expert(width, inner, source.act_fn, source.down_proj) for _ in range(experts))
        super().__init__(made)

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """[T, h] states and [T, k] choices to [T, h]."""
        out = torch.zeros_like(hidden_states)
        mask = nn.functional.one_hot(top_k_index, num_classes=len(self)).permute(2, 1, 0)
        share = -(-top_k_index.numel() // len(self))
        rows = hidden_states.new_empty(share, dtype=torch.long)
        for expert in self:
            made = expert(hidden_states[rows]) * top_k_weights[rows, rows, None]
            out.index_add_(0, rows, made.to(out.dtype))
        del mask
        return out
