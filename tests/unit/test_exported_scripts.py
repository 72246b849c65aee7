"""The exported script: it trains, and trains exactly what was estimated."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

import peftadvisor.integrations.exports.peft as peft_format  # noqa: E402
from peftadvisor.advisor.estimating import implied_training  # noqa: E402
from peftadvisor.data.models import find_model, model_ids  # noqa: E402
from peftadvisor.data.query_value import query_value  # noqa: E402
from peftadvisor.integrations.exports import Export, generates_text  # noqa: E402
from peftadvisor.integrations.exports.lora import REMOTE  # noqa: E402
from peftadvisor.integrations.exports.peft_methods import METHODS  # noqa: E402
from peftadvisor.methods import find_method  # noqa: E402
from peftadvisor.methods.peft_backed import known_query_value, query_value_targets  # noqa: E402
from peftadvisor.methods.sites import layout_of  # noqa: E402
from peftadvisor.profilers.loaded import training_of  # noqa: E402
from peftadvisor.profilers.watching import Fed  # noqa: E402
from peftadvisor.simulator.batches import choose_class  # noqa: E402
from peftadvisor.simulator.build import build_model  # noqa: E402
from peftadvisor.simulator.depth import at_depth, completed, depth_fields  # noqa: E402
from peftadvisor.specs import Job, MethodSpec, RunSpec, TrainingSpec  # noqa: E402
from tests.export_cases import (  # noqa: E402
    TINY,
    advice,
    estimate_of,
    run_of,
    save_data,
    save_model,
    tiny_model,
)

STEPS = 3
ADVICE = advice(learning_rate=0.02, schedule="cosine", warmup_ratio=0.1, weight_decay=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return {kind: save_model(kind, tmp_path_factory.mktemp(kind)) for kind in TINY}


def script(run: RunSpec, job: Job | None = None) -> str:
    made = date(2026, 11, 28)
    return peft_format.write(
        Export(estimate=estimate_of(run), advised=ADVICE, job=job or Job(), made=made)
    )


def tiny_run(method: str, kind: str = "llama", **training: Any) -> RunSpec:
    usual = {"micro_batch_size": 2, "gradient_accumulation_steps": 2, "seq_len": 16}
    run = run_of(method, model=tiny_model(kind), **{**usual, "target_len": 4, **training})
    return replace(run, training=implied_training(method, run.training))


def loaded(run: RunSpec) -> dict[str, Any]:
    """The names that the script defines."""
    code: dict[str, Any] = {"__name__": "script"}
    exec(compile(script(run), "train.py", "exec"), code)
    return code


@contextlib.contextmanager
def command_line(*arguments: str) -> Iterator[io.StringIO]:
    """``sys.argv``, without warnings, which libraries emit and pytest would raise; what is said."""
    before = sys.argv
    sys.argv = ["train.py", *arguments]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as said:
            warnings.simplefilter("ignore")
            yield said
    finally:
        sys.argv = before


# --- training -------------------------------------------------------------------------------------


def saved(output: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    name = "adapter_model.safetensors"
    found: dict[str, Any] = load_file(output / name)
    return found


def moved(method: str, tensors: Mapping[str, Any]) -> bool:
    """Whether what starts as zeros or ones is there no more."""
    start = {"ia3": ("ia3_l", 1.0), "ln-tuning": ("norm", 1.0)}.get(method, ("lora_B", 0.0))
    chosen = [tensor for name, tensor in tensors.items() if start[0] in name]
    return bool(chosen) and all((tensor != start[1]).any() for tensor in chosen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "training"),
    [
        ("lora", {}),
        ("lora-all", {"gradient_checkpointing": "non-reentrant"}),  # QLoRA without its 4 bits
        ("ia3", {"padded": True}),
        ("prompt-tuning", {}),
        ("ln-tuning", {"optimizer": "adafactor"}),
        ("dora", {"gradient_checkpointing": "reentrant"}),
    ],
)
def test_scripts_train(
    method: str,
    training: dict[str, Any],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The first as a user runs it; the others in this process, which has the libraries loaded."""
    (tmp_path / "train.py").write_text(script(tiny_run(method, **training)), encoding="utf-8")
    data = save_data("llama", tmp_path / "data.jsonl")
    options = ["--model", folder, "--data", data, "--output", "out", "--max-steps", STEPS]
    monkeypatch.chdir(tmp_path)
    if method == "lora":
        command = [sys.executable, "train.py", *map(str, options)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True)
        printed = capfd.readouterr().out
    else:
        with command_line(*map(str, options)) as said:
            runpy.run_path("train.py", run_name="__main__")
        printed = said.getvalue()
    assert "'train_loss'" in printed
    assert "'train_loss': 'nan'" not in printed
    assert (tmp_path / "out" / f"checkpoint-{STEPS}").is_dir()
    assert (tmp_path / "out" / "tokenizer.json").exists()
    tensors = saved(tmp_path / "out")
    if method == "prompt-tuning":
        assert [tuple(t.shape) for t in tensors.values()] == [(20, 64)]
    else:
        assert moved(method, tensors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kind", "training"),
    [
        ("full", "llama", {"optimizer": "sgd"}),
        ("attention-tuning", "llama", {"optimizer": "adamw-loop"}),
        ("lora-plus", "llama", {}),
        ("lora-fa", "llama", {}),
        ("adalora", "llama", {}),
        ("pissa", "llama", {}),
        ("multitask-prompt", "llama", {}),
        ("poly", "llama", {}),
        ("prefix-tuning", "llama", {}),
        ("psoft", "llama", {}),
        ("lora", "t5", {"gradient_checkpointing": "non-reentrant"}),
        ("bitfit", "bert", {"dtype": "fp32"}),
        ("warp", "bert", {"padded": True}),
        ("lora", "masked-bert", {}),
    ],
)
def test_what_scripts_do_besides(
    method: str,
    kind: str,
    training: dict[str, Any],
    folders: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    """Optimizers, callbacks, tasks: the script in this process, which knows the libraries."""
    path = tmp_path / "train.py"
    path.write_text(script(tiny_run(method, kind, **training), Job(steps=STEPS)), encoding="utf-8")
    data = save_data(kind, tmp_path / "data.jsonl")
    names = {"--model": folders[kind], "--data": data, "--output": tmp_path / "out"}
    with command_line(*(str(part) for pair in names.items() for part in pair)):
        runpy.run_path(str(path), run_name="__main__")
    assert (tmp_path / "out" / f"checkpoint-{STEPS}").is_dir()  # as many as the job has


def test_packed_examples(folder: Path, tmp_path: Path) -> None:
    code = loaded(tiny_run("lora"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids, labels = code["encode"]('{"prompt": "the cat", "completion": "sat"}', tokenizer)
    # pad 0, end 1, unknown 2, then the words in their order
    assert (ids, labels) == ([3, 4, 5, 1], [-100, -100, 5, 1])
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "the cat"}\n' * 11, encoding="utf-8")
    blocks = code["read_data"](path, tokenizer)
    # 11 times the, cat, end: 33 tokens make two blocks of 16
    assert [len(block["input_ids"]) for block in blocks] == [16, 16]
    assert blocks[1]["input_ids"][:3] == [4, 1, 3]
    path.write_text('{"text": "the cat"}\n', encoding="utf-8")
    with pytest.raises(SystemExit, match="holds 3 tokens, fewer than one block of 16"):
        code["read_data"](path, tokenizer)


def test_padded_examples(folder: Path, tmp_path: Path) -> None:
    code = loaded(tiny_run("lora", padded=True, seq_len=4))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "the cat"}\n{"text": "the cat sat on a mat"}\n', encoding="utf-8")
    assert code["read_data"](path, tokenizer) == [
        {"input_ids": [3, 4, 1, 0], "attention_mask": [1, 1, 1, 0], "labels": [3, 4, 1, -100]},
        {"input_ids": [3, 4, 5, 6], "attention_mask": [1, 1, 1, 1], "labels": [3, 4, 5, 6]},
    ]


# --- what is trained ------------------------------------------------------------------------------

CHANGED: Mapping[str, dict[str, Any]] = {
    "cpt": {"token_ids": (1, 2, 3, 4)},
    "fourierft": {"frequencies": 50},
    "pvera": {"rank": 16},
    "vera": {"rank": 16},
    "waveft": {"frequencies": 50},
}
OTHER_MODELS = {"bitfit": "bert", "warp": "bert", "cross-attention-tuning": "t5"}


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(METHODS - {"x-lora"}))
def test_scripts_train_what_was_estimated(method: str, folders: Mapping[str, Path]) -> None:
    """As many parameters as the formula of the method says, on a model loaded from disk."""
    kind = OTHER_MODELS.get(method, "llama")
    run = tiny_run(method, kind)
    spec = MethodSpec(name=method).with_settings(**CHANGED.get(method, {}))
    run = replace(run, method=spec, training=replace(run.training, quantization="none"))
    code = loaded(run)
    code["replace_lora_weights_loftq"] = lambda model: None  # needs a GPU
    with command_line():
        model = code["load_model"](str(folders[kind]))
        plain = build_model(run.model, TrainingSpec())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    chosen = find_method(method)
    assert trained == chosen.trainable(layout_of(plain), chosen.settings(spec))


