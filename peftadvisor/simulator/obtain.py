"""Get what a run does at one point, from the best source there is.

A recording if there is one; else one made now; else, where torch is not installed, the nearest
recording, and then it says so. No torch is imported here until something must be recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import product

import numpy as np
from numpy.typing import NDArray

from peftadvisor.data.names import one_line
from peftadvisor.errors import UnsupportedError
from peftadvisor.profiles import Parameters
from peftadvisor.simulator.expansion import expand
from peftadvisor.simulator.library import REPRESENTATIVE, Kernels, Variant
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.recording import KernelUse, Peak, Recording
from peftadvisor.simulator.regimes import ALIGNMENT, Regime, regime_of

Progress = Callable[[str], None]

AT_FULL_DEPTH = "none, simulated at full depth"
"""Where a run comes from that no recording with variables describes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Simulated:
    """A recording set to one point: what the cost model reads.

    ``note`` is empty where the recording is exact for the point, else it says what differs.
    """

    recording: Recording
    point: Point
    accumulate: bool
    source: str
    note: str = ""

    @property
    def units(self) -> list[int]:
        """Depth of every stack."""
        return list(self.recording.facts["units"])

    @property
    def versions(self) -> Mapping[str, str]:
        """Library versions that were recorded."""
        return dict(self.recording.facts["versions"])

    def allocated_peak(self) -> int:
        """Allocated peak in bytes."""
        return self.recording.allocated_peak(self.point, self.units, accumulate=self.accumulate)

    def peak(self) -> Peak:
        """Allocated peak and its owners."""
        return self.recording.peak(self.point, self.units, accumulate=self.accumulate)

    def kernel_uses(self) -> tuple[KernelUse, ...]:
        """Kernels of one micro-batch and of one update."""
        return self.recording.kernel_uses(self.point, self.units)

    def expand(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Allocations and frees for the allocator replay."""
        return expand(self.recording, self.point, self.units, accumulate=self.accumulate)

    def parameters(self) -> Parameters:
        """Parameter counts at full depth."""
        total, trainable, trained_bytes = self.recording.parameter_counts(self.units)
        kept = self.recording.facts.get("stored", trainable)
        stored_bytes = kept * trained_bytes // trainable
        return Parameters(total=total, trainable=trainable, stored_bytes=stored_bytes)


def obtain(variant: Variant, *, exact: bool, progress: Progress | None = None) -> Simulated:
    """The run of ``variant`` at its own batch and lengths.

    With ``exact`` a missing recording is made if torch is installed; without, a recording of
    nearby lengths serves first (lengths rounded up to the next multiple of 16).

    Raises:
        UnsupportedError: there is no recording and torch is not installed to make one.
        UsageError: the model cannot take the method.
    """
    t = variant.training
    point = (t.micro_batch_size, t.seq_len, t.target_len)
    regime = regime_of(point, variant.model.config)
    refused = variant.refusal()
    if refused:
        raise UnsupportedError(refused)
    found = _exactly(variant, point, regime)
    if found:
        return found
    can_record = find_spec("torch") is not None and find_spec("transformers") is not None
    if exact and can_record:
        return _record(variant, point, regime, progress)
    near = _nearby(variant, point)
    if near:
        return near
    if can_record:
        return _record(variant, point, regime, progress)
    raise UnsupportedError(
        f"no recording of {variant.method.name} on {variant.model.id} with these settings ships "
        "with the package; to make one: pip install 'peftadvisor[profile]'"
    )


def on_file(variant: Variant) -> Simulated | None:
    """The run as it is on file, at its own or nearby lengths; None where it is not recorded."""
    t = variant.training
    point = (t.micro_batch_size, t.seq_len, t.target_len)
    regime = regime_of(point, variant.model.config)
    return _exactly(variant, point, regime) or _nearby(variant, point)


def _exactly(variant: Variant, point: Point, regime: Regime) -> Simulated | None:
    accumulate = variant.training.gradient_accumulation_steps > 1
    found = _find(variant, regime)
    if found:
        return Simulated(found, point, accumulate, "on file")
    found = _in_bf16(variant, regime)
    if found:
        return Simulated(found, point, accumulate, "on file, in bf16, which takes as much")
    found = variant.find_at(point)
    return Simulated(found, point, accumulate, AT_FULL_DEPTH) if found else None


def _find(variant: Variant, regime: Regime) -> Recording | None:
    found = (variant.find(piece) for piece in regime.recorded())
    return next((recording for recording in found if recording), None)


FP16_AS_BF16 = frozenset(
    {
        *("bert", "deberta-v2", "distilbert", "falcon", "gemma3", "gpt2", "gpt_neox", "llama"),
        *("mistral", "mixtral", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "roberta"),
        *("starcoder2", "vit"),
    }
)
"""Model types that take as much in fp16 as in bf16, to the event (benchmarks/fp16_as_bf16.py).

Others do not: T5 keeps a part of its weights in fp32 beside fp16, BART and Whisper clamp.
"""


def _in_bf16(variant: Variant, regime: Regime) -> Recording | None:
    """A run in fp16 by its recording in bf16: the same events and sizes, other units compute."""
    alike = variant.model.model_type in FP16_AS_BF16
    if variant.training.dtype != "fp16" or variant.training.amp or not alike:
        return None
    training = dataclasses.replace(variant.training, dtype="bf16")
    found = _find(dataclasses.replace(variant, training=training), regime)
    return found and found.renamed("bfloat16", "float16")


def _nearby(variant: Variant, point: Point) -> Simulated | None:
    """A recording with lengths rounded up, or of the flash kernel where cuDNN's is missing."""
    b, s, t = point
    rounded = (b, -(-s // ALIGNMENT) * ALIGNMENT, -(-t // ALIGNMENT) * ALIGNMENT)
    accumulate = variant.training.gradient_accumulation_steps > 1
    kernels: tuple[Kernels, ...] = (variant.kernels, "flash")
    for kernel, there in product(kernels, (point, rounded)):
        other = dataclasses.replace(variant, kernels=kernel)
        regime = regime_of(there, variant.model.config)
        found = _find(other, regime) or _in_bf16(other, regime)
        if found:
            notes = [f"lengths rounded up to {rounded[1]}"] if there != point else []
            if kernel != variant.kernels:
                notes.append(f"recorded with {kernel} attention, this GPU runs {variant.kernels}")
            return Simulated(found, there, accumulate, "on file", "; ".join(notes))
    return None


_BREAKS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model raises that was not made for a method."""


def _record(variant: Variant, point: Point, regime: Regime, progress: Progress | None) -> Simulated:
    """Make a recording, or say that model and method do not go together.

    Raises:
        UnsupportedError: they do not, by what a method knows or by what their own code raises.
    """
    try:
        return _recorded(variant, point, regime, progress)
    except _BREAKS as error:
        raise UnsupportedError(
            f"{variant.method.name} does not run on {variant.model.id}: "
            f"{type(error).__name__}: {one_line(str(error))}"
        ) from error


def _recorded(
    variant: Variant, point: Point, regime: Regime, progress: Progress | None
) -> Simulated:
    from peftadvisor.simulator.recorder import InexactError

    if progress:
        progress(f"recording {variant.method.name} on {variant.model.id}")
    accumulate = variant.training.gradient_accumulation_steps > 1
    for piece in regime.recorded():
        try:
            recording = _grown(variant, piece) or _made(variant, piece)
        except InexactError:
            continue
        except UnsupportedError as error:
            variant.keep_refusal(str(error))
            raise
        return Simulated(recording, point, accumulate, "made now")
    return _direct(variant, point, progress)


def _made(variant: Variant, piece: Regime) -> Recording:
    """Record the variant as it is, and keep that."""
    from peftadvisor.simulator.attention import Device
    from peftadvisor.simulator.record import record

    device = Device(REPRESENTATIVE[variant.kernels])
    recording = record(variant.model, variant.method, variant.training, device, piece)
    variant.keep(piece, recording)
    return recording


def _grown(variant: Variant, piece: Regime) -> Recording | None:
    """Record the variant for every size of its method, keep that, and set it to the user's.

    None where the user left the size as it is, or sizes do not follow from each other.
    """
    from peftadvisor.simulator.record import record_growing
    from peftadvisor.simulator.recorder import InexactError, SplitError

    size, base = variant.size, variant.general.find(piece)
    if size is None or (base and base.growth):
        return None
    try:
        recording = record_growing(variant, piece, base)
    except SplitError:
        raise
    except InexactError:
        return None
    variant.general.keep(piece, recording)
    growth = recording.growth
    return recording.at_size(size) if growth and growth.holds_for(size) else None


def _direct(variant: Variant, point: Point, progress: Progress | None) -> Simulated:
    """Simulate the full model at this very point: a recording with no variables."""
    from peftadvisor.simulator.attention import Device
    from peftadvisor.simulator.record import record_point

    if progress:
        progress(f"simulating {variant.method.name} on {variant.model.id} at full depth")
    device = Device(REPRESENTATIVE[variant.kernels])
    recording = record_point(variant.model, variant.method, variant.training, device)
    variant.keep_at(point, recording)
    accumulate = variant.training.gradient_accumulation_steps > 1
    return Simulated(recording, point, accumulate, AT_FULL_DEPTH)
