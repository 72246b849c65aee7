"""Exports: what each format says, what it refuses, and that nothing breaks out of it."""

from __future__ import annotations

import ast
import csv
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from peftadvisor.advisor.advised import Advised
from peftadvisor.cli import estimate as estimate_cli
from peftadvisor.cli import inputs
from peftadvisor.data.gpus import custom_gpu, find_gpu, load_gpus
from peftadvisor.data.models import find_model, max_positions, model_ids
from peftadvisor.errors import UsageError
from peftadvisor.integrations import lookup
from peftadvisor.integrations.exports import FORMATS, Export, estimate_command, export
from peftadvisor.integrations.exports.torchtune_models import find_family
from peftadvisor.methods import find_method, method_names
from peftadvisor.specs import (
    Attention,
    Checkpointing,
    DType,
    Job,
    KbitPreparation,
    Loop,
    Loss,
    MethodSpec,
    ModelSpec,
    Optimizer,
    Quantization,
    RunSpec,
    Sharding,
    TrainingSpec,
    Transformers,
)
from tests.export_cases import advice, estimate_of, run_of

YAML = ("axolotl", "llamafactory", "torchtune", "trl")
ADVICE = advice(learning_rate=2e-4, schedule="cosine", warmup_ratio=0.03, epochs=3)


def text_of(fmt: str, run: RunSpec, job: Job | None = None, advised: Any = ADVICE) -> str:
    """The export on a fixed day, without the checks before."""
    made = date(2026, 11, 28)
    return FORMATS[fmt].write(
        Export(estimate=estimate_of(run), advised=advised, job=job or Job(), made=made)
    )


def values_of(fmt: str, run: RunSpec, job: Job | None = None) -> dict[str, Any]:
    loaded = yaml.safe_load(text_of(fmt, run, job))
    assert isinstance(loaded, dict)
    return loaded


# --- one run in every format ----------------------------------------------------------------------

RUN = run_of(
    "lora",
    micro_batch_size=4,
    gradient_accumulation_steps=2,
    gradient_checkpointing="non-reentrant",
    loop="trainer",
)


def test_header() -> None:
    lines = text_of("axolotl", replace(RUN, gpus=2)).splitlines()
    head = lines[: lines.index("")]
    command = "peftadvisor estimate --model meta-llama/Llama-3.2-1B --gpu l40s --gpus 2 "
    options = "--method lora --seq-len 512 --batch-size 4 --grad-accum 2 "
    rest = "--gradient-checkpointing non-reentrant"
    assert head == [
        "# LoRA on query and value projections: meta-llama/Llama-3.2-1B",
        f"# Written by peftadvisor {version('peftadvisor')} on 2026-11-28, for axolotl 0.19.",
        "# Predicted:",
        "#   memory   21.00 GiB (20.00 GiB to 23.00 GiB with 90 %) of 44.43 GiB on "
        "2 x NVIDIA L40S 48GB, ddp",
        "#   risk     0.3 % to run out of memory: fits",
        "#   time     500 ms per step (400 ms to 700 ms with 90 %), 2,048 tokens/s",
        "#   with     torch 2.13.0; made up",
        f"#   check    {command}{options}{rest} --loop trainer",
        "# Differs from the estimate:",
        "#   - a mask keeps packed documents apart; the estimate has none",
        "#   - axolotl trains bf16 weights under autocast",
        f"#   as it will run: {command}{options}{rest} --loop trainer --padded --amp",
        "# Hyperparameters, and who says so:",
        "#   learning_rate 0.0002: a rule (a source)",
        "#   schedule cosine: a rule (a source)",
        "#   warmup_ratio 0.03: a rule (a source)",
        "#   epochs 3: a rule (a source)",
        "# Run it:",
        '#   axolotl train config.yaml     (data.jsonl beside it; each line is {"text": "..."})',
    ]


