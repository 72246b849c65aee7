"""Ladder side-tuning: a narrow transformer beside the backbone.

Sung et al. 2022, arXiv 2206.06522.
Each side block reads the backbone's layer through a projection d → w and a gate, side ← μ·down(h)
+ (1 - μ)·side with μ = σ(α / 0.1); at the end a projection w → d feeds the frozen head. Blocks are
pre-norm attention (in decoders also to the side encoder) and a feed-forward network of 4w; the
paper's have the backbone's form, start from its pruned weights, and may leave layers out.
Generation runs over the whole sequence: the side network keeps no key-value cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.additive.side import NAME, on_device, plain_stacks, read
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.roles import hidden_size

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

TEMPERATURE, HEAD_WIDTH = 0.1, 64


def attach(model: Any, settings: Settings) -> Any:
    """Freeze the model and run a side network along each stack; the last one feeds the head.

    Raises:
        UnsupportedError: the model has no plain stacks of layers.
    """
    from torch import nn

    found, d = plain_stacks(model, "ladder-side"), hidden_size(model)
    model.requires_grad_(False)
    w = max(1, d // settings["reduction"])
    causal = model.can_generate()

    def make() -> Any:
        side = nn.ModuleList()
        for stack in found:
            last = stack is found[-1]
            forms = [_block(w, last and len(found) > 1, last and causal) for _ in stack]
            side.append(_ladder(d, w, nn.ModuleList(forms), last))
        return side

    side = on_device(model, make)
    model.add_module(NAME, side)
    memories: list[Any] = []
    for ladder, stack in zip(side, found, strict=True):
        read(list(stack), _use(ladder, memories))
    return train_heads(model)


def _use(ladder: Any, memories: list[Any]) -> Any:
    """What a stack does with its states: the last one feeds the head, others leave a memory."""

    def use(states: list[Any]) -> Any:
        if ladder.up is not None:
            return ladder.up(ladder(states, memories[0] if memories else None))
        memories[:] = [ladder(states, None)]
        return states[-1]

    return use


def _ladder(d: int, w: int, blocks: Any, last: bool) -> Any:
    import torch
    from torch import nn

    class Ladder(nn.Module):
        """Projections, gates and blocks of one stack."""

        def __init__(self) -> None:
            super().__init__()
            self.down = nn.ModuleList(nn.Linear(d, w, bias=False) for _ in range(len(blocks) + 1))
            self.gates = nn.Parameter(torch.zeros(len(blocks)))
            self.blocks = blocks
            self.norm = nn.LayerNorm(w, bias=False)
            self.up = nn.Linear(w, d, bias=False) if last else None

        def forward(self, states: list[Any], memory: Any) -> Any:
            side = self.down[0](states[0])
            gates = torch.sigmoid(self.gates / TEMPERATURE)
            rungs = zip(self.blocks, self.down[1:], states[1:], gates, strict=True)
            for block, down, state, gate in rungs:
                side = block(gate * down(state) + (1 - gate) * side, memory)
            return self.norm(side)

    return Ladder()


def _block(w: int, cross: bool, causal: bool) -> Any:
    from torch import nn
    from torch.nn import functional

    heads = max(1, w // HEAD_WIDTH)

    class Attention(nn.Module):
        """Pre-norm attention of several heads, added to its input."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(w, bias=False)
            self.q, self.k, self.v, self.o = (nn.Linear(w, w, bias=False) for _ in range(4))

        def forward(self, x: Any, memory: Any) -> Any:
            normed = self.norm(x)
            read = normed if memory is None else memory
            split = [self.q(normed), self.k(read), self.v(read)]
            q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in split)
            mixed = functional.scaled_dot_product_attention(
                q, k, v, is_causal=causal and memory is None
            )
            return x + self.o(mixed.transpose(1, 2).flatten(2))

    class Block(nn.Module):
        """Attention, attention to the side encoder where there is one, feed-forward."""

        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()
            self.cross = Attention() if cross else None
            self.norm = nn.LayerNorm(w, bias=False)
            self.up = nn.Linear(w, 4 * w, bias=False)
            self.down = nn.Linear(4 * w, w, bias=False)

        def forward(self, x: Any, memory: Any) -> Any:
            x = self.attention(x, None)
            if self.cross is not None:
                x = self.cross(x, memory)
            return x + self.down(functional.relu(self.up(self.norm(x))))

    return Block()


def trainable(layout: Layout, settings: Settings) -> int:
    """W = d / reduction, S stacks of L layers in all, D of them with cross-attention.

    (L + S)·dw down and wd up; L gates; blocks of 4w² + w and 8w² + w, cross 4w² + w; S norms.
    """
    d, w = layout.hidden, max(1, layout.hidden // settings["reduction"])
    layers, decoder = layout.layers, layout.decoder_layers
    stacks = 2 if decoder else 1
    blocks = layers * (1 + 12 * w * w + 2 * w) + decoder * (4 * w * w + w)
    return (layers + stacks + 1) * d * w + blocks + stacks * w + layout.head


LADDER_SIDE = Method(
    name="ladder-side",
    title="Ladder side-tuning: a narrow transformer beside the backbone",
    family="additive",
    year=2022,
    citation="Sung et al. 2022, arXiv 2206.06522",
    axes=Axes("yes", "yes", "yes", "a transformer of an eighth of the width", "seen"),
    hyperparameters=(
        Hyperparameter("reduction", 8, 4, 32, rule="8", source="Ladder side-tuning paper"),
    ),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
