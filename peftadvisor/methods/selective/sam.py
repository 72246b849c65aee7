"""SAM, second-order approximation: the weights that a Newton step would gain most by are trained.

Fu et al. 2022, arXiv 2211.15583. With the Hessian taken as a multiple of the identity these have
the largest squared gradients of the loss: here that of the first batch, before which masks are
random. FISH Mask, in contrast, wants the mean of the squares of single samples.
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

SAM = Method(
    name="sam",
    title="SAM: the weights with the largest squared gradients",
    family="selective",
    year=2022,
    citation="Fu et al. 2022, arXiv 2211.15583",
    axes=Axes("yes", "no", "no", "none", "derived"),
    hyperparameters=(Hyperparameter("fraction", 0.005, 0.001, 0.1, rule="0.5 %", source="paper"),),
    attach=attach_drawn,
    trainable=trainable,
    stored=stored,
    merge=merge,
    optimizer=optimizer,
    before_step=choose_by_gradient,
)
