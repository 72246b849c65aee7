"""Bundled recordings set to other ranks, held against PEFT's counts and fresh recordings."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from peftadvisor.advisor.estimating import implied_training  # noqa: E402
from peftadvisor.data.models import find_model  # noqa: E402
from peftadvisor.simulator.depth import completed  # noqa: E402
from peftadvisor.simulator.library import Variant  # noqa: E402
from peftadvisor.simulator.record import record  # noqa: E402
from peftadvisor.simulator.recording import Recording  # noqa: E402
from peftadvisor.simulator.regimes import Regime  # noqa: E402
from peftadvisor.specs import MethodSpec, TrainingSpec  # noqa: E402
from tests.unit.test_sizes import assert_same_run  # noqa: E402

ANY, ALIGNED = (Regime(single=False, lengths=lengths) for lengths in ("any", "aligned"))


def bundled(model: str, method: str, regime: Regime, **settings: Any) -> tuple[Variant, Recording]:
    chosen = MethodSpec(name=method).with_settings(**settings)
    variant = Variant(find_model(model), chosen, implied_training(method, TrainingSpec()), "flash")
    found = variant.find(regime)
    assert found is not None
    return variant, found


def peft_counts(model: str, rank: int, targets: Any, **options: Any) -> tuple[int, int]:
    """Trained parameters and all of them, of PEFT's model at full depth, made without ours."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = completed(find_model(model).config)
    task = "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM"
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        base = auto.from_config(config)
        base.tie_weights()
        chosen = LoraConfig(task_type=task, r=rank, target_modules=targets, **options)
        trained, total = get_peft_model(base, chosen).get_nb_trainable_parameters()
    return trained, total


@pytest.mark.parametrize("rank", [1, 16, 64, 256])
@pytest.mark.parametrize(
    ("model", "regime", "method", "targets", "options"),
    [
        ("Qwen/Qwen2.5-0.5B", ANY, "lora-all", "all-linear", {}),
        ("Qwen/Qwen2.5-0.5B", ANY, "dora", ["q_proj", "v_proj"], {"use_dora": True}),
        ("t5-large", ALIGNED, "lora", ["q", "v"], {}),
    ],
)
def test_parameters_are_those_that_peft_counts(
    model: str, regime: Regime, method: str, targets: Any, options: Any, rank: int
) -> None:
    _, found = bundled(model, method, regime, rank=rank, alpha=2 * rank)
    total, trained, stored_bytes = found.parameter_counts(found.facts["units"])
    assert (trained, total) == peft_counts(model, rank, targets, **options)
    assert stored_bytes == 4 * trained  # adapters are fp32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "method", "regime", "rank"),
    [
        ("Qwen/Qwen2.5-0.5B", "lora-all", ANY, 33),
        ("Qwen/Qwen2.5-0.5B", "lora", ANY, 128),
        ("meta-llama/Llama-3.1-8B", "qlora", ANY, 64),
        ("meta-llama/Llama-3.1-8B", "dora", ANY, 16),
        ("google-bert/bert-large-uncased", "qlora", ANY, 4),
    ],
)
def test_bundled_ones_set_to_a_rank_are_as_recorded_at_that_rank(
    model: str, method: str, regime: Regime, rank: int
) -> None:
    variant, found = bundled(model, method, regime, rank=rank)
    fresh = record(variant.model, variant.method, variant.training, regime=regime)
    assert_same_run(found, fresh, (3, 208, 112))
