"""A Trainer's training watched by a callback: by a real Trainer, and by its events by hand."""

from __future__ import annotations

import gc
import itertools
import mmap
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import peftadvisor  # noqa: E402
from peftadvisor.errors import UsageError  # noqa: E402
from peftadvisor.profilers.conformance import MODELS  # noqa: E402
from peftadvisor.profilers.loaded import method_of, model_of, training_of  # noqa: E402
from peftadvisor.profilers.meters import CudaMeter, HostMeter  # noqa: E402
from peftadvisor.profilers.store import open_store  # noqa: E402
from peftadvisor.profilers.trainer import ProfileCallback, watched_profile  # noqa: E402
from peftadvisor.profilers.watching import Fed, Watch  # noqa: E402
from peftadvisor.specs import MethodSpec, TrainingSpec  # noqa: E402


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**MODELS["llama"])
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def sgd(model: Any) -> Any:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def hooks(model: Any, optimizer: Any) -> int:
    return (
        len(model._forward_hooks)
        + len(model._forward_pre_hooks)
        + len(optimizer._optimizer_step_pre_hooks)
        + len(optimizer._optimizer_step_post_hooks)
    )


def arguments(**changes: Any) -> Any:
    """What of ``TrainingArguments`` is read."""
    usual = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "optim": "sgd",
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
        "gradient_checkpointing_kwargs": None,
        "max_grad_norm": 1.0,
        "n_gpu": 0,
    }
    return SimpleNamespace(**{**usual, **changes})


def train(model: Any, optimizer: Any, lengths: list[int], micro_batches: int = 2) -> None:
    """A step for each length, 2 samples in each micro-batch."""
    for length in lengths:
        for _ in range(micro_batches):
            ids = torch.ones(2, length, dtype=torch.long)
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def begun(callback: ProfileCallback, model: Any, optimizer: Any, **changes: Any) -> None:
    callback.on_train_begin(arguments(**changes), None, None, model=model, optimizer=optimizer)


# Driven by hand.


def test_events_by_hand() -> None:
    model = llama()
    optimizer = sgd(model)
    callback = ProfileCallback(warmup=1)
    begun(callback, model, optimizer)
    assert hooks(model, optimizer) == 4
    train(model, optimizer, [8, 16, 4])
    callback.on_train_end(arguments(), None, None)
    assert hooks(model, optimizer) == 0
    train(model, optimizer, [4])
    made = callback.profile()
    assert (made.engine, made.device, made.model) == ("measure", "cpu", "llama")
    assert made.method == MethodSpec(name="full")
    t = made.training
    assert (t.micro_batch_size, t.gradient_accumulation_steps, t.seq_len) == (2, 2, 16)
    assert (t.optimizer, t.dtype, t.amp, t.attention) == ("sgd", "fp32", False, "sdpa")
    assert made.parameters.trainable == sum(p.numel() for p in model.parameters())
    assert made.phase_flops == {}
    assert made.time is not None
    assert made.time.steps == 2
    assert set(made.time.phase_s) == {"forward", "backward", "optimizer"}
    assert set(made.memory.phase_peak_bytes) == {"load", "forward", "backward", "optimizer"}
    assert made.memory.phase_peak_bytes["load"] == made.memory.static_bytes
    assert made.memory.allocated_peak_bytes >= made.memory.static_bytes
    assert made.memory.host_peak_bytes is not None
    assert made.memory.host_peak_bytes > made.memory.allocated_peak_bytes
    assert "resident set" in made.provenance.recording


def test_throughput_counts_what_was_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that goes on by one when it is read: six reads, 5 s, in a step of two micro-batches.
    monkeypatch.setattr("time.perf_counter", map(float, itertools.count()).__next__)
    model = llama()
    with Watch(model, sgd(model), warmup=1, meter=HostMeter()) as watch:
        train(model, watch.optimizer, [32, 8, 4])
        model.eval()
        model(input_ids=torch.ones(9, 64, dtype=torch.long))  # an evaluation is no training
        model.train()
    assert watch.fed == Fed(samples=8, tokens=4 * (8 + 4), longest=32)
    made = watched_profile(watch, model_of(model), MethodSpec(name="full"), TrainingSpec())
    assert made.time is not None
    assert made.time.step_s == 5.0
    assert made.time.tokens_per_s == pytest.approx(48 / 10)
    assert made.time.samples_per_s == pytest.approx(8 / 10)


@pytest.mark.parametrize("how", ["close", "with", "collected", "again"])
def test_no_hook_is_left_when_training_raises(how: str) -> None:
    model = llama()
    optimizer = sgd(model)
    callback = ProfileCallback()

    def fail() -> None:
        begun(callback, model, optimizer)
        train(model, optimizer, [4])
        model(input_ids=torch.full((1, 4), 10**6))  # no such token

    if how == "with":
        with pytest.raises(IndexError), callback:
            fail()
    else:
        with pytest.raises(IndexError):
            fail()
        assert hooks(model, optimizer) == 4
    if how == "close":
        callback.close()
        callback.close()
    elif how == "collected":
        gone = weakref.ref(callback)
        del callback, fail
        gc.collect()
        assert gone() is None
    elif how == "again":
        other = llama()
        begun(callback, other, sgd(other))
        callback.close()
    assert hooks(model, optimizer) == 0


def test_what_cannot_be_watched_is_said() -> None:
    model = llama()
    callback = ProfileCallback()
    with pytest.raises(UsageError, match="no training was watched"):
        callback.profile()
    with pytest.raises(UsageError, match="a model and a torch optimizer"):
        begun(callback, model, object())
    with pytest.raises(UsageError, match="one GPU per process; start with torchrun"):
        begun(callback, model, sgd(model), n_gpu=2)
    begun(callback, model, sgd(model))
    with pytest.raises(UsageError, match="only 0 steps were watched"):
        callback.profile()
    callback.close()
    bare = Watch(model, sgd(model))
    with pytest.raises(UsageError, match="read no memory; make it with a meter"):
        watched_profile(bare, model_of(model), MethodSpec(name="full"), TrainingSpec())


