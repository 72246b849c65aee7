"""Do exported configs load in the tools that they are for? Checked by the tools' own parsers.

Each tool in an environment of its own, since their requirements exclude each other; no GPU is
needed. In the project's environment, write a set of configs:

    python benchmarks/check_exports.py write FOLDER

Then, in an environment with the tool, let it read them:

    pip install torch transformers==5.23.* peft==0.21.* trl==1.16.0 datasets accelerate pydantic \
        pyyaml pillow addict fire colorama art packaging bitsandbytes
    pip install --no-deps axolotl==0.19.0
    python benchmarks/check_exports.py read axolotl FOLDER     (and, in the same one, read trl)

    pip install torch transformers==5.6.0 peft==0.18.1 trl==0.24.0 datasets==4.0.0 accelerate \
        omegaconf pydantic pyyaml
    pip install --no-deps llamafactory==0.9.5
    python benchmarks/check_exports.py read llamafactory FOLDER

    pip install torch torchao==0.10.0 datasets omegaconf pyyaml numpy tqdm psutil safetensors \
        huggingface_hub sentencepiece tiktoken blobfile tokenizers kagglehub pillow bitsandbytes
    pip install --no-deps torchtune==0.6.1
    python benchmarks/check_exports.py read torchtune FOLDER

``read`` prints one line for each config and ends with an exit code of 1 if one does not load.
``keys TOOL`` prints the rows of ``tests/unit/exports_keys.csv``: the keys that the configs in
FOLDER use, with their types as the tool declares them.
"""

from __future__ import annotations

import csv
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

FORMATS = ("axolotl", "llamafactory", "torchtune", "trl")
MODELS = ("meta-llama/Llama-3.2-1B", "Qwen/Qwen2.5-7B-Instruct", "google/gemma-3-4b-it")
LEVERS: list[dict[str, Any]] = [
    {},
    {"gradient_checkpointing": "non-reentrant", "optimizer": "adamw-fused"},
    {"gradient_checkpointing": "non-reentrant", "padded": True},
    {"gradient_checkpointing": "reentrant", "dtype": "fp16"},
    {"amp": True, "attention": "flash_attention_2", "optimizer": "adamw-fused"},
    {"dtype": "fp32", "attention": "eager", "optimizer": "paged-adamw-8bit"},
    {"quantization": "nf4", "loss": "fused-linear", "optimizer": "adafactor"},
    {"quantization": "int8", "loss": "fused", "optimizer": "sgd"},
    {"quantization": "nf4-dq", "kbit_preparation": "trl", "optimizer": "adamw-8bit"},
]


def main(arguments: list[str]) -> int:
    action, *rest = arguments
    if action == "write":
        return write(Path(rest[0]))
    tool, folder = rest[0], Path(rest[1])
    return {"read": read, "keys": keys}[action](tool, folder)


# --- in the project's environment ---------------------------------------------------------------


def write(folder: Path) -> int:
    from peftadvisor.data.models import model_ids
    from peftadvisor.errors import UsageError
    from peftadvisor.integrations.exports import FORMATS as TABLE
    from peftadvisor.integrations.exports import export
    from peftadvisor.integrations.exports.torchtune_models import find_family

    for fmt in FORMATS:
        (folder / fmt).mkdir(parents=True, exist_ok=True)
        models = [i for i in model_ids() if find_family(i)] if fmt == "torchtune" else MODELS
        methods = sorted(TABLE[fmt].methods)
        for number, (found, advised, job) in enumerate(cases(models, methods)):
            try:
                text = export(found, advised, job, fmt)
            except UsageError as error:
                print(f"{fmt} {number}: {error}")
                continue
            name = f"{number:03d}-{found.run.method.name}.yaml"
            (folder / fmt / name).write_text(text, encoding="utf-8")
    return 0