def test_axolotl() -> None:
    assert values_of("axolotl", RUN) == {
        "base_model": "meta-llama/Llama-3.2-1B",
        "adapter": "lora",
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "v_proj"],
        "lora_mlp_kernel": False,
        "lora_qkv_kernel": False,
        "lora_o_kernel": False,
        "lora_embedding_kernel": False,
        "datasets": [
            {"path": "data.jsonl", "ds_type": "json", "type": "completion", "field": "text"}
        ],
        "val_set_size": 0.0,
        "excess_length_strategy": "truncate",
        "sequence_len": 512,
        "sample_packing": True,
        "pad_to_sequence_len": True,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "bf16": False,
        "fp16": False,
        "bfloat16": True,
        "tf32": False,
        "attn_implementation": "sdpa",
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "num_epochs": 3,
        "optimizer": "adamw_torch",
        "learning_rate": 2e-4,
        "lr_scheduler": "cosine",
        "warmup_ratio": 0.03,
        "max_grad_norm": 1.0,
        "logging_steps": 10,
        "output_dir": "output",
    }


def test_llamafactory() -> None:
    assert values_of("llamafactory", RUN) == {
        "model_name_or_path": "meta-llama/Llama-3.2-1B",
        "stage": "pt",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_target": "q_proj,v_proj",
        "dataset": "data",
        "dataset_dir": ".",
        "cutoff_len": 512,
        "packing": True,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "bf16": True,
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": False,
        "use_reentrant_gc": False,
        "num_train_epochs": 3,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.03,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "logging_steps": 10,
        "report_to": "none",
        "output_dir": "output",
    }


def test_trl() -> None:
    assert values_of("trl", RUN) == {
        "model_name_or_path": "meta-llama/Llama-3.2-1B",
        "dtype": "bfloat16",
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "use_peft": True,
        "lora_r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "v_proj"],
        "datasets": [{"path": "json", "data_files": "data.jsonl"}],
        "max_length": 512,
        "packing": True,
        "packing_strategy": "wrapped",
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 3,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch",
        "logging_steps": 10,
        "report_to": "none",
        "output_dir": "output",
    }


def test_torchtune() -> None:
    # 1000 examples, 3 epochs, 8 samples a step: 375 steps, of which 3 % are 11.25
    found = values_of("torchtune", RUN, Job(examples=1000, epochs=3))
    assert found["model"] == {
        "_component_": "torchtune.models.llama3_2.lora_llama3_2_1b",
        "lora_attn_modules": ["q_proj", "v_proj"],
        "apply_lora_to_mlp": False,
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
    }
    assert found["lr_scheduler"]["num_warmup_steps"] == 12
    assert found["tokenizer"]["max_seq_len"] == 512
    assert found["dataset"]["packed"] is True
    assert found["optimizer"] == {
        "_component_": "torch.optim.AdamW",
        "foreach": True,
        "lr": 2e-4,
    }
    assert found["loss"] == {"_component_": "torch.nn.CrossEntropyLoss"}
    assert (found["epochs"], found["max_steps_per_epoch"]) == (3, None)
    assert found["enable_activation_checkpointing"] is True
    # 1.24 billion parameters of two bytes are less than 5 GB
    assert found["checkpointer"]["checkpoint_files"] == ["model.safetensors"]
    assert list(found)[:2] == ["output_dir", "model"]


def test_quantized_bases() -> None:
    for quantization, double in (("nf4", False), ("nf4-dq", True)):
        run = run_of("qlora", quantization=quantization)
        axolotl, factory = values_of("axolotl", run), values_of("llamafactory", run)
        assert (axolotl["adapter"], axolotl["load_in_4bit"]) == ("qlora", True)
        assert axolotl.get("bnb_config_kwargs") == (
            None if double else {"bnb_4bit_use_double_quant": False}
        )
        assert (factory["quantization_bit"], factory["double_quantization"]) == (4, double)
        assert factory["lora_target"] == "all"
        assert values_of("trl", run).get("use_bnb_nested_quant") == (True if double else None)
    model = values_of("torchtune", run)["model"]
    assert model["_component_"] == "torchtune.models.llama3_2.lora_llama3_2_1b"
    assert model["apply_lora_to_mlp"] is True
    assert model["quantize_base"] is True


def test_sharded_runs() -> None:
    for sharding, stage in (("zero-2", 2), ("zero-3", 3)):
        run = replace(RUN, gpus=4, sharding=sharding)
        for fmt in ("axolotl", "llamafactory"):
            assert values_of(fmt, run)["deepspeed"]["zero_optimization"] == {"stage": stage}
        assert values_of("trl", run)["accelerate_config"] == f"zero{stage}"
    run = replace(RUN, gpus=4, sharding="fsdp")
    assert values_of("axolotl", run)["fsdp_version"] == 2
    assert "--nproc_per_node 4 lora_finetune_distributed" in text_of("torchtune", run)


