"""TrainingArguments as JSON with an adapter's config beside: what a folder comes to."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs import arguments, ignored
from peftadvisor.integrations.configs.peft_config import method_in, unknown
from peftadvisor.integrations.configs.peft_kinds import KINDS
from peftadvisor.integrations.configs.reader import Reader
from peftadvisor.integrations.exports.peft_methods import PEFT
from peftadvisor.methods import find_method
from peftadvisor.simulator.attachment import attachment_of
from peftadvisor.specs import Job, MethodSpec, TrainingSpec
from tests.config_cases import CONFIGS, changed, read, require_traces, written
from tests.export_cases import tiny_model

USUAL = {"micro_batch_size": 8, "padded": True, "optimizer": "adamw-fused", "loop": "trainer"}
NO_LENGTH = "the length of examples is not in the file: 512 tokens are assumed"
FOLDERS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any], Job, float]] = {
    "lora": (
        "meta-llama/Llama-2-7b-hf",
        "lora",
        {"rank": 16, "alpha": 32, "dropout": 0.05},  # q_proj and v_proj are lora's own in Llama
        {
            "micro_batch_size": 4,
            "gradient_accumulation_steps": 4,
            "padded": True,
            "dtype": "fp16",  # as its checkpoint
            "amp": True,
            "gradient_checkpointing": "non-reentrant",  # transformers 5's own where unsaid
            "loop": "trainer",
        },
        Job(epochs=2.0),
        2e-4,
    ),
    "classifier": (
        "FacebookAI/roberta-large",
        "rslora",
        {"target_modules": ("query", "value")},
        {**USUAL, "micro_batch_size": 32, "seq_len": 128, "dtype": "fp32"},
        Job(task="classification", epochs=10.0),
        3e-4,
    ),
    "prefix": (
        "openai-community/gpt2",
        "prefix-tuning",
        {"virtual_tokens": 20, "projection": True},
        {**USUAL, "seq_len": 256, "dtype": "fp32", "amp": True, "optimizer": "adafactor"},
        Job(epochs=5.0),
        1e-2,
    ),
    "full": (
        "google-t5/t5-small",
        "full",
        {},
        {
            **USUAL,
            "micro_batch_size": 16,
            "dtype": "fp32",
            "amp": True,
            "optimizer": "sgd",
            "gradient_checkpointing": "reentrant",
        },
        Job(steps=1000),
        5e-5,
    ),
    "galore": (
        "meta-llama/Llama-3.2-1B",
        "galore",
        {"rank": 64, "gap": 100, "scale": 0.1},
        {"padded": True, "amp": True, "loss": "fused", "loop": "trainer"},
        Job(epochs=1.0),
        5e-5,
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_comes_to_its_run(name: str) -> None:
    model, method, settings, training, job, rate = FOLDERS[name]
    config = read(f"trainer/{name}/training_args.json")
    assert (config.tool, config.version) == ("trainer", "5.23.0")
    assert (config.model, config.method.name) == (model, method)
    assert dict(config.method.settings) == settings
    assert changed(config.training) == training
    assert (config.job, config.learning_rate, config.unknown) == (job, rate, ())
    require_traces(config)


@pytest.mark.parametrize("name", ["lora", "classifier", "prefix"])
def test_the_adapters_config_leads_to_the_same_run(name: str) -> None:
    by_arguments = read(f"trainer/{name}/training_args.json")
    by_adapter = read(f"trainer/{name}/adapter_config.json")
    for field in ("model", "method", "training", "job", "learning_rate", "notes"):
        assert getattr(by_adapter, field) == getattr(by_arguments, field)


def test_traces_say_which_file_speaks() -> None:
    traced = {trace.name: trace for trace in read("trainer/lora/training_args.json").traced}
    assert traced["rank"].key is None
    assert traced["rank"].source == "adapter_config.json, r: 16"
    assert traced["micro_batch_size"].key == "per_device_train_batch_size"
    traced = {trace.name: trace for trace in read("trainer/lora/adapter_config.json").traced}
    assert traced["rank"].key == "r"
    assert traced["micro_batch_size"].key is None
    assert traced["micro_batch_size"].source == (
        "training_args.json, per_device_train_batch_size: 4"
    )
    assert traced["seq_len"].source == "assumed, as the arguments do not say"


def test_notes() -> None:
    assert read("trainer/lora/training_args.json").notes == (NO_LENGTH,)
    assert read("trainer/full/training_args.json").notes == (
        "FSDP's offload of weights is left out of the prediction",
        NO_LENGTH,
        "every_n_layers of activation_checkpointing_kwargs is left out of the prediction",
    )
    assert read("trainer/galore/training_args.json").notes == (
        "optim_target_modules is taken to be all linear layers",
        NO_LENGTH,
    )


def test_every_argument_of_transformers_is_known() -> None:
    """A file with every field of TrainingArguments has no unknown key."""
    from transformers import Seq2SeqTrainingArguments

    fields = {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    asked = set(read_asking_everything())
    assert fields - asked - ignored.ARGUMENTS - set(ignored.NOTED) == set()


def read_asking_everything() -> set[str]:
    reader = Reader({}, "file", "tool")
    arguments.batch(reader)
    arguments.optimizer(reader)
    arguments.clipping(reader)
    arguments.learning_rate(reader)
    arguments.job(reader, None)
    arguments.checkpointing(reader, on=False)
    arguments.autocast(reader)
    arguments.liger(reader, "use_liger_kernel", True, "liger_kernel_config")
    arguments.division(reader, Path())
    ignored.notes(reader, {})
    return reader._asked


def test_every_optimizer_of_transformers_is_known_or_refused_by_name() -> None:
    from transformers.training_args import OptimizerNames

    assert set(arguments.OPTIM) < {name.value for name in OptimizerNames}


def test_misspelt_keys_are_unknown(tmp_path: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "openai-community/gpt2", "rr": 4}
    written(tmp_path, adapter, "adapter_config.json")
    values = {"num_train_epochs": 1, "optim": "sgd", "learningrate": 1, "tf32": None}
    config = read(written(tmp_path, values, "training_args.json"))
    assert config.unknown == ("learningrate", "adapter_config.json: rr")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optim": "lion_8bit"}, "'optim' is lion_8bit; known here: adamw_torch"),
        ({"num_train_epochs": "ten"}, "'num_train_epochs' is ten; write a number"),
        ({"per_device_train_batch_size": 1.5}, "'per_device_train_batch_size' is 1.5; write a"),
        ({"optim": "galore_adamw", "optim_args": "rank"}, "'optim_args' is rank; write NAME=VALUE"),
        ({"gradient_checkpointing": "on?"}, "'gradient_checkpointing' is on?; write true or false"),
        ({"deepspeed": 7}, "'deepspeed' is 7; write the path of a JSON file or its content"),
        ({"model_name_or_path": 3}, "'model_name_or_path' is 3; write a name"),
    ],
)
def test_refusals_name_file_and_key(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    usual = {"model_name_or_path": "openai-community/gpt2", "optim": "sgd", "num_train_epochs": 1}
    path = written(tmp_path, {**usual, **values}, "training_args.json")
    with pytest.raises(UsageError) as refused:
        read(path)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)


def test_without_adapter_or_model_the_remedy_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, {"optim": "sgd", "num_train_epochs": 1}, "training_args.json")
    with pytest.raises(UsageError, match=r"names no model; put the adapter_config.json of the run"):
        read(path)


def test_an_adapter_without_arguments_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"peft_type": "LORA"}, "adapter_config.json")
    with pytest.raises(UsageError, match=r"no training arguments lie beside it; save them there"):
        read(path)


def adapter(**values: Any) -> Reader:
    return Reader({"peft_type": "LORA", **values}, "adapter_config.json", "peft 0.21.0")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "SHADOW"}, "'peft_type' is SHADOW; known here: LORA, ADALORA"),
        ({"rank_pattern": {"q_proj": 4}}, "'rank_pattern' is {'q_proj': 4}; ranks that differ"),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, "'modules_to_save' names embed_tokens"),
        ({"lora_bias": True}, "'lora_bias' is true; only false is predicted"),
        ({"target_modules": 7}, "'target_modules' is 7; write a list of names"),
        ({"r": "many"}, "'r' is many; write a number"),
        ({"peft_type": "PROMPT_TUNING"}, "has no 'num_virtual_tokens', which prompt-tuning needs"),
        ({"peft_type": "ADALORA"}, "has no 'total_step', which adalora needs"),
        ({"peft_type": "OFT", "r": 8}, "'r' is 8; only 0 is predicted"),
        ({"peft_type": "XLORA"}, "has no 'adapters', which x-lora needs"),
    ],
)
def test_adapters_that_no_method_is(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        method_in(adapter(**values), "openai-community/gpt2", "none")
    assert str(refused.value).startswith("adapter_config.json")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"use_dora": True, "lora_alpha": 16}, ("dora", {})),
        ({"use_rslora": True}, ("rslora", {"alpha": 8})),  # PEFT's default is 8, ours 16
        ({"init_lora_weights": "pissa"}, ("pissa", {})),
        ({"init_lora_weights": "pissa_niter_4"}, ("pissa", {"init": "pissa_niter_4"})),
        ({"init_lora_weights": "pissa_niter_32"}, ("pissa", {"init": "pissa_niter_16"})),
        ({"init_lora_weights": "olora"}, ("olora", {"alpha": 8})),
        ({"init_lora_weights": "gaussian", "r": 4.0}, ("lora", {"alpha": 8, "rank": 4})),
        (
            {"init_lora_weights": "loftq", "loftq_config": {"loftq_iter": 2}},
            ("loftq", {"alpha": 8, "iterations": 2, "target_modules": None}),
        ),
        ({"target_modules": "all-linear"}, ("lora-all", {"alpha": 8})),
        (
            {"target_modules": r".*\.(q|v)"},
            ("lora", {"alpha": 8, "target_modules": r".*\.(q|v)"}),
        ),
        (
            {"peft_type": "XLORA", "adapters": {"0": "a", "1": "b"}},
            ("x-lora", {"experts": 2}),
        ),
        (
            {"peft_type": "IA3", "target_modules": ["k", "wo"], "feedforward_modules": ["wo"]},
            ("ia3", {"target_modules": ("k", "wo"), "feedforward_modules": ("wo",)}),
        ),
    ],
)
def test_adapters_by_their_switches(
    values: dict[str, Any], expected: tuple[str, dict[str, Any]]
) -> None:
    spec, _ = method_in(adapter(**values), "openai-community/gpt2", "none")
    assert (spec.name, dict(spec.settings)) == expected


def test_defaults_are_those_of_peft() -> None:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    for name, kind in KINDS.items():
        fields = {f.name: f for f in dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[name])}
        for field, (_, default, _read) in kind.fields.items():
            if default is not ...:
                assert fields[field].default == default, (name, field)
        for field, values in kind.held.items():
            assert fields[field].default in values, (name, field)


def test_what_peft_saves_has_no_unknown_field() -> None:
    """Whatever a config of PEFT 0.21 holds by default is known, and none of it is refused."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    needed = {
        "num_virtual_tokens": 8,
        "total_step": 100,
        "adapter_len": 10,
        "adapter_layers": 2,
        "cpt_token_ids": [1, 2, 3, 4],
        "token_indices": [5],
        "adapters": {"0": "folder"},
    }
    for name in KINDS:
        made = PEFT_TYPE_TO_CONFIG_MAPPING[name]
        fields = {field.name for field in dataclasses.fields(made)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = {key: value for key, value in needed.items() if key in fields}
            chosen = made(task_type="CAUSAL_LM", **given)
        saved = json.loads(json.dumps(chosen.to_dict(), default=str))
        reader = Reader({**saved, "peft_type": name}, "adapter_config.json", "peft 0.21.0")
        method_in(reader, "openai-community/gpt2", "none")
        assert unknown(reader) == (), name


DIFFERING = {
    "x-lora",  # the experts' own settings stand in their folders
    "lora-mlp",  # lora on named layers
    "lora-plus",  # the ratio is the optimizer's
    "lora-fa",  # A is frozen by the script
    "spot",  # prompt tuning that starts elsewhere
    "warp",
    "krona",  # LoKr of the largest rank
    "pissa",  # on the meta device nothing starts from weights
    "olora",
    "loftq",
    "qlora",  # LoRA on everything, the base being quantized
    "lora-all",
}


@pytest.mark.parametrize("name", sorted(set(PEFT) - DIFFERING))
def test_what_a_method_tells_peft_is_read_as_that_method(name: str) -> None:
    model = tiny_model("llama")
    found = attachment_of(model, MethodSpec(name=name), TrainingSpec())
    fields = json.loads(json.dumps(dict(found.fields), default=str))
    kind = next(kind for kind, known in KINDS.items() if known.method in (name, _base(name)))
    reader = Reader({**fields, "peft_type": kind}, "adapter_config.json", "peft 0.21.0")
    spec, _ = method_in(reader, "meta-llama/Llama-3.2-1B", "none")
    assert spec.name == name
    told, meant = find_method(name).settings(spec), find_method(name).defaults
    for setting in ("target_modules", "feedforward_modules"):  # named by PEFT's table
        told.pop(setting, None)
        meant.pop(setting, None)
    adapted = {**meant, **{k: told[k] for k in ADAPTED.get(name, ())}}
    assert told == adapted


ADAPTED = {
    "oft": ("block_size",),  # what divides the widths of a tiny model
    "c3a": ("block_size",),
    "vb-lora": ("length",),
    "road": ("group_size",),
    "waveft": ("frequencies",),
    "trainable-tokens": ("token_indices",),  # None stands for the first 32
    "cpt": ("token_ids", "token_types", "virtual_tokens"),
    "adaption-prompt": ("layers",),  # no more than the model has
    "osf": ("kept",),
    "p-tuning": ("encoder_width",),  # None stands for the model's width
    "shira": ("rank",),  # as many as the mask of the narrowest layer has room for
}


def _base(name: str) -> str:
    return "lora" if name in ("dora", "rslora") else name


def test_every_folder_has_its_case() -> None:
    assert {path.name for path in (CONFIGS / "trainer").iterdir()} == set(FOLDERS)
