"""What came out: memory, FLOPs, time, money and evidence of one run, predicted or measured.

All integers are base units (bytes, FLOPs with 1 MAC = 2 FLOPs, tokens), all times seconds.
``low`` and ``high`` are a 90 % interval.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from peftadvisor.specs import MethodSpec, RunSpec, TrainingSpec, Verdict

SCHEMA_VERSION = 1
Engine = Literal["simulate", "measure"]
FLOP_CONVENTION = "1 MAC = 2 FLOPs; matrix products, convolutions and attention are counted"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBreakdown:
    """Who holds the device memory at the peak; the parts sum to the device peak."""

    weights_bytes: int = 0
    adapter_bytes: int = 0
    gradient_bytes: int = 0
    optimizer_bytes: int = 0
    activation_bytes: int = 0
    logits_bytes: int = 0
    workspace_bytes: int = 0
    fragmentation_bytes: int = 0
    context_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """The device peak, by construction."""
        return sum(getattr(self, part.name) for part in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Peaks on the device: allocated ≤ reserved ≤ device, with a 90 % interval of the last."""

    allocated_peak_bytes: int
    reserved_peak_bytes: int
    device_peak_bytes: int
    low_bytes: int
    high_bytes: int
    breakdown: MemoryBreakdown
    peak_phase: str
    peak_op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameter counts, and what one saved adapter takes."""

    total: int
    trainable: int
    stored_bytes: int

    @property
    def trainable_percent(self) -> float:
        """Trained share of all parameters, in percent."""
        return 100.0 * self.trainable / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """FLOPs of one optimizer step (all its micro-batches)."""

    forward: int
    backward: int
    recompute: int
    optimizer: int
    convention: str = FLOP_CONVENTION

    @property
    def total(self) -> int:
        """All of them."""
        return self.forward + self.backward + self.recompute + self.optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one optimizer step, what bounds it, and the throughput that follows."""

    step_s: float
    low_s: float
    high_s: float
    tokens_per_s: float
    samples_per_s: float
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Dollars, where a price and (for totals) the size of the job are known."""

    usd_per_hour: float | None = None
    usd_total: float | None = None
    hours_total: float | None = None
    price_source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What published comparisons say about the method's quality; no evidence is an answer.

    ``label`` is ``likely better``, ``on par or unresolved`` or ``likely worse`` than well-tuned
    LoRA, ``insufficient``, ``none``, or ``reference`` for LoRA itself. ``low`` and ``high`` are the
    80 % interval of the probability. ``independent_sources`` counts those of ``sources`` that are
    not by the method's authors; ``reason`` says why there is no evidence, or what qualifies it.
    """

    label: str = "none"
    probability_at_least_lora: float | None = None
    low: float | None = None
    high: float | None = None
    sources: tuple[str, ...] = ()
    independent_sources: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the numbers come from."""

    engine: str
    versions: dict[str, str] = field(hash=False)
    recording: str
    calibration: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMemory:
    """Most bytes that tensors held, in all and in each phase of the run.

    ``static_bytes`` is held from load on: parameters and buffers. ``reserved_peak_bytes`` is what
    the caching allocator took for them, None where there is none (on the CPU). ``host_peak_bytes``
    is the largest resident set of the process, libraries included; None where nothing ran.
    ``owner_bytes`` parts the peak; it is empty where the parts were not told apart.
    """

    static_bytes: int
    allocated_peak_bytes: int
    peak_phase: str
    phase_peak_bytes: dict[str, int] = field(hash=False)
    host_peak_bytes: int | None = None
    reserved_peak_bytes: int | None = None
    owner_bytes: dict[str, int] = field(hash=False, default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Bytes held over the run, thinned out so that every peak of a stretch is kept.

    ``at`` counts ``unit``: seconds of a measured run, events of a simulated one.
    """

    unit: Literal["seconds", "events"]
    at: tuple[float, ...]
    held_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """Seconds of one optimizer step: median, quartiles, medians of the phases, and throughput.

    ``mfu`` is the counted FLOPs, recomputed ones included (so "hardware" FLOPs utilization where
    there is checkpointing), per second and card's dense peak at the dtype; None where no peak is
    on record.
    """

    step_s: float
    low_s: float
    high_s: float
    phase_s: dict[str, float] = field(hash=False)
    tokens_per_s: float
    samples_per_s: float
    steps: int
    mfu: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardCount:
    """FLOPs of one forward pass by fvcore (its MACs × 2), and the operators it does not count.

    ``failure`` says why there is no count.
    """

    flops: int | None
    uncounted: dict[str, int] = field(hash=False, default_factory=dict)
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """What the driver told of the card during the timed steps; None is what it did not tell.

    ``peak_bytes`` is above ``baseline_bytes``, which other processes and the desktop held before.
    ``missing`` says why a question has no answer, also one to torch's allocator.
    """

    baseline_bytes: int | None = None
    peak_bytes: int | None = None
    mean_power_w: float | None = None
    joules_per_step: float | None = None
    joules_per_token: float | None = None
    median_sm_clock_hz: int | None = None
    mean_utilization: float | None = None
    readings: int = 0
    missing: dict[str, str] = field(hash=False, default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What one run held and computed, simulated or measured: the same type for both.

    FLOPs are of one optimizer step by phase; what is recomputed counts as backward. ``time``,
    ``device_use`` and ``fvcore`` are None where nothing ran, or nothing was asked.
    """

    engine: Engine
    device: str
    model: str
    method: MethodSpec
    training: TrainingSpec
    parameters: Parameters
    memory: PhaseMemory
    phase_flops: dict[str, int] = field(hash=False)
    time: PhaseTime | None
    provenance: Provenance
    timeline: Timeline | None = None
    device_use: DeviceUse | None = None
    fvcore: ForwardCount | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Everything said about one run; ``to_dict`` is the JSON contract."""

    run: RunSpec
    parameters: Parameters
    memory: Memory
    flops: Flops
    time: StepTime
    cost: Cost
    verdict: Verdict
    oom_probability: float
    evidence: Evidence
    reasons: tuple[str, ...]
    provenance: Provenance

    @property
    def usd_per_sample(self) -> float | None:
        """What one sample costs; None without a price."""
        hourly = self.cost.usd_per_hour
        return None if hourly is None else hourly / self.time.samples_per_s

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the shape of the JSON contract."""
        gpu = self.run.gpu
        return {
            "schema_version": SCHEMA_VERSION,
            "run": self.run.to_dict(),
            "parameters": {
                "total": self.parameters.total,
                "trainable": self.parameters.trainable,
                "trainable_percent": self.parameters.trainable_percent,
                "stored_bytes": self.parameters.stored_bytes,
            },
            "memory": asdict(self.memory),
            "flops": {**asdict(self.flops), "total": self.flops.total},
            "time": asdict(self.time),
            "cost": asdict(self.cost),
            "gpu": {
                "id": gpu.id,
                "memory_bytes": gpu.memory_bytes,
                "usable_bytes": gpu.usable_bytes,
            },
            "verdict": self.verdict,
            "oom_probability": self.oom_probability,
            "evidence": {**asdict(self.evidence), "sources": list(self.evidence.sources)},
            "reasons": list(self.reasons),
            "provenance": asdict(self.provenance),
        }