def test_completions_are_learned_alone() -> None:
    job = Job(learned_per_example=10.0, steps=50)
    assert values_of("llamafactory", RUN, job)["stage"] == "sft"
    assert values_of("axolotl", RUN, job)["datasets"][0]["type"]["field_output"] == "completion"
    assert values_of("axolotl", RUN, job)["max_steps"] == 50
    instruct = values_of("torchtune", RUN, job)["dataset"]
    assert instruct["_component_"] == "torchtune.datasets.instruct_dataset"


# --- how each tool differs ------------------------------------------------------------------------


def as_run(fmt: str, run: RunSpec) -> dict[str, str]:
    """Options by which the command of the run as it will be differs from the estimate's."""
    lines = text_of(fmt, run).splitlines()
    marks = ("#   check ", "#   as it will run: ")
    found = [next((x for x in lines if x.startswith(mark)), "") for mark in marks]
    there = [set(line.partition("estimate ")[2].split(" --")) for line in found]
    return dict.fromkeys(sorted(there[1] - there[0]), "") if found[1] else {}


@pytest.mark.parametrize(
    ("fmt", "training", "expected"),
    [
        ("peft", {"loop": "trainer"}, []),
        ("peft", {}, ["loop trainer"]),
        ("axolotl", {"padded": True, "loop": "trainer"}, ["amp"]),
        ("axolotl", {"attention": "flash_attention_2", "loop": "trainer", "amp": True}, []),
        ("axolotl", {"loop": "trainer"}, ["amp", "padded"]),
        ("llamafactory", {"loop": "trainer", "amp": True}, []),
        ("llamafactory", {"loop": "trainer"}, ["amp"]),
        ("trl", {"loop": "trainer"}, ["loss fused-linear"]),
        ("trl", {"loop": "trainer", "loss": "fused-linear"}, []),
        ("torchtune", {"loop": "trainer"}, []),
        (
            "trl",
            {"quantization": "nf4"},
            ["kbit-preparation none", "loop trainer", "loss fused-linear"],
        ),
        (
            "axolotl",
            {"quantization": "int8", "padded": True, "transformers": "4"},
            ["amp", "kbit-preparation none", "loop trainer"],
        ),
    ],
)
def test_runs_that_differ(fmt: str, training: dict[str, Any], expected: list[str]) -> None:
    assert list(as_run(fmt, run_of("lora-all", **training))) == expected


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "run", "message"),
    [
        ("pef", RUN, "unknown format 'pef'; did you mean 'peft'?"),
        ("trl", run_of("ia3"), "trl has no ia3; these formats have it: peft"),
        ("axolotl", run_of("badam"), "these formats have it: llamafactory"),
        ("peft", run_of("houlsby"), "no format has; near it are lora-mlp, ia3"),
        ("torchtune", run_of("compacter"), "no format has; near it are lora, lora-all, full"),
        ("peft", run_of("ipt"), "near it are prefix-tuning, prompt-tuning"),
        (
            "torchtune",
            run_of("lora", quantization="int8"),
            "torchtune has no quantization 'int8' for lora; use peft or axolotl or",
        ),
        (
            "trl",
            run_of("lora", optimizer="adamw-loop"),
            "trl has no optimizer 'adamw-loop' for lora; use peft or torchtune",
        ),
        (
            "torchtune",
            run_of("lora", gradient_checkpointing="reentrant"),
            "no gradient checkpointing 'reentrant' for lora; use peft",
        ),
        (
            "llamafactory",
            replace(RUN, gpus=2, sharding="fsdp"),
            "llamafactory has no sharding 'fsdp' for lora; use peft or axolotl or torchtune or",
        ),
        ("axolotl", run_of("lora", model="t5-small"), "and google-t5/t5-small is none; use peft"),
        ("torchtune", run_of("lora", model="Qwen/Qwen3-8B"), "no builder for Qwen/Qwen3-8B"),
        (
            "torchtune",
            run_of("dora", model="meta-llama/Llama-3.1-405B"),
            "torchtune has no DoRA for meta-llama/Llama-3.1-405B",
        ),
        ("torchtune", run_of("lora", amp=True), "torchtune has no autocast"),
        ("axolotl", run_of("lora", dtype="fp32", amp=True), "in the dtype of autocast"),
        ("llamafactory", run_of("lora", dtype="fp32"), "loads frozen weights in 16 bits"),
        ("llamafactory", run_of("full", dtype="fp16"), "trains no weights in fp16"),
        ("peft", run_of("full", dtype="fp16", amp=True), "cannot scale the gradients of fp16"),
        ("axolotl", run_of("lora", model="gpt2", loss="fused"), "Liger has no loss for models of"),
        ("peft", run_of("x-lora"), "x-lora needs trained LoRA experts"),
        ("peft", run_of("cpt"), "cpt needs the tokens of its examples"),
        ("trl", run_of("lora", model="chatglm3-6b"), "runs code of its own"),
    ],
)
def test_refusals(fmt: str, run: RunSpec, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        export(estimate_of(run), ADVICE, Job(), fmt)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_advice_that_is_followed_is_told() -> None:
    """Not the rank that the run does not have, nor the epochs that the job overrides."""
    more = advice(rank=64, alpha=16, optimizer="adafactor", lr_scheduler="constant", epochs=3)
    text = text_of("trl", RUN, Job(steps=9), advised=(*advice(warmup_ratio=0.1), *more))
    told = [line for line in text.splitlines() if "a rule (a source)" in line]
    assert [line.split()[1] for line in told] == ["warmup_ratio", "alpha", "lr_scheduler"]
    values = yaml.safe_load(text)
    assert (values["max_steps"], values["lr_scheduler_type"]) == (9, "constant_with_warmup")
    assert "num_train_epochs" not in values
    strange = advice(learning_rate=1e-3, schedule="zigzag")
    with pytest.raises(UsageError, match="the schedule 'zigzag' has no name in transformers"):
        text_of("axolotl", RUN, advised=strange)


def test_norms_to_clip_at() -> None:
    low = advice(learning_rate=1e-3, max_grad_norm=0.3)
    assert "max_grad_norm: 0.3" in text_of("trl", RUN, advised=low)
    unclipped = replace(RUN, training=replace(RUN.training, max_grad_norm=0.0))
    text = text_of("trl", unclipped, advised=low)
    assert "max_grad_norm: 0.0" in text
    assert "(the command clips gradients, which this run does not)" in text


def test_what_a_learning_rate_is_needed_for() -> None:
    for fmt in ("axolotl", "torchtune"):
        with pytest.raises(UsageError, match="needs a learning rate"):
            export(estimate_of(RUN), (), Job(), fmt)
    assert "learning_rate" not in export(estimate_of(RUN), (), Job(), "trl")


def test_targets_that_a_tool_cannot_take() -> None:
    only_keys = MethodSpec(name="lora").with_settings(target_modules=("gate_proj",))
    half = replace(RUN, method=only_keys)
    with pytest.raises(UsageError, match="feed-forward as a whole, not gate_proj"):
        text_of("torchtune", half)
    odd = replace(
        RUN, method=MethodSpec(name="lora").with_settings(target_modules=r".*layers\.1\..*")
    )
    with pytest.raises(UsageError, match="takes names of layers"):
        text_of("llamafactory", odd)
    assert values_of("trl", odd)["lora_target_modules"] == [r".*layers\.1\..*"]
    fraction = replace(RUN, method=MethodSpec(name="lora").with_settings(alpha=2.5))
    with pytest.raises(UsageError, match="whole numbers for alpha"):
        text_of("axolotl", fraction)
    assert values_of("torchtune", fraction)["model"]["lora_alpha"] == 2.5


def test_every_method_is_exported_or_sent_elsewhere() -> None:
    for name in method_names():
        run = run_of(name)
        if not any(name in fmt.methods for fmt in FORMATS.values()):
            with pytest.raises(UsageError, match="near it are"):
                export(estimate_of(run), ADVICE, Job(), "peft")
    assert all(set(fmt.methods) <= set(method_names()) for fmt in FORMATS.values())


def test_torchtune_models() -> None:
    found = {i: find_family(i) for i in model_ids()}
    known = {i: family[0].model(family[1], lora=True) for i, family in found.items() if family}
    assert known["meta-llama/Llama-3.1-8B"] == "torchtune.models.llama3_1.lora_llama3_1_8b"
    assert known["Qwen/Qwen2.5-1.5B"] == "torchtune.models.qwen2_5.lora_qwen2_5_1_5b_base"
    assert known["Qwen/Qwen2.5-7B-Instruct"].endswith("lora_qwen2_5_7b_instruct")
    assert known["microsoft/phi-4"] == "torchtune.models.phi4.lora_phi4_14b"
    other_sizes = ("mistralai/Mistral-7B-v0.3", "codellama/CodeLlama-34b-hf", "Qwen/Qwen2-72B")
    assert not set(other_sizes) & set(known)


# --- the tools' keys ------------------------------------------------------------------------------

CHOICES: dict[str, Any] = {
    "dtype": DType,
    "quantization": Quantization,
    "optimizer": Optimizer,
    "gradient_checkpointing": Checkpointing,
    "attention": Attention,
    "kbit_preparation": KbitPreparation,
    "loss": Loss,
    "loop": Loop,
    "transformers": Transformers,
}
TRAININGS = st.builds(
    TrainingSpec,
    micro_batch_size=st.integers(1, 1000),
    gradient_accumulation_steps=st.integers(1, 1000),
    seq_len=st.integers(1, 512),
    target_len=st.integers(1, 512),
    padded=st.booleans(),
    amp=st.booleans(),
    **{name: st.sampled_from(get_args(kinds)) for name, kinds in CHOICES.items()},
)


def documented(fmt: str) -> set[str]:
    path = Path(__file__).with_name("exports_keys.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return {row["key"] for row in csv.DictReader(file) if row["format"] == fmt}


@pytest.mark.parametrize("fmt", YAML)
@given(
    training=TRAININGS,
    model=st.sampled_from(["meta-llama/Llama-3.2-1B", "google/gemma-3-4b-it", "gpt2"]),
    cards=st.sampled_from([(1, "ddp"), *((4, sharding) for sharding in get_args(Sharding))]),
    job=st.sampled_from([Job(), Job(epochs=2.5), Job(steps=7, learned_per_example=3.0)]),
    number=st.integers(0, 50),
)
@settings(max_examples=60, deadline=None)
def test_configs_hold_documented_keys(
    fmt: str, training: TrainingSpec, model: str, cards: Any, job: Job, number: int
) -> None:
    methods = sorted(FORMATS[fmt].methods - {"oft"})  # which takes torch to find its layers
    run = replace(run_of(methods[number % len(methods)], model=model), training=training)
    run = replace(run, gpus=cards[0], sharding=cards[1])
    try:
        text = export(estimate_of(run), ADVICE, job, fmt)
    except UsageError:
        return
    values = yaml.safe_load(text)
    assert set(values) <= documented(fmt)
    head, _, body = text.partition("\n\n")
    assert all(line.startswith("#") for line in head.splitlines())
    assert "null" not in body or fmt == "torchtune"


# --- the command ----------------------------------------------------------------------------------


def read_back(command: str) -> RunSpec:
    """What the command line makes of it."""
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("peftadvisor", "estimate")
    context = estimate_cli.command.make_context("estimate", arguments)
    return inputs.run_spec(context.params)


SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "rank": st.integers(1, 10**6),
    "alpha": st.one_of(st.integers(0, 1000), st.floats(0, 1000)),
    "dropout": st.floats(0, 1),
    "target_modules": st.one_of(
        st.just("all-linear"),
        st.text(min_size=1),
        st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple),
        st.none(),
    ),
}