# --- how it trains --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        {},
        {"padded": True, "max_grad_norm": 0.0},
        {"gradient_checkpointing": "non-reentrant", "optimizer": "adamw-fused"},
        {"gradient_checkpointing": "reentrant", "attention": "eager", "optimizer": "sgd"},
        {"dtype": "fp32", "optimizer": "adafactor", "micro_batch_size": 3},
        {"dtype": "fp16", "gradient_accumulation_steps": 5},
    ],
)
def test_arguments_read_back_as_estimated(
    training: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    """What the Trainer is given says the same as the run, by what reads it for profiles."""
    run = tiny_run("lora", **{**training, "loop": "trainer"})
    given: dict[str, Any] = {}
    code = loaded(run)
    code["Trainer"] = lambda **named: given.update(named) or MagicMock()
    data = save_data("llama", tmp_path / "data.jsonl")
    with command_line("--model", str(folder), "--data", str(data), "--output", str(tmp_path)):
        code["main"]()
    args, model = given["args"], given["model"]
    read = training_of(args, model, Fed(samples=1, tokens=1, longest=run.training.seq_len))
    assert replace(read, padded=run.training.padded, loop="trainer", target_len=4) == run.training
    assert args.learning_rate == 0.02
    assert (args.lr_scheduler_type, args.warmup_steps) == ("cosine", 0.1)
    assert not model.config.use_cache


# --- source ---------------------------------------------------------------------------------------


def test_quantized_bases() -> None:
    source = script(tiny_run("qlora"))
    assert "bnb_4bit_use_double_quant=True" in source
    assert "prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)" in source
    source = script(tiny_run("qlora", quantization="nf4", kbit_preparation="none"))
    assert "bnb_4bit_use_double_quant=False" in source
    assert "prepare_model_for_kbit_training" not in source
    assert "module.to(torch.bfloat16)" in script(tiny_run("qlora", kbit_preparation="trl"))
    source = script(tiny_run("lora", quantization="gptq"))
    assert "BitsAndBytesConfig" not in source
    words = " ".join(source.split())
    assert 'required=True, help="a GPTQ checkpoint of tiny/llama"' in words
    source = script(tiny_run("lora", "bert", quantization="int8"))
    assert 'llm_int8_skip_modules=["score", "classifier"]' in source


def test_losses_and_cards() -> None:
    source = script(tiny_run("lora", loss="fused-linear", transformers="4"))
    assert '"fused_linear_cross_entropy": True' in source
    assert "torch_dtype=torch.bfloat16" in source
    assert "warmup_ratio=0.1" in source
    run = tiny_run("qlora")
    assert "ddp_find_unused_parameters=False" in script(replace(run, gpus=2))
    source = script(replace(run, gpus=2, sharding="fsdp"))
    assert "fsdp=True" in source
    assert "bnb_4bit_quant_storage=torch.bfloat16" in source
    assert "device_map" not in source
    assert '"zero_optimization": {"stage": 3}' in script(replace(run, gpus=2, sharding="zero-3"))


def test_starts_that_the_meta_device_hides() -> None:
    assert 'init_lora_weights="olora"' in script(tiny_run("olora"))
    assert "total_step=30" in script(tiny_run("adalora"), Job(steps=30))
    assert "total_step is to be set" in script(tiny_run("adalora"))
    galore = script(tiny_run("galore"))
    assert 'optim_args="rank=128,update_proj_gap=200,scale=0.25"' in galore
    names = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
    assert f'optim_target_modules=r".*\\.({names})"' in galore


def test_towers_are_loaded_and_left_alone() -> None:
    source = script(run_of("lora", model="google/gemma-3-4b-it"))
    assert "AutoModelForImageTextToText.from_pretrained" in source
    assert "model.config.get_text_config().use_cache = False" in source
    assert r'target_modules=r"model\.language_model\.(.*\.)?(q_proj|v_proj)"' in source


def test_tasks_that_are_not_text() -> None:
    from peftadvisor.errors import UsageError

    for name, task in (("google/vit-base-patch16-224", "image"), ("openai/whisper-base", "speech")):
        with pytest.raises(UsageError, match=f"trains for {task}"):
            script(run_of("lora", model=name))


# --- names on file --------------------------------------------------------------------------------


@pytest.mark.slow
def test_query_and_value_on_file() -> None:
    """The names in the catalog are those that the methods find in the modules."""
    seen = set()
    for name in model_ids():
        model = find_model(name)
        if model.model_type in seen or not generates_text(model.config):
            continue
        seen.add(model.model_type)
        on_file = query_value(model.model_type)
        assert (on_file is None) == (model.model_type in REMOTE), model.model_type
        if on_file is None:
            continue
        known = known_query_value(model.model_type)
        if known is None:
            layers = depth_fields(model.config)
            few = {field: min(count, 8) for field, count in layers.items()}
            small = replace(model, config=at_depth(model.config, few))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                known = query_value_targets(build_model(small, TrainingSpec()))
        assert known == (on_file.pattern or list(on_file.names)), model.model_type


@pytest.mark.slow
def test_which_models_generate_text() -> None:
    """As the classes say that models are built of."""
    seen = set()
    for name in model_ids():
        model = find_model(name)
        kind = (model.model_type, str(model.config.get("architectures")))
        if kind in seen or model.model_type in REMOTE:
            continue
        seen.add(kind)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = completed(model.config)
            _, task = choose_class(config, (config.architectures or [None])[0])
        assert generates_text(model.config) == (task.name in ("causal-lm", "multimodal-lm")), name
