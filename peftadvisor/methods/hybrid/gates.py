"""Gates of UniPELT's parts: one number per sequence, the mean of its tokens' sigmoids."""

from __future__ import annotations

from typing import Any


def _gate(size: int) -> Any:
    from torch import nn

    gate = nn.Linear(size, 1)
    nn.init.normal_(gate.weight, std=0.02)
    nn.init.zeros_(gate.bias)
    return gate


def _opened(gate: Any, hidden: Any) -> Any:
    return gate(hidden.to(gate.weight.dtype)).sigmoid().mean(dim=-2, keepdim=True)


def gated(inner: Any, size: int) -> Any:
    """What ``inner`` makes of hidden states, times a gate that reads the same."""
    from torch import nn

    class Gated(nn.Module):
        """The gated change of hidden states."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.gate = inner, _gate(size)

        def forward(self, hidden: Any) -> Any:
            change = self.inner(hidden.to(self.gate.weight.dtype))
            return (change * _opened(self.gate, hidden)).to(hidden.dtype)

    return Gated(inner)


def gated_prefix(prefix: Any, size: int) -> Any:
    """Keys and values times a gate; ``keep`` is a hook that lets it read what attention reads."""
    from torch import nn

    class GatedPrefix(nn.Module):
        """The gated prefix."""

        def __init__(self, prefix: Any) -> None:
            super().__init__()
            self.prefix, self.gate = prefix, _gate(size)
            self.held: list[Any] = []

        def keep(self, _module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.held[:] = [*inputs, *named.values()][:1]

        def forward(self) -> Any:
            opened = _opened(self.gate, self.held.pop())
            keys, values = self.prefix()
            return keys * opened, values * opened

    return GatedPrefix(prefix)
