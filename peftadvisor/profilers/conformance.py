"""Hold a method to what it promises, on tiny real models: counts, training, files, merging, memory.

    python -m peftadvisor.profilers.conformance [NAME ...]

The same checks for our methods and for those of other packages.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from peftadvisor.errors import UnsupportedError, UsageError
from peftadvisor.methods import find_method, method_names
from peftadvisor.methods.attached import Attached, attach
from peftadvisor.methods.base import Method
from peftadvisor.methods.sites import layout_of
from peftadvisor.profilers.allocations import recorded_allocations
from peftadvisor.profilers.declarations import broken_declarations
from peftadvisor.profilers.workload import Workload
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.build import build_model
from peftadvisor.simulator.optimizers import make_optimizer
from peftadvisor.simulator.step import prepare, trace_run
from peftadvisor.simulator.trace import Trace, held_bytes
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

PEAK_TOLERANCE = 0.001
LOGIT_TOLERANCE = 1e-4  # of the largest logit; fp32 sums in another order
STEPS, FEWEST_STEPS = 30, 10
RATES = (1e-3, 1e-2, 1e-1, 1.0)
LEAST_FALL = 0.02
TRAINING = TrainingSpec(micro_batch_size=4, seq_len=64, target_len=32, dtype="fp32")

_SIZES = {"vocab_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "t5": {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": 64,
        "d_ff": 256,
        "d_kv": 16,
        "num_heads": 4,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "vocab_size": 512,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "is_encoder_decoder": True,
    },
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        **_SIZES,
    },
    "bert": {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "hidden_size": 64,
        "intermediate_size": 256,
        "max_position_embeddings": 128,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        **_SIZES,
    },
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one method did on one model; ``failures`` is empty where it kept every promise.

    ``refused`` says why the model cannot take the method; then nothing else is known.
    """

    method: str
    model: str
    trained: int = 0
    loss_fall: float = 0.0
    peak_error: float = 0.0
    merged: str = "-"
    refused: str = ""
    failures: tuple[str, ...] = ()


def check(method: Method, model: str) -> Outcome:
    """All checks of one method on one of MODELS."""
    run = ModelRun(method, model)
    try:
        run.attached()
    except UnsupportedError as error:
        return Outcome(method.name, model, refused=str(error))
    trained, counts = run.counts()
    fall, stray = run.training()
    off = run.peak_error()
    merged = run.merging() if method.merge else "-"
    failures = [*counts, *stray, *run.files(), *broken_declarations(method, run.simulated)]
    if fall < LEAST_FALL:
        failures.append(f"loss fell by {fall:.1%} in {STEPS} steps")
    if abs(off) > PEAK_TOLERANCE:
        failures.append(f"simulated peak is {off:+.2%} off")
    if merged not in ("-", "yes"):
        failures.append(f"merged logits differ by {merged}")
    return Outcome(method.name, model, trained, fall, off, merged, "", tuple(failures))


