"""The model catalog: names, counts, config keys, positions, local config files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.data.models import (
    config_key,
    find_model,
    max_positions,
    model_ids,
    name_index,
    read_config,
    read_models,
)
from peftadvisor.data.sources import describe_sources, load_sources
from peftadvisor.data.tables import catalog_path
from peftadvisor.errors import UnknownNameError, UsageError
from peftadvisor.specs import ModelSpec

ROWS = read_models(catalog_path("models.csv"))


def _spec(**config: Any) -> ModelSpec:
    return ModelSpec(
        id="test",
        config=config,
        config_key="",
        parameters=None,
        checkpoint_parameters=None,
        provenance="test",
    )


def test_the_catalog_has_every_model() -> None:
    assert len(model_ids()) == 297
    assert model_ids() == sorted(ROWS, key=str.lower)


@pytest.mark.parametrize("model_id", model_ids())
def test_rows_and_configs_agree(model_id: str) -> None:
    model, row = find_model(model_id), ROWS[model_id]
    assert model.id == model_id
    assert model.model_type == row.text("model_type")
    assert model.config_key == config_key(model.config)
    assert model.parameters is not None
    assert model.checkpoint_parameters is not None
    assert 1e6 < model.parameters <= model.checkpoint_parameters < 1e12
    assert row.text("confidence") in {"high", "medium", "low"}
    assert row.text("origin") in {"verbatim", "matched", "reconstructed"}
    assert describe_sources(row.text("source"))
    compared = (row.optional("dims_checked_against") or "").split("; ")
    assert {name for name in compared if name and ":" not in name} <= set(load_sources())


@pytest.mark.parametrize(
    "model_id", [i for i in model_ids() if ROWS[i].optional("published_parameters")]
)
def test_counts_are_near_the_published_ones(model_id: str) -> None:
    # Published totals may count a tied head twice, leave the head out or add a prediction
    # layer; none of that is more than 40 % (ALBERT and small multilingual models are mostly
    # embedding), while a wrong depth or width would be.
    published = ROWS[model_id].integer("published_parameters")
    assert 0.6 < ROWS[model_id].integer("checkpoint_parameters") / published < 1.4


@pytest.mark.parametrize(
    "name", ["t5-11b", "google-t5/t5-11b", "T5-11B", "GOOGLE-T5/T5-11B", "google-t5/T5-11b"]
)
def test_t5_11b_by_any_name(name: str) -> None:
    model = find_model(name)
    assert model.id == "google-t5/t5-11b"
    # d = 1024, 128 heads of 128 (inner 16384), ff 65536, 24 + 24 layers, vocabulary 32128:
    # encoder layer 4*d*inner + 2*d*ff + 2*d = 201,328,640
    # decoder layer 8*d*inner + 2*d*ff + 3*d = 268,438,528
    # per stack one final norm (d) and one table of 32 relative positions x 128 heads
    layers = 24 * (201_328_640 + 268_438_528)
    assert model.parameters == layers + 2 * (1024 + 32 * 128) + 32128 * 1024 == 11_307_321_344
    assert model.checkpoint_parameters == model.parameters
    assert model.provenance == "bundled reconstructed config (family-pattern; confidence high)"


def test_checkpoints_with_a_separate_head() -> None:
    model = find_model("flan-t5-xxl")
    assert model.parameters is not None
    # transformers >= 5 ties the head; the checkpoint holds one more matrix of 32128 x 4096.
    assert model.checkpoint_parameters == model.parameters + 32128 * 4096
    separate = [
        i
        for i in model_ids()
        if ROWS[i].cells["parameters"] != ROWS[i].cells["checkpoint_parameters"]
    ]
    assert len(separate) == 17  # T5 v1.1 (5), Flan-T5 (5), mT5 (5), ByT5 (2)


def test_every_short_name_and_alias_means_its_model() -> None:
    for model_id, row in ROWS.items():
        aliases = list(filter(None, (row.optional("aliases") or "").split("|")))
        for name in (model_id.split("/")[-1], *aliases, *(a.split("/")[-1] for a in aliases)):
            assert find_model(name).id == model_id, name


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("gpt2", "openai-community/gpt2"),
        ("llama-3-8b", "meta-llama/Meta-Llama-3-8B"),
        ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("bert-base-uncased", "google-bert/bert-base-uncased"),
    ],
)
def test_former_and_short_names(name: str, model_id: str) -> None:
    assert find_model(name).id == model_id


def test_a_short_name_of_two_organisations_is_ambiguous() -> None:
    index = name_index({"org-b/Tiny": (), "org-a/tiny": ("org-c/small",), "tiny-2": ()})
    with pytest.raises(UsageError) as caught:
        index.resolve("TINY", ["tiny"])
    assert str(caught.value) == "model 'TINY' is ambiguous; write one of: org-a/tiny, org-b/Tiny"
    assert index.resolve("org-a/Tiny", []) == "org-a/tiny"
    assert index.resolve("small", []) == "org-a/tiny"
    assert index.resolve("tiny-2", []) == "tiny-2"


def test_an_id_wins_over_another_model_with_the_same_short_name() -> None:
    assert name_index({"gpt2": (), "someone/gpt2": ()}).resolve("gpt2", []) == "gpt2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t5-11", "unknown model 't5-11'; did you mean 't5-11b'? See: peftadvisor list models"),
        (
            "google/t5-11b",
            "unknown model 'google/t5-11b'; did you mean 'google-t5/t5-11b'?"
            " See: peftadvisor list models",
        ),
        ("§", "unknown model '§'; See: peftadvisor list models"),
        ("", "unknown model ''; See: peftadvisor list models"),
        ("/", "unknown model '/'; See: peftadvisor list models"),
    ],
)
def test_unknown_names_suggest_a_close_one(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_model(name)
    assert str(caught.value) == message


def test_configs_are_fresh_copies() -> None:
    first = find_model("gpt2")
    assert isinstance(first.config, dict)
    first.config.clear()
    assert find_model("gpt2").model_type == "gpt2"


def test_remote_code_models_carry_a_native_twin() -> None:
    twins = {i: find_model(i).config.get("_build_as") for i in model_ids()}
    assert {i: twin["model_type"] for i, twin in twins.items() if twin} == {
        "baichuan-inc/Baichuan2-13B-Base": "llama",
        "baichuan-inc/Baichuan2-7B-Base": "llama",
        "internlm/internlm2_5-7b-chat": "llama",
        "THUDM/chatglm3-6b": "glm",
    }


# --- config_key ---------------------------------------------------------------------------


def test_config_key_is_a_sha256_of_the_sorted_shape() -> None:
    text = b'{"hidden_size":8,"model_type":"llama"}'
    expected = hashlib.sha256(text).hexdigest()[:16]
    assert config_key({"model_type": "llama", "hidden_size": 8}) == expected == "2472a039b0418f50"


@pytest.mark.parametrize(
    "cosmetic",
    [
        {"_name_or_path": "x"},
        {"_anything": 1},
        {"transformers_version": "5.23.0"},
        {"torch_dtype": "bfloat16"},
        {"dtype": "float16"},
        {"bos_token_id": 1, "eos_token_id": [1, 2], "decoder_start_token_id": 0},
        {"text_config": {"n": 1, "torch_dtype": "bfloat16", "_name_or_path": "y"}},
        {"partial_rotary_factor": 1.0},
        {"pretraining_tp": 1, "initializer_range": 0.02, "rms_norm_eps": 1e-6},
        {"rope_theta": 5e5, "max_position_embeddings": 131072},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28},
    ],
)
def test_config_key_ignores_what_leaves_the_shape_alone(cosmetic: dict[str, Any]) -> None:
    base = {
        "model_type": "llama",
        "partial_rotary_factor": 1,
        "text_config": {"n": 1},
        "use_sliding_window": False,
    }
    assert config_key({**cosmetic, **base} | cosmetic) == config_key(base)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 16},
        {"architectures": ["LlamaForSequenceClassification"]},
        {"tie_word_embeddings": True},
        {"text_config": {"n": 2}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": "yarn", "factor": 2.0}, "max_position_embeddings": 8},
        {"sliding_window": 4096},
        {"use_sliding_window": True},
        {"model_type": "opt", "max_position_embeddings": 8},
        {"layers": ["a", "b"]},
        {"layers": ["b", "a"]},
    ],
)
def test_config_key_sees_the_shape(change: dict[str, Any]) -> None:
    base = {"model_type": "llama", "hidden_size": 8, "text_config": {"n": 1}, "layers": []}
    assert config_key(base | change) != config_key(base)


def test_models_of_one_shape_share_a_key() -> None:
    assert find_model("bloomz-560m").config_key == find_model("bloom-560m").config_key
    assert find_model("t5-3b").config_key != find_model("t5-11b").config_key
    assert find_model("Llama-3.1-8B-Instruct").config_key == find_model("Llama-3.1-8B").config_key
    assert len({row.text("config_key") for row in ROWS.values()}) == 238


# --- max_positions ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("t5-11b", None),  # relative, although its config says n_positions 512
        ("flan-t5-xl", None),
        ("bloom-560m", None),  # ALiBi
        ("mpt-7b", None),  # ALiBi, although max_seq_len is 2048
        ("falcon-rw-1b", None),  # ALiBi
        ("deberta-v3-base", None),  # relative, although max_position_embeddings is 512
        ("wav2vec2-base", None),
        ("falcon-7b", 2048),  # class default, not in the file
        ("gpt2", 1024),
        ("gpt-j-6b", 2048),
        ("opt-1.3b", 2048),
        ("Llama-3.2-3B", 131072),
        ("Meta-Llama-3-8B", 8192),
        ("bart-large", 1024),
        ("roberta-base", 512),  # a table of 514, of which the padding offset takes 2
        ("xlm-roberta-xl", 512),
        ("bert-base-uncased", 512),
        ("whisper-tiny", 1500),
        ("chatglm3-6b", 8192),  # seq_length
        ("gemma-3-4b-it", 131072),  # in text_config
        ("clip-vit-base-patch16", 77),  # in text_config, not the vision table
        ("vit-base-patch16-224", 197),  # (224 / 16)^2 patches + class token
    ],
)
def test_longest_input(name: str, limit: int | None) -> None:
    assert max_positions(find_model(name)) == limit


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"model_type": "mpt", "max_seq_len": 2048, "attn_config": {"alibi": False}}, 2048),
        ({"model_type": "mpt", "max_seq_len": 2048}, None),
        ({"model_type": "falcon", "alibi": True, "max_position_embeddings": 2048}, None),
        ({"model_type": "deberta-v2", "max_position_embeddings": 512}, 512),
        ({"model_type": "bert"}, 512),
        ({"model_type": "roberta"}, 510),  # class default 512 less 2
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": None}, 514),
        ({"model_type": "gpt2", "n_positions": None, "n_ctx": 256}, 256),
        ({"model_type": "xlnet", "max_position_embeddings": -1}, None),
        ({"model_type": "newcomer", "max_position_embeddings": 77}, 77),
        ({"model_type": "newcomer"}, None),
        ({"model_type": "vit", "image_size": 224}, None),
        ({"model_type": "llava", "text_config": {"max_position_embeddings": 64}}, 64),
        ({"model_type": "x", "n_ctx": 9, "text_config": {"model_type": "t5"}}, None),
    ],
)
def test_longest_input_of_other_configs(config: dict[str, Any], limit: int | None) -> None:
    assert max_positions(_spec(**config)) == limit


# --- broken catalogs ----------------------------------------------------------------------


def test_a_broken_model_catalog_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "models.csv"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="models.csv is empty"):
        read_models(path)
    first_two = catalog_path("models.csv").read_text(encoding="utf-8").splitlines()[:2]
    path.write_text("\n".join([*first_two, first_two[1]]), encoding="utf-8")
    with pytest.raises(UsageError, match="models.csv, line 3: a second row for '01-ai/Yi-1.5-9B'"):
        read_models(path)


@pytest.mark.parametrize("content", [b"", b'{"id":"a/b",', b'{"id":"a/b","config":3}', b"\xff"])
def test_a_broken_config_store_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model_configs.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"model_configs.jsonl holds no config of 'a/b'"):
        read_config(path, "a/b")
    with pytest.raises(UsageError, match="holds no config of 'a/b'"):
        read_config(tmp_path / "gone.jsonl", "a/b")
