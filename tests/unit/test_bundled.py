"""The recordings that ship with the package answer for at least sixty models without torch."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from pathlib import Path

import jsonschema
import pytest

from peftadvisor.advisor import estimate, recommend
from peftadvisor.advisor.places import named
from peftadvisor.advisor.question import Question, Recommendation
from peftadvisor.advisor.searching import search
from peftadvisor.advisor.verifying import first_that_holds
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.measured_runs import logged_counts
from peftadvisor.data.models import find_model, model_ids
from peftadvisor.methods import COMMON, find_method
from peftadvisor.simulator.library import BUNDLED, bundled_keys
from peftadvisor.simulator.recording_files import unpack
from peftadvisor.specs import Budget, MethodSpec, RunSpec, TrainingSpec

SCHEMA = Path(__file__).parent.parent / "contract" / "estimate.schema.json"
FEWEST_MODELS = 60


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in an environment with the light install and an empty cache."""
    monkeypatch.setattr("peftadvisor.simulator.obtain.find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def bundled_ids() -> list[str]:
    keys = bundled_keys()
    return [name for name in model_ids() if find_model(name).config_key in keys]


def ask(
    model: str, gpu: str = "h100", methods: tuple[str, ...] | None = None, top: int = 6
) -> Recommendation:
    return recommend(question_of(model, gpu, methods, top))


def question_of(
    model: str, gpu: str = "h100", methods: tuple[str, ...] | None = None, top: int = 6
) -> Question:
    return Question(
        model=find_model(model),
        places=named(find_gpu(gpu)),
        training=TrainingSpec(seq_len=256, target_len=64),
        budget=Budget(),
        effective_batch_size=16,
        methods=methods,
        top=top,
    )


def test_what_is_asked_for_ships_for_every_bundled_shape() -> None:
    """The methods of the survey and those tried where none is named, recorded or refused."""
    logged = {row.method for row in logged_counts()}
    assert len(logged) == 15
    asked = {*logged, *COMMON}
    for path in sorted(BUNDLED.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            held = {name.split(".")[0] for name in archive.namelist()}
        assert asked <= held, f"{path.name} lacks {', '.join(sorted(asked - held))}"


def test_every_recording_that_ships_says_what_evaluating_it_takes() -> None:
    for path in BUNDLED.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith(".refused"):
                    facts = unpack(archive.read(name)).facts
                    assert {"units", "counts", "virtual_tokens", "versions"} <= set(facts), name


def test_at_least_sixty_models_are_bundled_and_answer() -> None:
    answered = []
    for name in bundled_ids():
        question = question_of(name)
        found = search(question, [find_method(m) for m in ("lora", "ln-tuning", "full")], None)
        silent = [one for one in found if "no recording" in one.refusal]
        held = [first_that_holds(question, one.fitting) for one in found if one.fitting]
        if not silent and (held or all(one.least for one in found)):
            answered.append(name)
    print(f"{len(answered)} models answer without torch")
    assert len(answered) >= FEWEST_MODELS


def test_t5_11b_on_40_gb_says_what_does_not_fit() -> None:
    answer = ask("t5-11b", "a100-40g", top=len(COMMON))
    full = next(r for r in answer.rejected if r.method == "full")
    # Weights, gradients and two AdamW states of 11,307,321,344 parameters in bf16: 8 bytes each.
    assert full.over_by_bytes is not None
    assert full.over_by_bytes > 8 * 11_307_321_344 - find_gpu("a100-40g").usable_bytes
    fits = {choice.estimate.run.method.name for choice in answer.choices}
    assert {"lora", "lora-all", "qlora", "houlsby", "ln-tuning"} <= fits
    assert {r.method for r in answer.rejected} >= {"full", "bitfit"}
    assert len(answer.choices) + len(answer.rejected) == len(COMMON)


def test_the_best_are_worked_out_and_the_others_named() -> None:
    best, all_of_them = (ask("t5-11b", "a100-40g", top=n) for n in (3, len(COMMON)))
    assert [c.estimate for c in best.choices] == [c.estimate for c in all_of_them.choices[:3]]
    ranked = tuple(c.estimate.run.method.name for c in all_of_them.choices)
    assert best.further == ranked[3:]
    assert best.rejected == all_of_them.rejected


def test_answers_keep_the_contract() -> None:
    schema = json.loads(SCHEMA.read_text())
    for choice in ask("t5-11b", "a100-40g").choices:
        told = json.loads(json.dumps(choice.estimate.to_dict()))
        jsonschema.validate(told, schema)
        memory = told["memory"]
        assert sum(memory["breakdown"].values()) == memory["device_peak_bytes"]
        assert memory["allocated_peak_bytes"] <= memory["reserved_peak_bytes"]
        assert memory["reserved_peak_bytes"] <= memory["device_peak_bytes"]
        assert memory["low_bytes"] <= memory["device_peak_bytes"] <= memory["high_bytes"]


def test_an_estimate_equals_its_row_in_the_recommendation() -> None:
    first = ask("t5-11b", "a100-40g").choices[0].estimate
    again = estimate(first.run, budget=Budget())
    assert again.memory == first.memory
    assert again.time == first.time


@pytest.mark.parametrize("gpus", [1, 2])
def test_more_gpus_share_the_effective_batch(gpus: int) -> None:
    question = Question(
        model=find_model("t5-11b"),
        places=named(find_gpu("a100-80g"), gpus),
        training=TrainingSpec(),
        budget=Budget(total_tokens=10**8),
        effective_batch_size=16,
        methods=("lora",),
    )
    training = recommend(question).choices[0].estimate.run.training
    assert training.micro_batch_size * training.gradient_accumulation_steps * gpus == 16


def test_lengths_between_the_recorded_ones_are_rounded_up_and_said_so() -> None:
    run = RunSpec(
        model=find_model("t5-11b"),
        method=MethodSpec(name="lora"),
        training=TrainingSpec(seq_len=500),
        gpu=find_gpu("a100-80g"),
    )
    rounded = estimate(run, budget=Budget())
    exact = dataclasses.replace(run, training=TrainingSpec(seq_len=512))
    assert "rounded up to 512" in rounded.provenance.recording
    assert rounded.memory == estimate(exact, budget=Budget()).memory


def test_a_micro_batch_that_the_replay_finds_too_large_is_made_smaller() -> None:
    """The quick bound lets more through than the replay: the next smaller micro-batch is tried."""
    for gpu in ("a100-40g", "rtx-4090"):
        for name in ("t5-11b", "meta-llama/Llama-3.1-8B"):
            answer = ask(name, gpu)
            close = [r for r in answer.rejected if r.over_by_bytes == 0]
            without = [r for r in close if not re.search(r"micro-batch 1\b", r.reason)]
            assert not without, (gpu, name, without)