@st.composite
def runs(draw: st.DrawFn) -> RunSpec:
    model = find_model(draw(st.sampled_from(model_ids())))
    training = draw(TRAININGS)
    limit = max_positions(model) or training.seq_len
    method = find_method(draw(st.sampled_from(sorted(set(method_names()) - {"smile"}))))
    chosen = {}
    for parameter in method.hyperparameters:
        negative = isinstance(parameter.default, int) and parameter.default < 0  # --set takes none
        if draw(st.booleans()) and not negative:
            kind = SETTINGS.get(parameter.name, st.just(parameter.default))
            given_ = st.sampled_from(parameter.choices) if parameter.choices else kind
            chosen[parameter.name] = draw(given_)
    gpu = draw(st.sampled_from(list(load_gpus().values())))
    if draw(st.booleans()):
        gpu = custom_gpu(gpu, draw(st.integers(1, 10**12)))
    return RunSpec(
        model=model,
        method=MethodSpec(name=method.name).with_settings(**chosen),
        training=replace(training, seq_len=min(limit, training.seq_len)),
        gpu=gpu,
        gpus=draw(st.integers(1, 64)),
        sharding=draw(st.sampled_from(get_args(Sharding))),
    )


@given(run=runs())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_commands_describe_their_runs(run: RunSpec) -> None:
    assert read_back(estimate_command(run)) == run


