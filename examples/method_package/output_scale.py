"""Train one scale per output of every attention projection (an example, not a published method)."""

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Method
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.sites import sites


def attach(model, settings):
    """A trained vector beside each attention output projection, multiplied in a hook."""
    import torch

    model.requires_grad_(False)
    places = [site for site in sites(model) if site.linear.role == "o"]
    if not places:
        raise UnsupportedError(f"{type(model).__name__} has no attention projections; use lora")
    for site in places:
        like = next(site.module.parameters())
        ones = torch.ones(site.linear.outputs, device=like.device, dtype=like.dtype)
        site.module.output_scale = torch.nn.Parameter(ones)
        site.module.register_forward_hook(lambda module, _, out: out * module.output_scale)
    return train_heads(model)


OUTPUT_SCALE = Method(
    name="output-scale",
    title="Scales on attention outputs",
    family="additive",
    year=2026,
    citation="an example of this package",
    axes=Axes("yes", "yes", "no", "scaling", "derived"),
    attach=attach,
    trainable=lambda layout, _: layout.head + layout.sum("o", lambda linear: linear.outputs),
)