def cases(models: Sequence[str], methods: list[str]) -> Iterator[tuple[Any, Any, Any]]:
    """Every method on every model, and the levers one at a time."""
    from peftadvisor.advisor.advised import Advised
    from peftadvisor.advisor.estimating import implied_training
    from peftadvisor.data.gpus import find_gpu
    from peftadvisor.data.models import find_model
    from peftadvisor.methods import find_method
    from peftadvisor.specs import Job, MethodSpec, RunSpec, TrainingSpec

    said = {"learning_rate": 2e-4, "schedule": "cosine", "warmup_ratio": 0.03, "weight_decay": 0.1}
    advised = tuple(
        Advised(name=name, value=value, rule="for a check", source="", confidence="low")
        for name, value in said.items()
    )
    jobs = (Job(epochs=3), Job(steps=100, learned_per_example=50.0))
    spread = [(2, "ddp"), (4, "fsdp"), (4, "zero-1"), (4, "zero-2"), (8, "zero-3")]
    settings = [(lever, 1, "ddp") for lever in LEVERS] + [({}, *cards) for cards in spread]
    for model, method, (number, (lever, gpus, sharding)) in product(
        models, methods, enumerate(settings)
    ):
        if "quantization" in lever and not find_method(method).quantized_base:
            continue
        training = implied_training(method, TrainingSpec(micro_batch_size=2, **lever))
        run = RunSpec(
            model=find_model(model),
            method=MethodSpec(name=method),
            training=training,
            gpu=find_gpu("a100-80g"),
            gpus=gpus,
            sharding=sharding,  # type: ignore[arg-type]
        )
        yield made_up(run), advised, jobs[number % 2]


def made_up(run: Any) -> Any:
    """An estimate whose numbers nobody reads."""
    from peftadvisor import profiles as p

    return p.Estimate(
        run=run,
        parameters=p.Parameters(total=1, trainable=1, stored_bytes=1),
        memory=p.Memory(
            allocated_peak_bytes=1,
            reserved_peak_bytes=1,
            device_peak_bytes=1,
            low_bytes=1,
            high_bytes=1,
            breakdown=p.MemoryBreakdown(workspace_bytes=1),
            peak_phase="backward",
            peak_op="made up",
        ),
        flops=p.Flops(forward=1, backward=1, recompute=0, optimizer=1),
        time=p.StepTime(
            step_s=1, low_s=1, high_s=1, tokens_per_s=1, samples_per_s=1, bound="made up"
        ),
        cost=p.Cost(),
        verdict="fits",
        oom_probability=0.0,
        evidence=p.Evidence(),
        reasons=(),
        provenance=p.Provenance(engine="simulate", versions={}, recording="", calibration=""),
    )


# --- in an environment with the tool --------------------------------------------------------------


def read(tool: str, folder: Path) -> int:
    failed = 0
    for path in sorted((folder / tool).glob("*.yaml")):
        try:
            READERS[tool](path)
            print(f"loads  {path.name}")
        except Exception as error:
            failed += 1
            print(
                f"FAILS  {path.name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            )
    print(f"{failed} of {len(list((folder / tool).glob('*.yaml')))} fail in {tool} {version(tool)}")
    return 1 if failed else 0


def _loaded(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _axolotl(path: Path) -> None:
    """By all of its validators, for a GPU that this machine does not have."""
    from axolotl.integrations.liger.args import LigerArgs
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.schemas.config import AxolotlInputConfig

    values = _loaded(path)
    unknown = set(values) - set(AxolotlInputConfig.model_fields) - set(LigerArgs.model_fields)
    assert not unknown, f"unknown keys {unknown}"
    for name in [name for name in values if name in LigerArgs.model_fields]:
        assert values.pop(name) is True
    gpus = {"bf16": True, "fp8": False, "n_gpu": 1, "n_node": 1, "compute_capability": "sm_80"}
    validate_config(DictDefault(values), gpus, {"torch_version": "2.9.0"})


def _llamafactory(path: Path) -> None:
    """By HfArgumentParser alone: get_train_args would look for GPUs and for the data."""
    from llamafactory.hparams import parser as there
    from transformers import HfArgumentParser

    values = _loaded(path)
    for name in ("bf16", "fp16", "deepspeed"):  # looks at this machine's hardware, and for a launch
        values.pop(name, None)
    model, data, training, tuning, _ = HfArgumentParser(there._TRAIN_ARGS).parse_dict(values)
    there._verify_model_args(model, data, tuning)


def _trl(path: Path) -> None:
    from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser

    values = _loaded(path)
    launch = {
        name: values.pop(name) for name in ("accelerate_config", "num_processes") if name in values
    }
    assert launch.get("num_processes", 1) >= 1
    values |= {"bf16": False, "fp16": False}  # this machine has no GPU
    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig))
    import tempfile

    import yaml

    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        parser.parse_args_and_config(["--config", file.name], fail_with_unknown_args=True)


