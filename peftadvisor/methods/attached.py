"""A method on a real model: what was added, how it is saved, loaded and merged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.methods.base import Method, Settings


@dataclass(frozen=True, slots=True)
class Attached:
    """A model with a method attached; ``base`` are the identities of the model's own tensors."""

    method: Method
    settings: Settings
    model: Any
    base: frozenset[int]

    @property
    def trained(self) -> int:
        """Number of parameters that are trained."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def state(self) -> dict[str, Any]:
        """What to go on from later: all that is trained, and all that the method brought along.

        A tensor that several modules share is there once. ``Method.stored`` counts what use of the
        result needs, which is less for masks, and for prefixes that a network makes.
        """
        own = {id(p) for p in self.model.parameters() if p.requires_grad}
        if self.method.ever_trained:
            own |= {id(p) for p in self.method.ever_trained(self.model)}
        named = self.model.state_dict(keep_vars=True)
        first = {id(tensor): name for name, tensor in reversed(named.items())}
        return {
            name: named[name]
            for number, name in reversed(first.items())
            if number in own or number not in self.base
        }

    def save(self, path: Path) -> None:
        """Write ``state`` as safetensors."""
        from safetensors.torch import save_file

        tensors = {name: t.detach().contiguous().clone() for name, t in self.state().items()}
        save_file(tensors, path, metadata={"method": self.method.name})

    def load(self, path: Path) -> None:
        """Read what ``save`` wrote into this model, to which the same method is attached.

        Raises:
            UsageError: the file is of another method, or of other settings.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                saved = (file.metadata() or {}).get("method")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{path} cannot be read ({error}); save it again") from error
        if saved != self.method.name:
            raise UsageError(f"{path} holds {saved}, not {self.method.name}; attach that method")
        state = self.state()
        wrong = sorted(n for n in {*state, *tensors} if _shape(state, n) != _shape(tensors, n))
        if wrong:
            raise UsageError(f"{path}: {wrong[0]} does not fit; attach with the settings it had")
        self.model.load_state_dict(tensors, strict=False)

    def merge(self) -> Any:
        """The plain model that computes the same.

        Raises:
            UsageError: the method's change cannot be folded into the weights.
        """
        if self.method.merge is None:
            raise UsageError(f"{self.method.name} cannot be merged into the model")
        return self.method.merge(self.model)


def attach(method: Method, model: Any, settings: Settings | None = None) -> Attached:
    """Attach a method with its defaults, or with all of ``settings``.

    Raises:
        UnsupportedError: the model cannot take it.
    """
    chosen = method.defaults if settings is None else settings
    base = frozenset(id(t) for t in model.state_dict(keep_vars=True).values())
    return Attached(method, chosen, method.attach(model, chosen), base)


def _shape(tensors: dict[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