@pytest.mark.parametrize("name", ["config folder", "it's.json", "a\nb.json", "$(reboot).json"])
def test_commands_name_local_models(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text('{"model_type": "llama"}', encoding="utf-8")
    run = replace(RUN, model=lookup.model_spec(str(path)))
    assert read_back(estimate_command(run)) == run


# --- hostile names --------------------------------------------------------------------------------

HOSTILE = (
    'a"b',
    "it's",
    '"""\nimport os\n"""',
    "x\n# y\nevil: true",
    "a: b",
    "- x",
    "{a}",
    "!!python/object:os.system",
    "&a *a",
    "#c",
    "\\",
    "x\u2028evil: true\u2029\x85y",
    "\x00\x1b[31m",
    "%s%(x)s",
    "${oc.env:HOME}",
    "é漢",
)


def hostile_advice(text: str) -> tuple[Advised, ...]:
    told = {"rule": text, "source": text, "confidence": "low"}
    return (Advised(name="dropout", value=0.0, **told),)  # type: ignore[arg-type]


def named(model_id: str) -> ModelSpec:
    return replace(find_model("meta-llama/Llama-3.2-1B"), id=model_id)


@pytest.mark.parametrize("fmt", [fmt for fmt in YAML if fmt != "torchtune"])
@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_inside_of_yaml(fmt: str, name: str) -> None:
    key = {"axolotl": "base_model"}.get(fmt, "model_name_or_path")
    advised = (*ADVICE, *hostile_advice(name))
    loaded = yaml.safe_load(text_of(fmt, replace(RUN, model=named(name)), advised=advised))
    assert loaded == {**values_of(fmt, RUN), key: name}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_inside_of_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from peftadvisor.integrations.exports import peft
    from peftadvisor.simulator.attachment import Attachment

    found = Attachment(
        task="causal-lm",
        config_class="LoraConfig",
        fields=(("task_type", "CAUSAL_LM"), ("target_modules", [name])),
        trained=(),
        adds=True,
        linears=("q_proj",),
    )
    monkeypatch.setattr(peft, "attachment", lambda _: found)
    advised = (*ADVICE, *hostile_advice(name))
    source = text_of("peft", replace(RUN, model=named(name)), advised=advised)
    tree = ast.parse(source)
    strings = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value == name]
    assert strings == [name, name]  # the model, and the target
    other = ast.parse(text_of("peft", RUN))
    assert [type(node) for node in tree.body] == [type(node) for node in other.body]
    gptq = replace(RUN.training, quantization="gptq")
    ast.parse(text_of("peft", replace(RUN, model=named(name), training=gptq), advised=advised))


@given(name=st.text(min_size=1))
@settings(max_examples=100, deadline=None)
def test_any_name_stays_inside(name: str) -> None:
    assume(not any(0xD800 <= ord(c) < 0xE000 for c in name))
    loaded = yaml.safe_load(text_of("trl", replace(RUN, model=named(name))))
    assert loaded == {**values_of("trl", RUN), "model_name_or_path": name}


def test_yaml_takes_no_torch() -> None:
    """Names of layers come from a file for the model types that are bundled."""
    code = (
        "import sys\n"
        "from tests.unit.test_exports import RUN, YAML, text_of\n"
        "heavy = set(sys.modules) & {'torch', 'transformers', 'peft'}\n"
        "[text_of(fmt, RUN) for fmt in YAML]\n"
        "assert not heavy and not set(sys.modules) & {'torch', 'transformers', 'peft'}\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_gpus_by_their_own_memory() -> None:
    run = replace(RUN, gpu=custom_gpu(find_gpu("l40s"), 12_345_678_901))
    assert "--gpu-memory 12345678901B" in estimate_command(run)
