"""Published rows as runs: exact specs for a row of each source, and reasons for all others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.data.measured_runs import L40S, LEFT_ON_CPU_BYTES
from peftadvisor.data.measurements import Measurement, read_measurements
from peftadvisor.data.tables import read_table
from peftadvisor.integrations.published import (
    Published,
    Skipped,
    as_run,
    gpu_name,
    method_name,
)
from peftadvisor.methods import find_method, method_names
from peftadvisor.specs import MethodSpec, TrainingSpec

ROWS = {
    row.row_id: row for row in read_measurements(Path(__file__).parent.parent / "measured_rows.csv")
}
ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")
PLAIN = ROWS["peft_metamath-00151"]


def run_of(row: Measurement) -> Published:
    found = as_run(row)
    assert isinstance(found, Published), found
    return found


def reason_of(row: Measurement) -> str:
    found = as_run(row)
    assert isinstance(found, Skipped)
    return found.reason


def changed(**values: Any) -> Measurement:
    return dataclasses.replace(PLAIN, **values)


def test_a_row_of_peft_metamath() -> None:
    found = run_of(PLAIN)
    training = TrainingSpec(micro_batch_size=4, seq_len=672, padded=True, max_grad_norm=0.0)
    assert found.run.training == training
    # 209.9 real tokens a sample, rounded up to a multiple of 16
    assert found.timed.training == dataclasses.replace(training, seq_len=224)
    assert found.run.method == MethodSpec(
        name="lora",
        settings=(("alpha", 64), ("rank", 32), ("target_modules", ("q_proj", "v_proj"))),
    )
    assert (found.run.model.id, found.run.gpu.id) == ("meta-llama/Llama-3.2-3B", "l40s")
    # 7173.82 tokens/s * 585.2 s / (209.9 * 4) = 5000.0 steps in 585.2 s
    assert found.measured == {"reserved": 22292725760, "step": 585.2 / 5000}
    assert (found.ran_out, found.left_on_cpu_bytes) == (False, 0)


def test_what_peft_left_on_the_cpu_is_told() -> None:
    assert run_of(ROWS["peft_metamath-00124"]).left_on_cpu_bytes == LEFT_ON_CPU_BYTES["boft"]


FMS = TrainingSpec(
    micro_batch_size=4,
    seq_len=4096,
    gradient_checkpointing="reentrant",
    attention="flash_attention_2",
    loop="trainer",
    transformers="4",
)


def test_a_full_row_of_fms_acceleration() -> None:
    found = run_of(ROWS["fms_acceleration-00780"])
    assert found.run.training == FMS
    assert found.timed == found.run
    assert found.run.method == MethodSpec(name="full")
    assert (found.run.model.id, found.run.gpu.id) == ("mistralai/Mistral-7B-v0.1", "a100-80g")
    # 4 samples of 4096 tokens at 3062.694 tokens/s
    assert found.measured == {
        "allocated": 72434837504,
        "device": 81008787456,
        "step": 4 * 4096 / 3062.694,
    }


@pytest.mark.parametrize(
    ("row", "method", "changes"),
    [
        ("fms_acceleration-00806", "lora", {"micro_batch_size": 8}),
        (
            "fms_acceleration-00828",
            "qlora",
            {"quantization": "nf4-dq", "amp": True, "kbit_preparation": "trl"},
        ),
        (
            "fms_acceleration-00848",
            "qlora",
            {"quantization": "nf4-dq", "amp": True, "kbit_preparation": "none"},
        ),
    ],
)
def test_adapter_rows_of_fms_acceleration(row: str, method: str, changes: dict[str, Any]) -> None:
    run = run_of(ROWS[row]).run
    assert run.training == dataclasses.replace(FMS, **changes)
    targets = ("c_attn", *ATTENTION) if row.endswith("848") else ATTENTION
    assert run.method.name == method
    # alpha 16 is the default; the rank is always spelled out
    assert dict(run.method.settings) == {"dropout": 0.1, "rank": 16, "target_modules": targets}


def test_sharded_rows_of_fms_acceleration() -> None:
    """Batch and rate are per GPU; a quantized base is not prepared where it is sharded."""
    full = run_of(ROWS["fms_acceleration-00781"])
    assert (full.run.gpus, full.run.sharding) == (2, "fsdp")
    assert full.run.training == dataclasses.replace(FMS, micro_batch_size=2)
    assert full.measured["step"] == 2 * 4096 / 2777.18
    alone = ROWS["fms_acceleration-00828"]
    both = dataclasses.replace(alone, n_gpus=2, parallelism="fsdp full_shard")
    assert run_of(alone).run.training.kbit_preparation == "trl"
    assert run_of(both).run.training.kbit_preparation == "none"


def test_nominal_lengths_and_out_of_memory() -> None:
    assert run_of(ROWS["fms_acceleration-00772"]).run.training.seq_len == 2048
    oom = run_of(ROWS["fms_acceleration-00812"])
    assert (oom.ran_out, oom.measured, oom.run.training.seq_len) == (True, {}, 4096)
    assert oom.run.model.id == "mistralai/Mixtral-8x7B-v0.1"


def test_a_row_of_our_own() -> None:
    found = run_of(ROWS["peftadvisor-1"])
    assert found.run.training == TrainingSpec(
        micro_batch_size=4,
        gradient_accumulation_steps=2,
        seq_len=256,
        target_len=64,
        optimizer="adamw-fused",
        gradient_checkpointing="non-reentrant",
    )
    assert dict(found.run.method.settings) == {"rank": 16, "target_modules": ("q", "v")}
    assert found.measured == {
        "allocated": 10**9,
        "reserved": 12 * 10**8,
        "device": 16 * 10**8,
        "step": 0.25,
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("litgpt_config_hub-00274", "status is neither ok nor out of memory"),
        ("github_issues-00239", "weights_dtype is not stated"),
        ("peft_readme-00216", "micro_batch_size is not stated"),
    ],
)
def test_rows_that_cannot_be_runs(row: str, reason: str) -> None:
    assert reason_of(ROWS[row]) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"superseded": "1"}, "superseded by a later row of its source"),
        ({"compile_kernels": "liger"}, "compiled or replaced kernels"),
        ({"offload": "cpu"}, "parameters or optimizer on the CPU"),
        (
            {"n_gpus": 2, "parallelism": "ddp"},
            "several GPUs, and not FSDP's full shard within a node",
        ),
        ({"source_id": "x", "seq_len": None}, "seq_len is not stated"),
        ({"gpu": ""}, "gpu is not stated"),
        ({"gpu": "NVIDIA A100"}, "GPU 'NVIDIA A100' is ambiguous"),
        ({"gpu": "cpu"}, "GPU 'cpu' is not in the catalog"),
        ({"model": "acme/llm"}, "model 'acme/llm' is not bundled"),
        ({"model": "llava-hf/llava-1.5-7b-hf"}, "the model takes more than text"),
        ({"model": "t5-small"}, "target length of an encoder-decoder is not stated"),
        ({"method": "bone"}, "method 'bone' is not here"),
        ({"method": "ia3"}, "ia3 field 'init_lora_weights' has no counterpart here"),
        ({"method_config": {"use_dora": True}}, "lora field 'use_dora' has no counterpart here"),
        ({"method_config": {"bias": "all"}}, "lora field 'bias' has no counterpart here"),
        ({"compute_dtype": "fp8"}, "compute_dtype 'fp8' is not known"),
        ({"padding_packing": "padding_free"}, "padding_packing 'padding_free' is not known"),
        (
            {"peak_reserved_bytes": None, "memory_kind": "VRAM", "throughput": None},
            "nothing that is predicted was measured",
        ),
        (
            {"versions": '{"transformers": "3.5.1"}'},
            "transformers is '3'; it must be one of 5, 4, 4.45",
        ),
    ],
)
def test_what_else_leaves_a_row_out(changes: dict[str, Any], reason: str) -> None:
    if changes.get("method") == "ia3":
        changes = {**changes, "method_config": {"init_lora_weights": "gaussian"}}
    assert reason_of(changed(**changes)) == reason


def test_words_that_no_spec_knows_leave_a_row_out() -> None:
    assert reason_of(changed(optimizer="muon")).startswith("optimizer is 'muon'; it must be one of")
    assert reason_of(changed(attention="flash_attn")).startswith("attention is 'flash_attn'")


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        # 4 samples of 512 tokens
        ({"throughput": 1024.0, "throughput_unit": "tokens/s"}, 2.0),
        ({"throughput": 8.0, "throughput_unit": "samples/s"}, 0.5),
        ({"throughput": 2.7, "throughput_unit": "s/it (optimizer step)"}, 2.7),
        ({"throughput": 3.0, "throughput_unit": "iter/s"}, None),
        ({"throughput": 3.0, "throughput_unit": "tokens/s (real tokens)"}, None),
    ],
)
def test_throughput_as_step_time(changes: dict[str, Any], seconds: float | None) -> None:
    row = changed(source_id="x", seq_len=512, seq_len_kind="", train_time_kind="", **changes)
    assert run_of(row).measured.get("step") == seconds


@pytest.mark.parametrize(
    ("versions", "version"),
    [
        ("", "5"),
        ("torch 2.7.0a0", "5"),
        ('{"transformers": "5.13.1"}', "5"),
        ('{"transformers": "4.48.1"}', "4"),
        ('{"transformers": "4.46.0"}', "4"),
        ('{"transformers": "4.45.2"}', "4.45"),
    ],
)
def test_versions_of_transformers(versions: str, version: str) -> None:
    assert run_of(changed(versions=versions)).run.training.transformers == version


def test_steps_of_batches_that_differ_are_not_those_of_the_longest() -> None:
    row = dataclasses.replace(ROWS["peftadvisor-1"], seq_len_kind="longest; target 64")
    assert "step" not in run_of(row).measured


def test_names_in_statistics() -> None:
    assert method_name(PLAIN) == "lora"
    assert method_name(changed(method="ln_tuning")) == "ln-tuning"
    assert method_name(changed(method="lora (unsloth)")) == "lora (unsloth)"
    assert method_name(changed(method="")) == "not stated"
    assert gpu_name(changed(gpu="NVIDIA H100 80GB (DGX-H100)")) == "h100-sxm"
    assert gpu_name(changed(gpu="80GB GPU")) == "80GB GPU"
    assert gpu_name(changed(gpu="")) == "not stated"


# The configs of the runs that were translated by hand, as PEFT wrote them, without what every
# method shares.
QV = {"target_modules": ["v_proj", "q_proj"]}
PEFT_CONFIGS: dict[str, dict[str, Any]] = {
    "00119": {
        **QV,
        **{"r": 8, "target_r": 32, "init_r": 64, "lora_alpha": 8, "deltaT": 1, "tinit": 200},
        **{"tfinal": 500, "total_step": 5000, "beta1": 0.85, "beta2": 0.85},
        **{"orth_reg_weight": 0.5, "rank_pattern": "dropped"},
    },
    "00123": {"target_modules": ["v_proj"]},
    "00124": {**QV, "boft_block_size": 4, "boft_n_butterfly_factor": 1},
    "00133": {},
    "00138": {
        "feedforward_modules": ["up_proj", "gate_proj", "down_proj"],
        "target_modules": [*ATTENTION, "gate_proj", "down_proj", "up_proj"],
    },
    "00139": {
        "feedforward_modules": ["down_proj"],
        "target_modules": ["down_proj", "v_proj", "k_proj"],
    },
    "00140": {
        "feedforward_modules": ["down_proj"],
        "target_modules": ["k_proj", "v_proj", "down_proj"],
    },
    "00143": {"target_modules": ["input_layernorm", "norm", "post_attention_layernorm"]},
    "00146": {
        **{"r": 10, "lora_alpha": 20},
        "target_modules": ["up_proj", "gate_proj", "down_proj"],
    },
    "00148": {**QV, "r": 32, "lora_alpha": 64, "use_dora": True},
    "00149": {**QV, "r": 32, "lora_alpha": 64},
    "00151": {**QV, "r": 32, "lora_alpha": 64},
    "00152": {**QV, "r": 64, "lora_alpha": 64, "use_rslora": True},
    "00153": {**QV, "r": 64, "lora_alpha": 128},
    "00154": {**QV, "r": 64, "mini_r": 1, "init_weights": "bat"},
    "00155": {**QV, "r": 64, "mini_r": 1, "init_weights": True},
    "00156": {**QV, "r": 64, "mini_r": 64, "init_weights": "mini"},
    "00157": {**QV, "r": 32, "use_cayley_neumann": True, "num_cayley_neumann_terms": 5},
    "00161": {"num_virtual_tokens": 200, "encoder_hidden_size": 3072, "token_dim": 1024},
    "00162": {"num_virtual_tokens": 200, "init_weights": "zero", "num_layers": 28},
    "00163": {"num_virtual_tokens": 50, "init_weights": "zero", "num_attention_heads": 8},
    "00164": {"num_virtual_tokens": 200, "prompt_tuning_init": "RANDOM"},
    "00165": {"num_virtual_tokens": 200, "prompt_tuning_init": "RANDOM"},
    "00166": {"num_virtual_tokens": 200, "prompt_tuning_init": "SAMPLE_VOCAB"},
    "00172": {**QV, "r": 32, "randlora_alpha": 640, "save_projection": True},
    "00180": {**QV, "r": 256, "d_initial": 0.1, "save_projection": True},
    "00183": {**QV, "r": 32, "alpha": 64, "decompose_factor": 4},
}
L40S_ROWS = {row.text("row_id")[-5:]: row for row in read_table(L40S, ("row_id", "settings"))}


def test_every_translated_run_has_its_config_here() -> None:
    assert set(PEFT_CONFIGS) == set(L40S_ROWS)


@pytest.mark.parametrize("row_id", sorted(PEFT_CONFIGS))
def test_configs_of_peft_give_the_settings_translated_by_hand(row_id: str) -> None:
    by_hand = L40S_ROWS[row_id].cells
    row = changed(
        method=by_hand["method"], method_config={**PEFT_CONFIGS[row_id], "peft_type": "X"}
    )
    settings = json.loads(by_hand["settings"])
    assert {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in run_of(row).run.method.settings
    } == settings


@pytest.mark.parametrize("name", method_names())
def test_defaults_of_every_method_translate_to_themselves(name: str) -> None:
    defaults = find_method(name).defaults
    row = changed(method=name, method_config=defaults)
    if name == "smile":
        assert reason_of(row).startswith("smile cannot be run")
        return
    kept = dict(run_of(row).run.method.settings)
    assert kept == {key: value for key, value in defaults.items() if key == "rank"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"target_modules": 3}, "target modules are neither names nor a text"),
        ({"r": {"a": 1}}, "setting 'rank' is nested"),
        ({"r": [[1]]}, "setting 'rank' is nested"),
        ({"r": "many"}, "setting 'rank' is no number"),
        ({"r": 0}, "setting 'rank' is no whole number of 1 or more"),
        ({"lora_alpha": "much"}, "setting 'alpha' is no number"),
    ],
)
def test_odd_values_leave_a_row_out(config: dict[str, Any], reason: str) -> None:
    assert reason_of(changed(method_config=config)) == reason


def test_oft_blocks_need_layers_of_one_width() -> None:
    config = {"r": 32, "target_modules": ["q_proj", "down_proj"]}
    assert reason_of(changed(method="oft", method_config=config)) == (
        "oft field 'r' means blocks of several sizes here"
    )


def test_fused_kernels_of_norms_change_time_alone() -> None:
    """Under checkpointing their intermediates do not live on; the loss has a setting of its own."""
    found = run_of(ROWS["fms_acceleration-00784"])
    assert found.run.training.loss == "fused"
    assert set(found.measured) == {"allocated", "device"}


def test_a_gptq_base_is_that_of_the_model_it_was_made_of() -> None:
    run = run_of(ROWS["fms_acceleration-00872"]).run
    assert run.model.id == "mistralai/Mistral-7B-v0.1"
    training = run.training
    assert (training.quantization, training.dtype, training.amp) == ("gptq", "fp16", True)
    assert training.kbit_preparation == "none"