class ModelRun:
    """One method on one tiny model, on real CPU tensors with random weights, and simulated."""

    def __init__(self, method: Method, model: str) -> None:
        self.method = method
        self.config = MODELS[model]
        self.settings = method.settings(MethodSpec(name=method.name))

    def base(self) -> Any:
        """The same random model at every call."""
        torch.manual_seed(0)
        return build_model(self.spec(), TRAINING, "cpu")

    def attached(self, seed: int = 1) -> Attached:
        """The method attached to it, its own random start by ``seed``."""
        model = self.base()
        torch.manual_seed(seed)
        return attach(self.method, model, self.settings)

    def batch(self) -> dict[str, torch.Tensor]:
        """One fixed batch of random tokens, of four kinds: what comes is soon learned."""
        t = TRAINING
        torch.manual_seed(2)
        ids = torch.randint(2, 6, (t.micro_batch_size, t.seq_len))
        kind = self.config["model_type"]
        labels = {"t5": ids[:, : t.target_len], "llama": ids, "bert": ids[:, 0] % 2}[kind]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels.clone()}

    def counts(self) -> tuple[int, list[str]]:
        """Trained parameters, and where formula, real module and simulation disagree."""
        formula = self.method.trainable(layout_of(self.base()), self.settings)
        real = self.attached().trained
        simulated = sum(trained for _, trained, _ in self.trace.parameters_by_tag.values())
        if formula == real == simulated:
            return real, []
        return real, [f"trained: formula {formula}, attached {real}, simulated {simulated}"]

    def training(self) -> tuple[float, list[str]]:
        """How far the loss falls, at the first of a few learning rates at which it does.

        Also what changed that should not have.
        """
        fall, stray = 0.0, []
        for rate in RATES:
            attached = self.attached()
            named = attached.model.named_parameters()
            frozen = {n: p.clone() for n, p in named if not p.requires_grad}
            losses = self.train(attached, rate)
            fall = 1 - losses[-1] / losses[0] if np.isfinite(losses[-1]) else -1.0
            now = dict(attached.model.named_parameters())
            stray = [f"{n} changed" for n, p in frozen.items() if not torch.equal(p, now[n])][:1]
            if stray or fall >= LEAST_FALL:
                break
        return fall, stray

    def train(self, attached: Attached, rate: float, steps: int = STEPS) -> list[float]:
        """Losses of a few steps on one batch, of no more than it takes where all are alike."""
        optimizer = self.optimizer(attached)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = []
        for step in range(steps):
            loss = attached.model(**self.batch()).loss
            loss.backward()
            if self.method.before_step:
                self.method.before_step(attached.model, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            fell = losses[-1] <= (1 - LEAST_FALL) * losses[0]
            if fell and step + 1 >= FEWEST_STEPS and not self.method.before_step:
                break
        return losses

    def optimizer(self, attached: Attached) -> Any:
        """The method's own optimizer, or AdamW."""
        make = partial(make_optimizer, TRAINING)
        if self.method.optimizer:
            return self.method.optimizer(attached.model, make)
        return make([p for p in attached.model.parameters() if p.requires_grad])

    def files(self) -> Iterator[str]:
        """Complaints if a saved and loaded method computes anything else."""
        first = self.attached()
        self.train(first, 1e-3, steps=2)
        second = self.attached(seed=7)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "adapter.safetensors"
            first.save(path)
            second.load(path)
        apart = self.distance(first.model, second.model)
        if apart != 0:
            yield f"logits differ by {apart:.1e} after saving and loading"

    def merging(self) -> str:
        """Whether the merged model computes the same: yes, or the largest difference."""
        attached = self.attached()
        self.train(attached, 1e-3, steps=2)
        before = self.logits(attached.model)
        merged = attached.merge()
        apart = float((self.logits(merged) - before).abs().max() / before.abs().max())
        return "yes" if apart <= LOGIT_TOLERANCE else f"{apart:.1e}"

    def distance(self, one: nn.Module, other: nn.Module) -> float:
        """Largest difference of two models' logits."""
        return float((self.logits(one) - self.logits(other)).abs().max())

    def logits(self, model: nn.Module) -> torch.Tensor:
        """The model's logits of the batch, dropout off."""
        model.eval()
        with torch.no_grad():
            return model(**self.batch()).logits

    def spec(self) -> ModelSpec:
        """The model as the simulator takes it."""
        return ModelSpec(
            id=str(self.config["model_type"]),
            config=self.config,
            config_key="tiny",
            parameters=None,
            checkpoint_parameters=None,
            provenance="made for a check",
        )

    @cached_property
    def trace(self) -> Trace:
        """The same run, simulated."""
        chosen = MethodSpec(name=self.method.name)
        return trace_run(prepare(self.spec(), chosen, TRAINING), TRAINING, Device(None))

    def simulated(self, **settings: Any) -> Trace:
        """The same run with some settings changed, simulated."""
        chosen = MethodSpec(name=self.method.name).with_settings(**settings)
        if self.method.settings(chosen) == self.settings:
            return self.trace
        return trace_run(prepare(self.spec(), chosen, TRAINING), TRAINING, Device(None))

    def peak_error(self) -> float:
        """Simulated peak over the CPU profiler's record of every allocation, minus 1."""
        workload = Workload(self.spec(), MethodSpec(name=self.method.name), TRAINING)
        return int(held_bytes(self.trace).max()) / recorded_allocations(workload, 2).peak_bytes - 1


def main(names: list[str]) -> int:
    """Print one line per method and model; 1 if any broke a promise."""
    broken = 0
    for name in names or method_names():
        for model in MODELS:
            try:
                outcome = check(find_method(name), model)
            except UsageError as error:
                outcome = Outcome(name, model, refused=str(error))
            except Exception as error:  # a method of anybody may raise anything
                cause = f"raised {type(error).__name__}: {error}"
                outcome = Outcome(name, model, failures=(" ".join(cause.split())[:200],))
            broken += bool(outcome.failures)
            print(line(outcome), flush=True)
    return 1 if broken else 0


def line(outcome: Outcome) -> str:
    """One row of the table."""
    start = f"{outcome.method:20} {outcome.model:6}"
    if outcome.refused:
        return f"{start} refused: {outcome.refused[:90]}"
    verdict = "; ".join(outcome.failures) or "ok"
    return (
        f"{start} trained {outcome.trained:>9,}  loss -{outcome.loss_fall:6.1%}  "
        f"peak {outcome.peak_error:+.3%}  merged {outcome.merged:4} {verdict}"
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]))
