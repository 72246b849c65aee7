"""What is run: the model, the method, the training settings and the GPU of one fine-tuning run.

All specs are frozen values made of plain types, so that they compare, hash and travel as JSON.
Bytes, tokens and FLOP/s are base units; validation raises, it never assigns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from peftadvisor.errors import UsageError

DType = Literal["bf16", "fp16", "fp32"]
Quantization = Literal["none", "nf4", "nf4-dq", "int8", "gptq"]
Optimizer = Literal[
    "adamw",
    "adamw-loop",
    "adamw-fused",
    "adamw-8bit",
    "paged-adamw-8bit",
    "adafactor",
    "sgd",
]
Attention = Literal["sdpa", "eager", "flash_attention_2"]
Checkpointing = Literal["none", "non-reentrant", "reentrant"]
KbitPreparation = Literal["peft", "trl", "none"]
Loss = Literal["torch", "fused", "fused-linear"]
Transformers = Literal["5", "4", "4.45"]
Loop = Literal["plain", "trainer"]
Sharding = Literal["ddp", "fsdp", "zero-1", "zero-2", "zero-3"]
Verdict = Literal["fits", "tight", "oom"]
Task = Literal[
    "classification",
    "summarization",
    "instruction",
    "reasoning",
    "code",
    "pretraining",
    "preference",
    "few-shot",
]

DTYPE_BYTES: Mapping[str, int] = {"bf16": 2, "fp16": 2, "fp32": 4}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, f"{name} is '{value}'; it must be one of {', '.join(choices)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model, as its Hugging Face ``config.json`` describes it.

    ``config`` is the parsed config; ``parameters`` is what the built model holds,
    ``checkpoint_parameters`` what the published checkpoint holds (they differ where a
    checkpoint keeps an untied head); ``provenance`` says where the config came from.
    """

    id: str
    config: Mapping[str, Any] = field(hash=False, compare=False, repr=False)
    config_key: str
    parameters: int | None
    checkpoint_parameters: int | None
    provenance: str

    @property
    def model_type(self) -> str:
        """The transformers model type (``'t5'``, ``'llama'``)."""
        return str(self.config["model_type"])


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """A fine-tuning method and the hyperparameters that the user changed from its defaults."""

    name: str
    settings: tuple[tuple[str, Any], ...] = ()

    def with_settings(self, **changes: Any) -> MethodSpec:
        """The same method with further hyperparameters set."""
        merged = {**dict(self.settings), **changes}
        return MethodSpec(name=self.name, settings=tuple(sorted(merged.items())))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """How the run trains.

    ``micro_batch_size`` is per GPU and forward pass; ``seq_len`` is the (source) length in
    tokens, ``target_len`` the decoder length of encoder-decoders (ignored elsewhere);
    ``dtype`` is the dtype of the base weights; ``amp`` runs forward and loss under autocast;
    ``padded`` says whether batches hold padding (and so an attention mask) or not.
    ``kbit_preparation`` is what is done to the rest of a quantized base: all of it in fp32
    (``peft``), norms alone in fp32 (``trl``), or nothing. ``loss`` is how a causal language
    model computes its loss (``simulator/losses.py``), ``transformers`` the version whose models
    run: 5, 4 (from 4.46 on) or up to 4.45 (``simulator/older.py``). ``loop`` says whether the
    outputs, logits among them, are held during backward, as in a plain loop, or let go of
    before, as transformers' Trainer does.
    """

    micro_batch_size: int = 1
    gradient_accumulation_steps: int = 1
    seq_len: int = 512
    target_len: int = 128
    padded: bool = False
    dtype: DType = "bf16"
    amp: bool = False
    quantization: Quantization = "none"
    optimizer: Optimizer = "adamw"
    gradient_checkpointing: Checkpointing = "none"
    attention: Attention = "sdpa"
    max_grad_norm: float = 1.0
    kbit_preparation: KbitPreparation = "peft"
    loss: Loss = "torch"
    loop: Loop = "plain"
    transformers: Transformers = "5"

    def __post_init__(self) -> None:
        """Raise UsageError on a value out of range."""
        for name in ("micro_batch_size", "gradient_accumulation_steps", "seq_len", "target_len"):
            value = getattr(self, name)
            _require(
                isinstance(value, int) and value >= 1,
                f"{name} is {value!r}; it must be a positive whole number",
            )
        _require_choice("dtype", self.dtype, get_args(DType))
        _require_choice("quantization", self.quantization, get_args(Quantization))
        _require_choice("optimizer", self.optimizer, get_args(Optimizer))
        _require_choice(
            "gradient_checkpointing", self.gradient_checkpointing, get_args(Checkpointing)
        )
        _require_choice("attention", self.attention, get_args(Attention))
        _require_choice("kbit_preparation", self.kbit_preparation, get_args(KbitPreparation))
        _require_choice("loss", self.loss, get_args(Loss))
        _require_choice("loop", self.loop, get_args(Loop))
        _require_choice("transformers", self.transformers, get_args(Transformers))
        _require(self.max_grad_norm >= 0, "max_grad_norm must be 0 (off) or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """One GPU. ``memory_bytes`` is nominal, ``usable_bytes`` what torch reports as total.

    ``peak_flops_per_s`` holds dense rates per dtype (tensor cores where the card has them),
    ``achievable`` the share of it that large matmuls reach (measured, else a stated default).
    """

    id: str
    name: str
    vendor: str
    architecture: str
    compute_capability: tuple[int, int] | None
    memory_bytes: int
    usable_bytes: int
    memory_bandwidth_bytes_per_s: int
    peak_flops_per_s: Mapping[str, float] = field(hash=False)
    achievable: Mapping[str, float] = field(hash=False)
    multiprocessor_count: int | None
    source: str
    confidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSpec:
    """What one hour of one GPU costs somewhere, on a date."""

    gpu_id: str
    provider: str
    instance: str
    gpu_count: int
    region: str
    usd_per_gpu_hour: float | None
    spot_usd_per_gpu_hour: float | None
    date: str
    source: str
    confidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One fine-tuning run on ``gpus`` cards of one kind.

    ``sharding`` is how several cards divide the data parallel run: ``ddp`` nothing, ``zero-1``
    optimizer states, ``zero-2`` also gradients, ``zero-3`` and ``fsdp`` (full shard) also weights.
    ``expandable_segments`` is that setting of PyTorch's allocator (``PYTORCH_ALLOC_CONF``): it
    changes what is reserved, and nothing of what is recorded.
    """

    model: ModelSpec
    method: MethodSpec
    training: TrainingSpec
    gpu: GpuSpec
    gpus: int = 1
    sharding: Sharding = "ddp"
    expandable_segments: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError when the number of GPUs is not positive or the sharding is unknown."""
        _require(self.gpus >= 1, f"gpus is {self.gpus}; it must be 1 or more")
        _require_choice("sharding", self.sharding, get_args(Sharding))

    def to_dict(self) -> dict[str, Any]:
        """The ``run`` object of the JSON contract."""
        return {
            "model": self.model.id,
            "method": self.method.name,
            "method_config": dict(self.method.settings),
            "training": asdict(self.training),
            "gpu": self.gpu.id,
            "gpus": self.gpus,
            "sharding": self.sharding,
            "expandable_segments": self.expandable_segments,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be learned, and from how much. None is what the user did not say.

    ``examples`` is one epoch's; ``tokens_per_example`` their mean, of source and target together,
    of which ``learned_per_example`` carry a loss (the completion). ``steps`` are optimizer steps
    in all, in place of ``epochs``.
    """

    task: Task | None = None
    examples: int | None = None
    tokens_per_example: float | None = None
    learned_per_example: float | None = None
    epochs: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        """Raise UsageError on a value out of range, or on both epochs and steps."""
        if self.task is not None:
            _require_choice("task", self.task, get_args(Task))
        for name in ("examples", "tokens_per_example", "learned_per_example", "epochs", "steps"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} is {value!r}; it must be above 0")
        _require(
            self.epochs is None or self.steps is None,
            "epochs and steps are both given; keep one of them",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What the user can spend: size of the job, limits, accepted risk. None means no limit."""

    total_tokens: int | None = None
    max_hours: float | None = None
    max_usd: float | None = None
    max_memory_bytes: int | None = None
    max_oom_risk: float = 0.02
