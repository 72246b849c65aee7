"""Time that data parallel GPUs exchange bytes and do not compute.

A collective of n bytes among G GPUs takes

    t = α + k · (G - 1)/G · n / B        k = 1 gathers or scatters, 2 does both (all-reduce)

in seconds, B being the bus bandwidth of the node's links (``data/links.py``). A pass of c seconds
over L layers exchanges n/L bytes with each: the first exchange is waited for, each of the others
hides behind a layer's c/L. So exposed = t + (L - 1) · max(0, t - c/L).

zero-3 and fsdp gather all weights in forward, in backward and where layers are recomputed, and
scatter gradients, with every micro-batch; zero-2 scatters with every micro-batch; ddp and zero-1
exchange gradients once a step, in buckets of 25 MiB; zero-1 and zero-2 gather what they updated.
Leaves out that collectives take multiprocessors and bandwidth from kernels, the host's time for
them (FSDP: for every adapter), and waiting for the slower GPU.
"""

from __future__ import annotations

import numpy as np

from peftadvisor.cost_model.kernel_classes import Floats
from peftadvisor.cost_model.sharding import REDUCED, WHOLE, exchanged
from peftadvisor.data.links import link_bytes_per_s
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.parts import Integers
from peftadvisor.simulator.trace import Phase
from peftadvisor.specs import RunSpec
from peftadvisor.units import MIB

ALPHA_S = 20e-6
"""Latency of a collective within a node: a prior, not a measurement."""
BUCKET_BYTES = 25 * MIB
"""DDP's (torch/nn/parallel/distributed.py)."""


def exposed_seconds(
    run: RunSpec, simulated: Simulated, phase_s: Floats, micro_batches: Integers
) -> Floats:
    """Communication of one optimizer step that nothing hides, at many points.

    ``simulated`` is the run on one GPU, ``phase_s`` the GPU's seconds of one micro-batch, phase ×
    point; ``micro_batches`` are those of a step.
    """
    sent = exchanged(simulated)
    layers, backward = max(1, sum(simulated.units)), phase_s[Phase.BACKWARD]
    per_micro_batch = np.zeros(len(micro_batches))
    per_step = np.zeros(len(micro_batches))
    if run.sharding in WHOLE:
        passes = [phase_s[Phase.FORWARD] + phase_s[Phase.LOSS], backward]
        if run.training.gradient_checkpointing != "none":
            passes.append(phase_s[Phase.RECOMPUTE])
        for computing in passes:
            per_micro_batch += _exposed(run, sent.weights_bytes, layers, computing)
    if run.sharding in REDUCED:
        per_micro_batch += _exposed(run, sent.gradient_bytes, layers, backward)
    else:
        buckets = -(-sent.gradient_bytes // BUCKET_BYTES)
        per_step += _exposed(run, 2 * sent.gradient_bytes, buckets, backward)
    if run.sharding in ("zero-1", "zero-2"):
        per_step += collective_seconds(run, sent.gradient_bytes)
    return np.asarray(micro_batches * per_micro_batch + per_step)


def collective_seconds(run: RunSpec, sent_bytes: float) -> float:
    """One collective that moves so many bytes past each GPU but its own share."""
    share = (run.gpus - 1) / run.gpus
    return ALPHA_S + share * sent_bytes / link_bytes_per_s(run.gpu.id)


def _exposed(run: RunSpec, sent_bytes: int, parts: int, computing_s: Floats) -> Floats:
    """What a pass waits for when its bytes are exchanged in so many parts."""
    if not sent_bytes:
        return np.zeros_like(computing_s)
    part = collective_seconds(run, sent_bytes / parts)
    return np.asarray(part + (parts - 1) * np.maximum(0.0, part - computing_s / parts))
