"""The probes of a calibration: sizes outside the tensors, costs of a launch, and the kernels.

A probe is a function of the probing under way and the seconds it may take, that yields what it
measured. ``UnsupportedError`` says that this device or installation has no such thing.

How large a kernel's operands are depends on the device. A first product of square matrices, grown
until it takes five milliseconds, and a first fill with random numbers give two rates at each dtype;
a shape is halved in its tokens until its calls, at these rates, take no longer than its share of
the time, and its operands no more than a sixth of the free memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from peftadvisor.data.calibrations import Probe
from peftadvisor.errors import UnsupportedError
from peftadvisor.profilers.kernels import DTYPES, KERNELS, Call, Kernel, Shape
from peftadvisor.profilers.stopwatch import BATCH, WARMUP, Site, Stopwatch, Timing, timing

FIRST_SIDE, LAST_SIDE, FIRST_S = 256, 4096, 0.005
FIRST_CALLS = 3
FILLED = 2**20
SHORTEST_S = 1e-9
"""What a coarse clock is taken to mean by nothing."""
SHORTEST = 16
"""Tokens below which no shape is halved."""
FREE_SHARE = 6
TINY = 8
"""Side of the operands of calls that cost nothing but themselves."""
BURST = 200
"""Calls handed over between two looks at the clock; a card queues about a thousand."""
READINGS = 5, 30
"""Looks at the clock, at least and at most."""


class NoRoomError(Exception):
    """Even the smallest shape would take more than there is of time or memory."""


@dataclass(frozen=True, slots=True)
class Pace:
    """First rates of a device at one dtype, for choosing sizes only."""

    flops_per_s: float
    filled_bytes_per_s: float

    def seconds(self, flops: int, made_bytes: int) -> float:
        """Until a kernel is made ready, warmed up and timed once."""
        calls = WARMUP + BATCH
        return calls * flops / self.flops_per_s + made_bytes / self.filled_bytes_per_s


class Probing:
    """A calibration under way: the device, its stopwatch, its pace, and what has been timed."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._paces: dict[str, Pace] = {}
        self._timed: set[tuple[str, str, str, Shape]] = set()

    @cached_property
    def stopwatch(self) -> Stopwatch:
        """Made when it is first needed: its buffer takes memory."""
        return Stopwatch(self.site)

    def pace(self, dtype: str) -> Pace:
        """First rates at a dtype, measured once."""
        if dtype not in self._paces:
            self._paces[dtype] = _pace(self.site, DTYPES[dtype])
        return self._paces[dtype]

    def is_new(self, kernel: Kernel, dtype: str, shape: Shape) -> bool:
        """Whether this was not timed yet; two shapes can become one by halving."""
        key = (kernel.kind, kernel.operator, dtype, shape)
        seen = key in self._timed
        self._timed.add(key)
        return not seen

    def tiny(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A small operand on the device."""
        return torch.ones(shape or (TINY, TINY), dtype=dtype, device=self.site.bench.where)


Work = Callable[[Probing, float], Iterator[Probe]]


def context(probing: Probing, seconds: float, operator: str = "created") -> Iterator[Probe]:
    """Device memory that the driver holds for this process beside torch's: context, libraries."""
    site = probing.site
    if site.card is None or site.used_before_bytes is None:
        raise UnsupportedError(site.why_untold)
    probing.tiny()
    site.bench.wait()
    used = site.card.read().used_bytes
    if used is None:
        raise UnsupportedError("the driver does not tell the memory in use")
    outside = used - site.used_before_bytes - int(site.cuda.memory_reserved(site.index))
    yield Probe(kind="context", operator=operator, held_bytes=max(0, outside))


def workspaces(probing: Probing, seconds: float) -> Iterator[Probe]:
    """Device memory that stays allocated after the first call of an operator.

    Backward runs in a thread of its own, whose products have a workspace of their own.
    """
    site = probing.site
    if site.cuda is None:
        raise UnsupportedError("there is none on the CPU")
    product = probing.tiny(512, 512).requires_grad_()
    heads = probing.tiny(1, 8, 512, 64, dtype=torch.bfloat16)
    steps: tuple[tuple[str, Call], ...] = (
        ("linear", lambda: F.linear(product.detach(), product.detach())),
        ("linear backward", lambda: torch.autograd.grad(F.linear(product, product).sum(), product)),
        ("attention", lambda: F.scaled_dot_product_attention(heads, heads, heads)),
    )
    for operator, step in steps:
        before = int(site.cuda.memory_allocated(site.index))
        step()
        site.bench.wait()
        held = int(site.cuda.memory_allocated(site.index)) - before
        yield Probe(kind="workspace", operator=operator, held_bytes=max(0, held))


def launch(probing: Probing, seconds: float) -> Iterator[Probe]:
    """From the call of the smallest kernel until it is known to be done, by the host's clock."""
    x = probing.tiny(1)

    def once() -> None:
        x.zero_()
        probing.site.bench.wait()

    yield _overhead("launch", "zero_", _looks(probing, once, seconds, times=1))


def dispatch(probing: Probing, seconds: float) -> Iterator[Probe]:
    """The host's time to hand over one call, while the device is not what is waited for.

    On the CPU, which works while it hands over, the time of tiny operands is in it.
    """
    x, layer = probing.tiny(), probing.tiny().requires_grad_()
    calls: tuple[tuple[str, Call], ...] = (
        ("add", lambda: x + x),
        ("add_", lambda: x.add_(x, alpha=0)),
        ("linear", lambda: F.linear(x, x)),
        ("layer_norm", lambda: F.layer_norm(x, (TINY,))),
        ("gelu", lambda: F.gelu(x)),
        ("to bf16", lambda: x.to(torch.bfloat16)),
        ("add, recorded for backward", lambda: layer + x),
        ("linear, recorded for backward", lambda: F.linear(x, layer)),
    )
    for operator, call in calls:
        taken = _looks(probing, call, seconds / len(calls), times=BURST)
        yield _overhead("dispatch", operator, taken)


def kernel(
    probing: Probing, seconds: float, *, of: Kernel, dtype: str, wanted: Shape
) -> Iterator[Probe]:
    """One shape of a kernel, or the largest that there is time and memory for.

    Raises:
        NoRoomError: there is too little for any.
    """
    torch_dtype = DTYPES[dtype]
    shape = fitting(probing, of, dtype, wanted, seconds)
    if not probing.is_new(of, dtype, shape):
        return
    call = of.prepare(shape, torch_dtype, probing.site.bench.where)
    took = probing.stopwatch.time(call, seconds)
    yield Probe(
        kind=of.kind,
        operator=of.operator,
        shape=shape,
        dtype=dtype,
        flops=of.flops(shape),
        moved_bytes=of.moved(shape, torch_dtype.itemsize),
        **_seconds(took),
    )


def fitting(probing: Probing, of: Kernel, dtype: str, wanted: Shape, seconds: float) -> Shape:
    """The shape, halved in its tokens until it fits time and memory.

    Raises:
        NoRoomError: the smallest is too large.
    """
    pace, room = probing.pace(dtype), probing.site.free_bytes() // FREE_SHARE
    size, at, shape = DTYPES[dtype].itemsize, of.shrinks, wanted
    while True:
        made = max(form(shape, size) for form in (of.moved, of.made) if form)
        if pace.seconds(of.flops(shape), made) <= seconds and made <= room:
            return shape
        if shape[at] // 2 < SHORTEST:
            raise NoRoomError
        shape = (*shape[:at], shape[at] // 2, *shape[at + 1 :])


def _pace(site: Site, dtype: torch.dtype) -> Pace:
    side, where = FIRST_SIDE, site.bench.where
    while True:
        x = torch.randn(side, side, dtype=dtype, device=where)
        took = _best_call(site, lambda x=x: x @ x)  # type: ignore[misc]
        if took >= FIRST_S or side >= LAST_SIDE:
            break
        side *= 2
    filling = _best_call(site, lambda: torch.randn(FILLED, dtype=dtype, device=where))
    return Pace(2 * side**3 / took, FILLED * dtype.itemsize / filling)


def _best_call(site: Site, call: Call) -> float:
    """Seconds of the fastest of a few calls after a first one, by the host's clock."""
    call()
    site.bench.wait()
    taken = []
    for _ in range(FIRST_CALLS):
        start = site.now()
        call()
        site.bench.wait()
        taken.append(site.now() - start)
    return max(min(taken), SHORTEST_S)


def _looks(probing: Probing, call: Call, seconds: float, times: int) -> Timing:
    """Seconds of one call, by the host's clock around so many."""
    site, (least, most) = probing.site, READINGS
    call()
    site.bench.wait()
    until, taken = site.now() + seconds, list[float]()
    while len(taken) < least or (len(taken) < most and site.now() < until):
        start = site.now()
        for _ in range(times):
            call()
        taken.append((site.now() - start) / times)
        site.bench.wait()
    return timing(taken)


def _overhead(kind: str, operator: str, took: Timing) -> Probe:
    return Probe(kind=kind, operator=operator, **_seconds(took))


def _seconds(took: Timing) -> dict[str, Any]:
    return {
        "seconds": took.median_s,
        "low_s": took.low_s,
        "high_s": took.high_s,
        "repeats": took.repeats,
    }


def _kernel_probes() -> Iterator[tuple[str, Work]]:
    """Every kernel's first shape at every dtype, then every second: short of time, a bit of all."""
    for number in range(max(len(k.shapes) for k in KERNELS)):
        for k in KERNELS:
            for dtype in k.dtypes if number < len(k.shapes) else ():
                work = partial(kernel, of=k, dtype=dtype, wanted=k.shapes[number])
                yield f"{k.kind}, {k.operator}, {dtype}", work


PROBES: tuple[tuple[str, Work], ...] = (
    ("context", context),  # before anything else makes it larger
    ("workspace", workspaces),
    ("launch", launch),
    ("dispatch", dispatch),
    *_kernel_probes(),
    ("context, after the probes", partial(context, operator="after the probes")),
)
"""Names and probes, in their order."""