def _torchtune(path: Path) -> None:
    """Every component exists and takes its arguments; the recipe finds what it reads."""
    import torchtune
    from omegaconf import OmegaConf
    from torchtune.config._utils import _get_component_from_path

    config = OmegaConf.load(path)
    for component in _components(OmegaConf.to_container(config)):
        arguments = {name: value for name, value in component.items() if name != "_component_"}
        found = _get_component_from_path(component["_component_"])
        signature = inspect.signature(found)
        if component is not config.get("profiler"):
            signature.bind_partial(**arguments)
    kind = "full" if "lora_rank" not in config.model else "lora"
    recipe = Path(torchtune.__file__).parent.parent / "recipes"
    source = (recipe / f"{kind}_finetune_single_device.py").read_text(encoding="utf-8")
    needed = set(re.findall(r"\bcfg\.(\w+)\b(?!\()", source)) - {"get"}
    missing = needed - set(config)
    assert not missing, f"the recipe reads {missing}"


def _components(values: Any) -> Iterator[dict[str, Any]]:
    if isinstance(values, dict):
        if "_component_" in values:
            yield values
        for value in values.values():
            yield from _components(value)


READERS: dict[str, Callable[[Path], None]] = {
    "axolotl": _axolotl,
    "llamafactory": _llamafactory,
    "torchtune": _torchtune,
    "trl": _trl,
}


# --- the table of keys ----------------------------------------------------------------------------


def keys(tool: str, folder: Path) -> int:
    used = {key for path in (folder / tool).glob("*.yaml") for key in _loaded(path)}
    declared = DECLARED[tool]()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for key in sorted(used):
        kind, source = declared[key]
        writer.writerow((tool, key, _short(kind), source, version(tool)))
    return 0


def _short(kind: str) -> str:
    text = " ".join(kind.replace("typing.", "").split())
    return text if len(text) <= 60 else text[:57] + "..."


def _dataclass_fields(*classes: Any) -> dict[str, tuple[str, str]]:
    import dataclasses

    return {
        field.name: (
            str(getattr(field.type, "__name__", field.type)),
            f"{c.__module__}.{c.__name__}",
        )
        for c in classes
        for field in dataclasses.fields(c)
    }


def _trl_fields() -> dict[str, tuple[str, str]]:
    from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig

    found = _dataclass_fields(ScriptArguments, DatasetMixtureConfig, ModelConfig, SFTConfig)
    launch = "trl.cli.commands.training, accelerate launch"
    return {**found, "accelerate_config": ("str", launch), "num_processes": ("int", launch)}


def _llamafactory_fields() -> dict[str, tuple[str, str]]:
    from llamafactory.hparams import parser as there

    return _dataclass_fields(*there._TRAIN_ARGS)


def _axolotl_fields() -> dict[str, tuple[str, str]]:
    from axolotl.integrations.liger.args import LigerArgs
    from axolotl.utils.schemas.config import AxolotlInputConfig

    return {
        name: (
            getattr(field.annotation, "__name__", str(field.annotation)),
            f"{c.__module__}.{c.__name__}",
        )
        for c in (AxolotlInputConfig, LigerArgs)
        for name, field in c.model_fields.items()
    }


def _torchtune_fields() -> dict[str, tuple[str, str]]:
    """Keys of the configs that come with torchtune, and the types of their values there."""
    import torchtune
    from omegaconf import OmegaConf

    folder = Path(torchtune.__file__).parent.parent / "recipes" / "configs"
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(folder.glob("*/*_single_device.yaml")):
        for key, value in OmegaConf.to_container(OmegaConf.load(path)).items():
            kind = "component" if isinstance(value, dict) else type(value).__name__
            found.setdefault(key, (kind, f"recipes/configs/{path.relative_to(folder)}"))
    return found


DECLARED: dict[str, Callable[[], dict[str, tuple[str, str]]]] = {
    "axolotl": _axolotl_fields,
    "llamafactory": _llamafactory_fields,
    "torchtune": _torchtune_fields,
    "trl": _trl_fields,
}


if __name__ == "__main__":
    os.environ.setdefault("DISABLE_VERSION_CHECK", "1")
    sys.exit(main(sys.argv[1:]))
