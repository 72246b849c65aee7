"""Cross-attention tuning: only a decoder's attention to its encoder is trained.

Gheini et al. 2021, arXiv 2104.08771. The authors' new embeddings for a new language are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Method, Settings
from peftadvisor.methods.selective.attention_tuning import ATTENTION, size, train_linears
from peftadvisor.methods.sites import Linear

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, _: Mapping[str, Any]) -> Any:
    """Train the projections of cross-attention, and a classification head as a whole.

    Raises:
        UnsupportedError: the model has no cross-attention, or a quantized one.
    """
    lacking = "has no cross-attention; use attention-tuning instead"
    return train_linears(model, _crosses, lacking)


def _crosses(linear: Linear) -> bool:
    return linear.cross and linear.role in ATTENTION.split()


def trainable(layout: Layout, _: Settings) -> int:
    """Weights and biases of cross-attention; a classification head whole."""
    return layout.head + sum(map(size, filter(_crosses, layout.linears)))


CROSS_ATTENTION_TUNING = Method(
    name="cross-attention-tuning",
    title="Cross-attention tuning: cross-attention weights only",
    family="selective",
    year=2021,
    citation="Gheini et al. 2021, arXiv 2104.08771",
    axes=Axes("maybe", "yes", "no", "none", "derived"),
    attach=attach,
    trainable=trainable,
    merge=lambda model: model,
)