def test_settings_without_a_name_are_refused() -> None:
    with pytest.raises(UsageError, match=r"optimizer lion_32bit has no name here; pass training="):
        training_of(arguments(optim="lion_32bit"), llama(), Fed())
    with pytest.raises(UsageError, match=r"the dtype torch.float64 has no name here"):
        training_of(arguments(), llama().double(), Fed())


def test_settings_are_read_off() -> None:
    args = arguments(
        optim="adamw_torch", bf16=True, gradient_checkpointing=True, max_grad_norm=0, packing=True
    )
    found = training_of(args, llama(), Fed(longest=33))
    assert (found.optimizer, found.amp, found.seq_len) == ("adamw", True, 33)
    assert (found.gradient_checkpointing, found.max_grad_norm) == ("non-reentrant", 0.0)
    assert found.padded is False


def test_the_method_is_read_off() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=4, task_type="CAUSAL_LM"))
    assert method_of(model) == MethodSpec(name="lora", settings=(("rank", 4),))
    model = llama()
    model.lm_head.requires_grad_(False)
    assert method_of(model) == MethodSpec(name="own")


def test_a_profile_is_kept(tmp_path: Path) -> None:
    model = llama()
    optimizer = sgd(model)
    callback = ProfileCallback(warmup=0)
    begun(callback, model, optimizer)
    train(model, optimizer, [8])
    callback.close()
    callback.keep(callback.profile(), str(tmp_path / "profiles.db"))
    with open_store(str(tmp_path / "profiles.db")) as store:
        (record,) = store.records()
    assert (record.status, record.run["method"]) == ("done", "full")
    assert record.profile is not None
    assert record.profile["time"]["steps"] == 1


class FakeAllocator:
    """``torch.cuda`` with the peaks of a program: each reset begins the next one."""

    def __init__(self, *peaks: tuple[int, int]) -> None:
        self.peaks = iter(peaks)
        self.now = (0, 0)

    def reset_peak_memory_stats(self, index: int) -> None:
        self.now = next(self.peaks)

    def max_memory_allocated(self, index: int) -> int:
        return self.now[0]

    def max_memory_reserved(self, index: int) -> int:
        return self.now[1]


def test_phases_of_a_gpu_are_told_apart() -> None:
    # Reset before training, then at each change of phase: load; forward, backward, optimizer.
    cuda = FakeAllocator((100, 128), (150, 256), (300, 512), (200, 256), (0, 256))
    model = torch.nn.Linear(4, 4)
    meter = CudaMeter(0, cuda)
    with Watch(model, sgd(model), warmup=0, meter=meter) as watch:
        model(torch.ones(2, 4)).sum().backward()
        watch.optimizer.step()
    assert watch.peak_bytes == {"load": 100, "forward": 150, "backward": 300, "optimizer": 200}
    assert meter.reserved_peak_bytes == 512


def test_growth_of_the_host_is_seen() -> None:
    gc.collect()  # what earlier tests left would be given back in between
    meter = HostMeter()
    before, size = meter.peak_bytes(), 64 * 1024**2
    held = mmap.mmap(-1, size)  # pages of the system: an allocator may have old ones at hand
    for page in range(0, size, mmap.PAGESIZE):
        held[page] = 1
    assert meter.peak_bytes() - before == pytest.approx(size, rel=0.2)
    held.close()
    meter.start()
    assert meter.peak_bytes() < before + 16 * 1024**2


def test_it_is_offered_by_name() -> None:
    assert peftadvisor.ProfileCallback is ProfileCallback
    assert peftadvisor.Watch is Watch


# Driven by a real Trainer.


class Texts(torch.utils.data.Dataset):  # type: ignore[misc]
    """Sixteen texts of 12 tokens; the one with number ``broken`` holds a token that is none."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 16

    def __getitem__(self, number: int) -> dict[str, Any]:
        ids = torch.full((12,), 10**6 if number == self.broken else 5)
        return {"input_ids": ids, "labels": torch.full((12,), 5)}


def real_trainer(folder: Path, data: Any, callback: Any, **changes: Any) -> Any:
    pytest.importorskip("accelerate")
    args = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=4,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **changes,
    )
    return transformers.Trainer(
        model=llama(), args=args, train_dataset=data, eval_dataset=data, callbacks=[callback]
    )


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_is_watched(tmp_path: Path) -> None:
    callback = ProfileCallback()
    trainer = real_trainer(tmp_path, Texts(), callback, eval_strategy="steps", eval_steps=1)
    trainer.train()
    optimizer = trainer.optimizer.optimizer
    assert hooks(trainer.model, optimizer) == 0
    assert callback.watch is not None
    assert callback.watch.steps == 4
    # Two steps after the warm-up, two micro-batches of 2 × 12 in each; evaluations are left out.
    assert callback.watch.fed == Fed(samples=8, tokens=96, longest=12)
    made = callback.profile()
    assert made.time is not None
    assert made.time.steps == 2
    assert made.time.step_s > sum(made.time.phase_s.values()) * 0.5
    assert made.training.optimizer in ("adamw", "adamw-fused")
    assert made.training.seq_len == 12


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with ProfileCallback() as callback:
        trainer = real_trainer(tmp_path, Texts(broken=3), callback)
        with pytest.raises(IndexError):
            trainer.train()
    assert hooks(trainer.model, trainer.optimizer.optimizer) == 0
