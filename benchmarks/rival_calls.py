"""One other estimator over many runs; run with the Python of its environment.

    VENV/bin/python rival_calls.py NAME < cases.json > answers.json

Imports nothing of ours. A case is a run in plain words (``rivals.py``); an answer holds ``memory``
in bytes, ``verdict`` and ``time`` in seconds per step, or ``memory_note`` and ``time_note``, which
say why there is none. What an online user's Hub would tell (``config.json``, parameter count)
is handed in by the way that each estimator offers, or in place of its download.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

GIB = 2**30
MIB = 2**20
Case = dict[str, Any]
Answer = dict[str, Any]
QV = ["q_proj", "v_proj"]
ATTENTION = ["k_proj", "o_proj", "q_proj", "v_proj"]
LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


def fitcheck(case: Case) -> Answer:
    """Total of ``estimate``; SDPA counts as its flash path, as in its own measurements."""
    import fitcheck

    with tempfile.TemporaryDirectory() as cache:
        config = _from_cache(case, cache)
    full = case["method"] == "full"
    training = fitcheck.TrainingConfig(
        precision=case["dtype"],
        quantization=case["quantization"].partition("-")[0],
        double_quant=case["quantization"] == "nf4-dq",
        optimizer="adamw",
        # the states follow the weights that are trained
        optimizer_dtype=case["dtype"] if full else "fp32",
        batch_size=case["batch"],
        seq_len=case["seq_len"],
        lora_rank=None if full else case["rank"],
        lora_targets=case["targets"] or ["q_proj"],
        grad_checkpoint=case["checkpointing"],
        flash_attn=case["attention"] != "eager",
        grad_accum_steps=case["grad_accum"],
    )
    gpu = fitcheck.get_gpu({"a100-80g": "a100-80"}.get(case["gpu"], case["gpu"]))
    report = fitcheck.estimate(config, training, gpu)
    words = {"safe": "fits", "uncertain": "tight", "does_not_fit": "oom"}
    return {"memory": report.total_mib * MIB, "verdict": words[report.verdict]}


def _from_cache(case: Case, cache: str) -> Any:
    """Its reader on a Hub cache that holds the model's config, as after a first online run."""
    from fitcheck import config_parser
    from huggingface_hub import hf_hub_download

    folder = Path(cache) / f"models--{case['model'].replace('/', '--')}"
    commit = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text(json.dumps(case["config"]))
    config_parser.hf_hub_download = lambda **given: hf_hub_download(cache_dir=cache, **given)
    config_parser._reported_param_count = lambda *_: case["parameters"]
    return config_parser.fetch_model_config(case["model"])


def canifinetune(case: Case) -> Answer:
    """Total without the safety margin, which its own evidence compares with reserved memory.

    Granite's blocks are Llama's, so its family is given as llama, as its refusal suggests.
    """
    from canifinetune.estimator.memory import EstimateRequest, estimate
    from canifinetune.estimator.model_metadata import _from_hf_config

    found = _from_hf_config(case["model"], case["config"], exact_total_params=case["parameters"])
    assert found is not None
    arch = found.to_dict()["arch"]
    family = {"granite": "llama"}.get(found.family, found.family)
    override = {**arch, "family": family, "total_params": case["parameters"]}
    scope = _scope(case, {"conservative": QV, "attention": ATTENTION, "all_linear": LINEAR})
    request = EstimateRequest(
        model_id=case["model"],
        gpu_vram_gb=case["gpu_bytes"] / GIB,
        override=override,
        use_network=False,
        method=case["method"],
        seq_len=case["seq_len"],
        micro_batch_size=case["batch"],
        gradient_accumulation_steps=case["grad_accum"],
        base_dtype=case["dtype"],
        quantization={"nf4-dq": "nf4_double_quant"}.get(case["quantization"], case["quantization"]),
        lora_rank=case["rank"] or 16,
        lora_target_scope=scope or "attention",
        optimizer="adamw_torch",
        gradient_checkpointing=case["checkpointing"],
        attention_implementation=case["attention"],
    )
    result = estimate(request)
    memory = result.memory.total_estimated_gb - result.memory.safety_margin_gb
    words = {"yes": "fits", "marginal": "tight", "no": "oom"}
    return {"memory": memory * GIB, "verdict": words[result.feasible]}


