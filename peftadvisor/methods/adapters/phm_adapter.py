"""PHM-Adapter: Compacter without low rank and without sharing (Mahabadi et al. 2021).

arXiv 2106.04647. The paper trains the layer norms as well, and reports n = 12; here they stay
frozen, and n is Compacter's 4, which divides all usual widths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.phm import CITATION, HYPERPARAMETERS, attach_phm, widths
from peftadvisor.methods.base import Axes, Method, Settings
from peftadvisor.methods.roles import attention_output, feed_forward_output

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter after self-attention and one after feed-forward.

    Raises:
        UnsupportedError: n does not divide the width, or the model has no such layers.
    """
    places = (lambda layer, _: attention_output(layer), feed_forward_output)
    return attach_phm(model, places, settings)


def trainable(layout: Layout, settings: Settings) -> int:
    """Two adapters per layer, each of two weights n³ + db/n and biases b + d; a head whole."""
    n, (d, b) = settings["n"], widths(layout, settings)
    return int(2 * layout.layers * (2 * (n**3 + d * b // n) + b + d) + layout.head)


PHM_ADAPTER = Method(
    name="phm-adapter",
    title="PHM-Adapter: adapters of Kronecker products",
    family="adapter",
    year=2021,
    citation=CITATION,
    axes=Axes("yes", "yes", "no", "an extra feed-forward network", "derived"),
    hyperparameters=HYPERPARAMETERS,
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
