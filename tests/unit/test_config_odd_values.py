"""Whatever stands at a key: a run comes out, or one line that says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs import llamafactory, runspec, trainer, trl
from peftadvisor.integrations.configs.peft_config import method_in
from peftadvisor.integrations.configs.peft_kinds import KINDS
from peftadvisor.integrations.configs.reader import Reader
from peftadvisor.integrations.configs.value import ConfigFile, Tool
from tests.config_cases import CONFIGS, read

ODD: tuple[Any, ...] = (
    *(None, "", "x", "\x00", "auto", "none", -1, 0, 1, 2.5, 1e30, -1e30, 10**400, "1e999"),
    *(math.nan, math.inf, True, False, [], {}, [[]], [1], ["a", 2], [None], {"a": 1}),
    *({"a": {"b": []}}, "{", "{}", '{"a": 1}', "[1]", "a,b", ","),
)
BASES: dict[str, tuple[Tool, dict[str, Any]]] = {
    "llamafactory": (
        llamafactory.TOOL,
        {"model_name_or_path": "openai-community/gpt2", "dataset": "notes"},
    ),
    "trl": (trl.TOOL, {"model_name_or_path": "openai-community/gpt2", "use_peft": True}),
    "trainer": (trainer.TOOL, {"model_name_or_path": "openai-community/gpt2"}),
    "runspec": (runspec.TOOL, {"model": "openai-community/gpt2", "method": "lora"}),
}


def keys(tool: str) -> Iterator[str]:
    """Every key that stands in some file of the tool, and those that its reader asks for."""
    for path in sorted((CONFIGS / tool).rglob("*.*")):
        if path.parent.name == "saved":
            continue
        for traced in read(path.relative_to(CONFIGS)).traced:
            yield (traced.key or "").split(".")[0]
    yield from EXTRA.get(tool, ())


EXTRA = {
    "llamafactory": (
        *("deepspeed", "fsdp", "fsdp_config", "use_galore", "use_badam", "oft_rank", "packing"),
        *("neat_packing", "pure_bf16", "double_quantization", "quantization_method", "val_size"),
        *("adapter_name_or_path", "additional_target", "gradient_checkpointing_kwargs"),
    ),
    "trl": (
        *("deepspeed", "fsdp", "fsdp_config", "model_init_kwargs", "accelerate_config"),
        *("gradient_checkpointing_kwargs", "label_smoothing_factor", "mixed_precision"),
        *("load_in_4bit", "load_in_8bit", "use_bnb_nested_quant", "padding_free", "env"),
    ),
    "trainer": (
        *("deepspeed", "fsdp", "fsdp_config", "optim_args", "liger_kernel_config"),
        *("use_liger_kernel", "gradient_checkpointing_kwargs", "max_steps", "eval_strategy"),
    ),
    "runspec": ("training", "method_config", "run", "gpus", "sharding", "method", "model"),
}


@pytest.mark.parametrize("tool", BASES)
def test_odd_values_are_read_or_refused_in_one_line(tool: str, tmp_path: Path) -> None:
    reads, base = BASES[tool]
    several_lines: list[bool] = []
    for key in dict.fromkeys(filter(None, keys(tool))):
        for value in ODD:
            values = {**base, key: value}
            if key == "liger_kernel_config":
                values["use_liger_kernel"] = True
            file = ConfigFile(
                path=str(tmp_path / "config.json"), text="", language="json", values=values
            )
            try:
                reads.read(file)
            except UsageError as error:
                several_lines += ["\n" in str(error)]
    assert several_lines
    assert not any(several_lines)


def test_odd_values_in_adapters_are_read_or_refused_in_one_line() -> None:
    several_lines: list[bool] = []
    for name, kind in KINDS.items():
        fields = (*kind.fields, *kind.held, "target_modules", "modules_to_save", "adapters")
        more = ("loftq_config", "init_lora_weights", "bias", "exclude_modules", kind.dropout)
        for field in filter(None, (*fields, *more)):
            for value in ODD:
                given = {"num_virtual_tokens": 4, "total_step": 9, "adapter_len": 2}
                given |= {"peft_type": name, field: value}
                reader = Reader(given, "adapter_config.json", "peft 0.21")
                try:
                    method_in(reader, "openai-community/gpt2", "none")
                except UsageError as error:
                    several_lines += ["\n" in str(error)]
    assert several_lines
    assert not any(several_lines)