def ftuneai(case: Case) -> Answer:
    """Memory and time; its download of ``config.json`` answers with the config at hand."""
    import ftuneai
    import ftuneai.hub

    ftuneai.hub._fetch_json = lambda *_, **__: case["config"]
    scope = _scope(case, {"attention": QV, "attention_all": ATTENTION, "all_linear": LINEAR})
    estimator = ftuneai.Estimator(
        model=case["model"],
        method=case["method"],
        quantization={"none": "none", "int8": "8bit"}.get(case["quantization"], "4bit"),
        batch_size=case["batch"],
        seq_length=case["seq_len"],
        gradient_checkpointing=case["checkpointing"],
        optimizer="adamw",
        lora_rank=case["rank"] or 16,
        lora_target=scope or "attention",
        flash_attention=case["attention"] == "flash_attention_2",
    )
    memory = estimator.estimate_memory().total_gb * GIB
    gpu = {"a100-80g": "A100-80GB"}.get(case["gpu"], case["gpu"])
    try:
        fits = estimator.check_gpu_fit([gpu])[0].fits
        steps = 10**6  # hours are rounded to 0.01
        time = estimator.estimate_time(
            gpu=gpu,
            dataset_size=steps * case["batch"] * case["grad_accum"],
            epochs=1,
            avg_seq_length=case["timed_seq_len"],
            gradient_accumulation_steps=case["grad_accum"],
        )
    except KeyError as error:
        return {"memory": memory, "time_note": str(error.args[0]).partition(".")[0]}
    seconds = time.total_hours * 3600 / steps
    return {"memory": memory, "verdict": "fits" if fits else "oom", "time": seconds}


def fitscout(case: Case) -> Answer:
    """Total of ``estimate_memory``; a plan of high risk is one that it never gives.

    It takes no target modules. The parameter count is the one that its meta-device count gives.
    """
    from fitscout import ModelProfile
    from fitscout.advisor.plan import RISK_HIGH
    from fitscout.advisor.strategy import _risk
    from fitscout.memory.estimator import estimate_memory
    from fitscout.model.introspect import extract_arch_fields

    profile = ModelProfile(params=case["parameters"], **extract_arch_fields(case["config"]))
    result = estimate_memory(
        profile,
        method=case["method"],
        micro_batch=case["batch"],
        seq_len=case["seq_len"],
        grad_ckpt=case["checkpointing"],
        opt_8bit=False,
        lora_rank=case["rank"] or 16,
    )
    risk = _risk(result.upper_gb, case["gpu_bytes"] / GIB)
    return {"memory": result.total_gb * GIB, "verdict": "oom" if risk == RISK_HIGH else "fits"}


def _scope(case: Case, scopes: dict[str, list[str]]) -> str | None:
    """The word for exactly these target modules."""
    if case["method"] == "full":
        return None
    for name, modules in scopes.items():
        if sorted(modules) == sorted(case["targets"]):
            return name
    raise ValueError(f"no scope of target modules is {', '.join(case['targets'])}")


RIVALS = {
    "fitcheck-llm": fitcheck,
    "canifinetune": canifinetune,
    "ftuneai": ftuneai,
    "fitscout": fitscout,
}


def answer(name: str, case: Case) -> Answer:
    """A refusal in its own words is an answer."""
    try:
        return RIVALS[name](case)
    except Exception as error:
        note = str(error).split("\n")[0].partition(". ")[0][:160]
        return {"memory_note": note, "time_note": note}


def main() -> None:
    """Answer every case."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    cases = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answers = [answer(sys.argv[1], case) for case in cases]
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
