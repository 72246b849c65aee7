"""Every method on real tiny models on the CPU: counts of PEFT, and who gets a gradient.

Unlike the simulator's, these models hold numbers: a method that freezes too much or does not
reach the loss shows here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from peftadvisor.errors import UnsupportedError  # noqa: E402
from peftadvisor.methods import COMMON, find_method  # noqa: E402
from peftadvisor.simulator.step import prepare  # noqa: E402
from peftadvisor.specs import MethodSpec, TrainingSpec  # noqa: E402
from tests.parity.tiny import spec  # noqa: E402

VOCABULARY = 64
_SMALL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "t5": {
        **_SMALL,
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "d_model": 32,
        "d_ff": 64,
        "d_kv": 16,  # times 4 heads is twice d_model, as in T5-3B
        "num_heads": 4,
        "num_layers": 2,
        "num_decoder_layers": 2,
    },
    "llama": {
        **_SMALL,
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "bert": {
        **_SMALL,
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "gpt2": {
        **_SMALL,
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
    },
}
UNSUPPORTED = {
    ("t5", "bitfit"): "no bias",
    ("llama", "bitfit"): "no bias",
    ("bert", "prompt-tuning"): "reads and writes text",
    ("bert", "prefix-tuning"): "reads and writes text",
}
PAIRS = [(model, method) for model in MODELS for method in COMMON]
SUPPORTED = [pair for pair in PAIRS if pair not in UNSUPPORTED]
# Methods for which PEFT has no counterpart and wraps nothing.
OWN = ("full", "bitfit", "houlsby", "pfeiffer")
# Their second matrix starts at zero, so the first has a gradient of exactly zero in step one.
ZERO_START = ("lora", "lora-all", "qlora", "dora")


def real_base(model: str) -> Any:
    raw = dict(MODELS[model])
    (architecture,) = raw.pop("architectures")
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    config.use_cache = False
    torch.manual_seed(0)
    return getattr(transformers, architecture)(config).train()


def attached(model: str, method: str) -> Any:
    chosen = find_method(method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return chosen.attach(real_base(model), chosen.settings(MethodSpec(name=method)))


def backward(model: Any) -> None:
    torch.manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (2, 8))
    labels = torch.randint(3, VOCABULARY, (2, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    torch.autograd.backward([out.loss])


def count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("model", "method"), [p for p in SUPPORTED if p[1] not in OWN])
def test_counts_equal_pefts(model: str, method: str) -> None:
    real = attached(model, method)
    trained, everything = real.get_nb_trainable_parameters()
    simulated = prepare(spec(MODELS[model]), MethodSpec(name=method), TrainingSpec(dtype="fp32"))
    assert count(simulated.model) == trained == count(real)
    assert sum(p.numel() for p in simulated.model.parameters()) == everything


@pytest.mark.parametrize(("model", "method"), [p for p in SUPPORTED if p[1] in OWN])
def test_counts_of_our_own_methods_equal_the_real_models(model: str, method: str) -> None:
    simulated = prepare(spec(MODELS[model]), MethodSpec(name=method), TrainingSpec(dtype="fp32"))
    ours = {n: p.shape for n, p in simulated.model.named_parameters() if p.requires_grad}
    real = attached(model, method).named_parameters()
    assert ours == {n: p.shape for n, p in real if p.requires_grad}


@pytest.mark.parametrize(("model", "method"), SUPPORTED)
def test_all_that_is_trained_gets_a_gradient_and_nothing_else(model: str, method: str) -> None:
    run = attached(model, method)
    before = {name: p.detach().clone() for name, p in run.named_parameters()}
    backward(run)
    for name, p in run.named_parameters():
        if not p.requires_grad:
            assert p.grad is None, f"{name} is frozen"
            continue
        assert p.grad is not None, f"{name} is trained, but the loss does not depend on it"
        starts_at_zero = method in ZERO_START and ".lora_A." in name
        assert bool(p.grad.any()) != starts_at_zero, name
    optimizer = torch.optim.SGD([p for p in run.parameters() if p.requires_grad], lr=0.1)
    optimizer.step()
    optimizer.zero_grad()
    moved = {n for n, p in run.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= {n for n, p in run.named_parameters() if p.requires_grad}
    backward(run)  # from the second step on, LoRA's first matrix learns as well
    assert all(p.grad.any() for p in run.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "method", ["lora", "lora-all", "qlora", "dora", "ia3", "ln-tuning", "bitfit"]
)
def test_methods_that_start_as_the_base_do_not_change_its_output(method: str) -> None:
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        expected = real_base("gpt2").eval()(input_ids=ids).logits
        assert torch.allclose(
            attached("gpt2", method).eval()(input_ids=ids).logits, expected, atol=1e-5
        )


@pytest.mark.parametrize(("model", "method"), UNSUPPORTED)
def test_what_cannot_exist_is_refused(model: str, method: str) -> None:
    with pytest.raises(UnsupportedError, match=UNSUPPORTED[model, method]):
        attached(model, method)


def test_the_prompt_of_t5_is_trained_as_a_whole() -> None:
    run = attached("t5", "prompt-tuning")
    backward(run)
    (prompt,) = [p for p in run.parameters() if p.requires_grad]
    assert prompt.shape == (20, 32)
    assert prompt.grad.any(dim=1).all()
