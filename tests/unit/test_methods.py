"""Methods on the meta device: exact trainable counts at full depth, refusals, settings.

The counts of T5 are those that Lialin et al. log for the same methods (arXiv 2303.15647 and its
code) unless a comment says why they differ. Letters: d hidden size, f feed-forward width, a heads
times head size (the attention width). T5-large, 3B and 11B have d = 1024 and 24 + 24 layers; f is
4096, 16384, 65536 and a is 1024, 4096, 16384. An encoder layer has one attention, a decoder layer
two: 72 attentions in all, and 48 feed-forwards.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest

from peftadvisor import methods
from peftadvisor.errors import UnknownNameError, UnsupportedError, UsageError
from peftadvisor.methods import find_method, method_names
from peftadvisor.methods.base import Family
from peftadvisor.specs import MethodSpec, TrainingSpec

D = 1024
LAYERS = 48
ATTENTIONS = 72
RANK = 8
SIZES = {  # f, a
    "google-t5/t5-large": (4096, 1024),
    "google-t5/t5-3b": (16384, 4096),
    "google-t5/t5-11b": (65536, 16384),
}
T5 = list(SIZES)


def prepared(model: str, method: str, training: TrainingSpec | None = None, **settings: Any) -> Any:
    pytest.importorskip("peft")
    from peftadvisor.data.models import find_model
    from peftadvisor.simulator.step import prepare

    spec = MethodSpec(name=method).with_settings(**settings)
    return prepare(find_model(model), spec, training or TrainingSpec())


def trainable(model: str, method: str, **settings: Any) -> int:
    parameters = prepared(model, method, **settings).model.parameters()
    return sum(p.numel() for p in parameters if p.requires_grad)


# -- T5 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "count"), list(zip(T5, (737_668_096, 2_851_598_336, 11_307_321_344), strict=True))
)
def test_full_trains_every_parameter_once(model: str, count: int) -> None:
    # The input embedding, 32128 d, is the output head too and counts once.
    assert trainable(model, "full") == count


@pytest.mark.parametrize(
    ("model", "count"), list(zip(T5, (2_359_296, 5_898_240, 20_054_016), strict=True))
)
def test_lora_on_query_and_value(model: str, count: int) -> None:
    # q and v of every attention, d to a: r (d + a) each.
    _, a = SIZES[model]
    assert trainable(model, "lora") == count == ATTENTIONS * 2 * RANK * (D + a)


@pytest.mark.parametrize(
    ("model", "count"), list(zip(T5, (8_650_752, 25_165_824, 91_226_112), strict=True))
)
@pytest.mark.parametrize("method", ["lora-all", "qlora"])
def test_lora_on_all_linear_layers(model: str, count: int, method: str) -> None:
    # q, k, v and o of every attention, and wi and wo of every feed-forward: r (d + a) and
    # r (d + f). The output head is left out: tied to the embedding, and an output layer.
    f, a = SIZES[model]
    assert count == ATTENTIONS * 4 * RANK * (D + a) + LAYERS * 2 * RANK * (D + f)
    assert trainable(model, method) == count


def test_qlora_counts_the_same_on_a_quantized_base() -> None:
    training = TrainingSpec(quantization="nf4-dq")
    model = prepared(T5[0], "qlora", training).model
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 8_650_752


@pytest.mark.parametrize(
    ("model", "count"), list(zip(T5, (2_506_752, 6_488_064, 22_413_312), strict=True))
)
def test_dora_adds_one_magnitude_per_output(model: str, count: int) -> None:
    # LoRA on q and v, and a magnitudes for each of them.
    _, a = SIZES[model]
    assert trainable(model, "dora") == count == ATTENTIONS * 2 * (RANK * (D + a) + a)


@pytest.mark.parametrize("model", T5)
def test_ln_tuning(model: str) -> None:
    # Two norms in an encoder layer, three in a decoder layer, one at the end of each stack.
    assert trainable(model, "ln-tuning") == 124_928 == (24 * 2 + 24 * 3 + 2) * D


@pytest.mark.parametrize(
    ("model", "count"), list(zip(T5, (344_064, 1_376_256, 5_505_024), strict=True))
)
def test_ia3(model: str, count: int) -> None:
    # A scale for each output of k and v of every attention, and for each input of wo.
    f, a = SIZES[model]
    assert trainable(model, "ia3") == count == ATTENTIONS * 2 * a + LAYERS * f


@pytest.mark.parametrize("model", T5)
@pytest.mark.parametrize(
    ("method", "count", "places"), [("houlsby", 12_687_360, 2), ("pfeiffer", 6_343_680, 1)]
)
def test_bottleneck_adapters(model: str, method: str, count: int, places: int) -> None:
    # Down and up projections with biases, d to d / 16 = 64 and back; none at cross-attention.
    assert trainable(model, method) == count == places * LAYERS * (2 * D * 64 + 64 + D)


@pytest.mark.parametrize(
    ("model", "count"), list(zip(T5, (1_474_560, 5_898_240, 23_592_960), strict=True))
)
def test_prefix_tuning_is_a_third_of_the_papers(model: str, count: int) -> None:
    # PEFT trains one key and one value of width a per virtual token and decoder layer: 30 x 24 x
    # 2a, all of it for self-attention in the decoder (cross-attention starts from an empty
    # cache). The paper's flat prefix has its own in encoder self-, decoder self- and
    # cross-attention, three times as many: 4,423,680 / 17,694,720 / 70,778,880. Left alone PEFT
    # would take d for a, which T5-3B and 11B cannot run (the test after next).
    _, a = SIZES[model]
    assert trainable(model, "prefix-tuning") == count == 30 * 24 * 2 * a
    assert 3 * count == {1024: 4_423_680, 4096: 17_694_720, 16384: 70_778_880}[a]


def test_prefix_tuning_with_projection() -> None:
    # Embeddings 30 x d, an MLP d to d to 24 x 2d, with biases.
    expected = 30 * D + D * D + D + D * (48 * D) + 48 * D
    assert trainable(T5[0], "prefix-tuning", projection=True) == expected


def test_prefix_tuning_runs_where_heads_are_wider_than_the_model() -> None:
    pytest.importorskip("peft")
    from dataclasses import replace

    from peftadvisor.data.models import find_model
    from peftadvisor.simulator.attention import Device
    from peftadvisor.simulator.depth import at_depth, depth_fields
    from peftadvisor.simulator.step import simulate

    model = find_model("google-t5/t5-3b")
    short = at_depth(model.config, dict.fromkeys(depth_fields(model.config), 2))
    training = TrainingSpec(seq_len=32, target_len=16)
    method = MethodSpec(name="prefix-tuning")
    assert simulate(replace(model, config=short), method, training, Device((8, 0))).kernel_name


@pytest.mark.parametrize("model", T5)
def test_prompt_tuning_holds_one_prompt(model: str) -> None:
    # PEFT by default gives an encoder-decoder two prompts of 20 vectors, and uses the first.
    assert trainable(model, "prompt-tuning") == 20_480 == 20 * D


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("lora", {"rank": 64}, 2_359_296 * 8),
        ("lora", {"target_modules": ["q"]}, 2_359_296 // 2),
        ("houlsby", {"reduction": 32}, 2 * LAYERS * (2 * D * 32 + 32 + D)),
        ("houlsby", {"reduction": 4096}, 2 * LAYERS * (2 * D + 1 + D)),  # never narrower than 1
        ("prompt-tuning", {"virtual_tokens": 7}, 7 * D),
        ("prefix-tuning", {"virtual_tokens": 1}, 24 * 2 * D),
        ("ln-tuning", {"target_modules": ["final_layer_norm"]}, 2 * D),
    ],
)
def test_settings_change_the_count(method: str, settings: dict[str, Any], expected: int) -> None:
    assert trainable(T5[0], method, **settings) == expected


# -- BERT: biases, no generation ------------------------------------------------------------------

BERT = "google-bert/bert-base-uncased"


def test_bitfit_trains_every_bias_of_bert() -> None:
    # 12 layers: q, k, v, o (4 x 768), feed-forward (3072 + 768), two norms. Then the norm of the
    # embeddings, and in the masked-LM head a layer, a norm and the 30522 biases of the vocabulary.
    layer = 4 * 768 + 3072 + 768 + 2 * 768
    assert trainable(BERT, "bitfit") == 134_202 == 12 * layer + 768 + 2 * 768 + 30_522
    for name, p in prepared(BERT, "bitfit").model.named_parameters():
        assert p.requires_grad == name.endswith("bias")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("lora", 12 * 2 * RANK * 1536),
        # All six linear layers of a layer and the dense layer of the head; not the decoder.
        ("lora-all", 12 * RANK * (4 * 1536 + 2 * 3840) + RANK * 1536),
        # PEFT's table names "output.dense": the end of attention too, not feed-forward alone.
        ("ia3", 12 * (768 + 768 + 768 + 3072)),
        ("ln-tuning", (1 + 24 + 1) * 2 * 768),
        ("houlsby", 24 * (2 * 768 * 48 + 48 + 768)),
        ("pfeiffer", 12 * (2 * 768 * 48 + 48 + 768)),
    ],
)
def test_counts_on_bert(method: str, expected: int) -> None:
    assert trainable(BERT, method) == expected


# -- Who is trained ----------------------------------------------------------------------------


# Methods that add parameters; the others train or replace the model's own.
ADDING = ["lora", "dora", "ia3", "ln-tuning", "prompt-tuning", "prefix-tuning", "houlsby"]


@pytest.mark.parametrize("method", ADDING)
def test_only_what_the_method_brings_is_trained(method: str) -> None:
    # LN tuning works on copies of the norms; of the base nothing is trained.
    run = prepared("google-t5/t5-small", method)
    own = {id(p) for p in run.model.parameters() if p.requires_grad}
    assert own
    assert not own & run.base_parameters


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "prompt-tuning", "prefix-tuning"])
def test_peft_makes_fp32_adapters_on_a_16_bit_base(method: str) -> None:
    import torch

    dtypes = {p.dtype for p in prepared("gpt2", method).model.parameters() if p.requires_grad}
    assert dtypes == {torch.float32}


@pytest.mark.parametrize("method", ["houlsby", "pfeiffer"])
def test_bottleneck_adapters_have_the_dtype_of_the_base(method: str) -> None:
    import torch

    dtypes = {p.dtype for p in prepared("gpt2", method).model.parameters() if p.requires_grad}
    assert dtypes == {torch.bfloat16}


def taken_by(name: str) -> Any:
    """The first of three small models that takes the method, with it attached."""
    from peftadvisor.profilers.conformance import MODELS, ModelRun
    from peftadvisor.simulator.step import prepare

    for model in MODELS:
        run = ModelRun(find_method(name), model)
        try:
            return prepare(run.spec(), MethodSpec(name=name), TrainingSpec()).model
        except UnsupportedError:
            continue
    raise AssertionError(f"no model takes {name}")


@pytest.mark.parametrize("name", method_names())
def test_nothing_leaves_the_meta_device(name: str) -> None:
    if not find_method(name).unavailable:
        assert {t.device.type for t in taken_by(name).parameters()} == {"meta"}


# -- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [T5[0], "meta-llama/Llama-3.2-1B"])
def test_bitfit_needs_biases(model: str) -> None:
    with pytest.raises(UnsupportedError, match="no bias in its linear layers.*ln-tuning or lora"):
        prepared(model, "bitfit")


@pytest.mark.parametrize("checkpointing", ["non-reentrant", "reentrant"])
def test_prefix_tuning_refuses_checkpointing(checkpointing: Any) -> None:
    training = TrainingSpec(gradient_checkpointing=checkpointing)
    with pytest.raises(UnsupportedError, match="does not work with gradient checkpointing"):
        prepared("meta-llama/Llama-3.2-1B", "prefix-tuning", training)


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize("model", [BERT, "google/vit-base-patch16-224"])
def test_soft_prompts_need_a_model_that_generates(model: str, method: str) -> None:
    with pytest.raises(UnsupportedError, match="reads and writes text"):
        prepared(model, method)


@pytest.mark.parametrize("method", ["lora", "ia3", "ln-tuning"])
def test_targets_that_the_model_does_not_have(method: str) -> None:
    with pytest.raises(UnsupportedError, match="cannot take"):
        prepared("gpt2", method, target_modules=["no_such_layer"])


@pytest.mark.parametrize("name", [n for n in method_names() if n != "smile"])
def test_unknown_setting(name: str) -> None:
    method = find_method(name)
    with pytest.raises(UsageError, match=rf"{method.name} has no setting 'rnak'; it has: \w+"):
        method.settings(MethodSpec(name=method.name, settings=(("rnak", 4),)))


def test_settings_override_defaults() -> None:
    settings = find_method("lora").settings(MethodSpec(name="lora", settings=(("rank", 4),)))
    assert settings == {"rank": 4, "alpha": 16, "dropout": 0.0, "target_modules": None}
    assert find_method("lora").defaults["rank"] == 8


def test_find_method() -> None:
    for name in method_names():
        assert find_method(name).name == name
    with pytest.raises(UnknownNameError, match="unknown method 'lorra'; did you mean 'lora'?"):
        find_method("lorra")
    with pytest.raises(UnknownNameError, match="See: peftadvisor list methods"):
        find_method("zzzzzz")


def test_facts_of_every_method() -> None:
    names = method_names()
    assert len(set(names)) == len(names)
    for method in map(find_method, names):
        assert method.title
        assert method.citation
        assert method.family in get_args(Family)
        assert method.virtual_tokens is None or method.virtual_tokens in method.defaults
        assert all(rule[0] == "R" and rule[1:].isdigit() for rule in method.rules)


FOLDERS = {
    "full": "full",
    "adapter": "adapters",
    "soft prompt": "prompts",
    "additive": "additive",
    "selective": "selective",
    "reparametrization": "reparametrization",
    "hybrid": "hybrid",
}


def test_a_method_lies_in_the_folder_of_its_family() -> None:
    for name, file in methods._FILES.items():
        assert file.split(".")[0] == FOLDERS[find_method(name).family], name


def test_a_method_that_cannot_be_run_says_what_it_needs() -> None:
    with pytest.raises(UnsupportedError, match="smile cannot be run: .*fine-tuned checkpoints"):
        prepared("meta-llama/Llama-3.2-1B", "smile")


def test_methods_import_without_torch() -> None:
    code = (
        "import sys, peftadvisor.methods; "
        "print(*{'torch', 'peft', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
