"""FISH Mask: the weights with the largest Fisher information are trained.

Sung et al. 2021, arXiv 2111.09839. Its diagonal is the mean of squared gradients; here it is taken
from the first batch, before which masks are random. The authors average over some hundred samples.
"""

from __future__ import annotations

from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.selective.masked import (
    attach_drawn,
    choose_by_gradient,
    merge,
    optimizer,
    stored,
    trainable,
)

FISH_MASK = Method(
    name="fish-mask",
    title="FISH Mask: the weights with most Fisher information",
    family="selective",
    year=2021,
    citation="Sung et al. 2021, arXiv 2111.09839",
    axes=Axes("yes", "no", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("fraction", 0.005, 0.001, 0.1, rule="0.5 % is close to all", source="paper"),
    ),
    attach=attach_drawn,
    trainable=trainable,
    stored=stored,
    merge=merge,
    optimizer=optimizer,
    before_step=choose_by_gradient,
)
