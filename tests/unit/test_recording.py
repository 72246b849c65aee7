"""Recordings: bytes and back, damage, formulas, pieces, the cache, and how the peak must grow."""

from __future__ import annotations

import dataclasses
import json
import random
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from peftadvisor.errors import UnsupportedError, UsageError
from peftadvisor.simulator import library, obtain, recording_files
from peftadvisor.simulator.expansion import expand
from peftadvisor.simulator.library import Variant, attention_kernels, cache_folder
from peftadvisor.simulator.parts import BASE_UNITS
from peftadvisor.simulator.polynomials import Point, Term, fit
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.recording_files import pack, unpack
from peftadvisor.simulator.regimes import Regime, regime_of, sample_points, windows
from peftadvisor.simulator.trace import Event, Owner
from peftadvisor.specs import GpuSpec, MethodSpec, ModelSpec, TrainingSpec

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 4096,
}
TINY = ModelSpec(
    id="tiny/llama",
    config=LLAMA,
    config_key="feedfacefeedface",
    parameters=None,
    checkpoint_parameters=None,
    provenance="made for a test",
)
MANY = Regime(single=False, lengths="any")
UNITS = [8]


@pytest.fixture(scope="session")
def recorded() -> Recording:
    """LoRA on a Llama of 8 small layers, recorded once for all tests here."""
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    from peftadvisor.simulator.record import record

    return record(TINY, MethodSpec(name="lora"), regime=MANY)


@pytest.mark.parametrize(
    ("method", "settings", "trained"),
    [
        # A key and a value, 2 x 2 heads x 16, for each of 20 virtual tokens in 8 layers: they grow
        # with depth outside of all layers.
        ("prefix-tuning", {"virtual_tokens": 20}, 8 * 20 * 2 * 32),
        # A prompt of 10 x 64 and a gate in the last 6 layers only.
        ("adaption-prompt", {"virtual_tokens": 10, "layers": 6}, 6 * (10 * 64 + 1)),
    ],
)
def test_parameters_where_layers_differ(
    method: str, settings: dict[str, int], trained: int
) -> None:
    pytest.importorskip("peft")
    from peftadvisor.simulator.record import record

    chosen = MethodSpec(name=method).with_settings(**settings)
    made = record(TINY, chosen, regime=Regime(single=False, lengths="aligned"))
    assert made.parameter_counts(made.facts["units"])[1] == trained


@pytest.fixture(scope="session")
def packed(recorded: Recording) -> bytes:
    return pack(recorded)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_folder()


def variant(**changes: Any) -> Variant:
    parts = {"model": TINY, "method": MethodSpec(name="lora"), "training": TrainingSpec()}
    return Variant(**{**parts, "kernels": "flash", **changes})


def arrays_of(recording: Recording) -> Iterator[tuple[str, Any]]:
    for part in ("events", "blocks", "storages", "kernels", "formulas"):
        value = getattr(recording, part)
        for field in dataclasses.fields(value):
            yield f"{part}.{field.name}", getattr(value, field.name)


# -- Bytes ---------------------------------------------------------------------------------------


def test_pack_and_unpack(recorded: Recording, packed: bytes) -> None:
    again = unpack(packed)
    for (name, before), (_, after) in zip(arrays_of(recorded), arrays_of(again), strict=True):
        assert (
            np.array_equal(before, after) if isinstance(before, np.ndarray) else before == after
        ), name
    assert again.facts == recorded.facts
    assert pack(again) == packed
    assert len(packed) < 20_000


def test_what_is_unpacked_plays_the_same(recorded: Recording, packed: bytes) -> None:
    again, point = unpack(packed), (3, 333, 1)
    assert again.peak(point, UNITS) == recorded.peak(point, UNITS)
    assert again.kernel_uses(point, UNITS) == recorded.kernel_uses(point, UNITS)
    for ours, theirs in zip(
        expand(again, point, UNITS), expand(recorded, point, UNITS), strict=True
    ):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("data", [b"", b"\x00", b"not a recording", b"x\x9c", zlib.compress(b"")])
def test_no_recording_at_all(data: bytes) -> None:
    with pytest.raises(UsageError, match="this recording is damaged .*delete it and run again"):
        unpack(data)


def test_cut_short_or_followed_by_something(packed: bytes) -> None:
    for length in (1, 2, 10, 100, len(packed) // 2, len(packed) - 1):
        with pytest.raises(UsageError, match="damaged"):
            unpack(packed[:length])
    with pytest.raises(UsageError, match="damaged"):
        unpack(packed + b"more")


def test_flipped_bits_of_the_file(packed: bytes) -> None:
    """Every flipped bit is noticed but the few that mean nothing (padding of the last block)."""
    unnoticed = 0
    chance = random.Random(1)
    for _ in range(200):
        data = bytearray(packed)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            made = unpack(bytes(data))
        except UsageError:
            continue
        unnoticed += 1
        assert pack(made) == packed
    assert unnoticed < 5


def test_random_bytes() -> None:
    chance = random.Random(2)
    for length in (1, 4, 40, 4000):
        for _ in range(20):
            data = chance.randbytes(length)
            for candidate in (data, zlib.compress(data)):
                with pytest.raises(UsageError, match="damaged"):
                    unpack(candidate)


def test_damage_under_a_checksum_that_agrees(packed: bytes) -> None:
    """A flipped bit inside is refused, or leaves a recording that plays: never another error."""
    raw, chance = zlib.decompress(packed), random.Random(3)
    size = int.from_bytes(raw[:4], "little")
    refused = 0
    for number in range(300):
        data = bytearray(raw)
        first, last = (0, 4 + size) if number % 2 else (4 + size, len(raw))
        data[chance.randrange(first, last)] ^= 1 << chance.randrange(8)
        try:
            made = unpack(zlib.compress(bytes(data), 1))
        except UsageError:
            refused += 1
            continue
        with np.errstate(over="ignore"):
            made.allocated_peak((2, 64, 1), UNITS)
            made.kernel_uses((2, 64, 1), UNITS)
    assert refused > 30


def test_a_bomb_is_refused_and_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_files, "MAX_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="damaged"):
        unpack(zlib.compress(bytes(1 << 24), 9))


def header_changed(packed: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    raw = zlib.decompress(packed)
    size = int.from_bytes(raw[:4], "little")
    header = json.loads(raw[4 : 4 + size])
    made = change(header)
    head = json.dumps(header if made is None else made).encode()
    return zlib.compress(len(head).to_bytes(4, "little") + head + raw[4 + size :])


def _drop(*names: str) -> Callable[[dict[str, Any]], Any]:
    return lambda header: [header.pop(name) for name in names] and None


def _array(number: int, value: Any, at: int = 1) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header["arrays"][number].__setitem__(at, value)


HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda header: [1, 2],
    "a number": lambda header: 7,
    "no arrays": _drop("arrays"),
    "no format": _drop("format"),
    "no facts": _drop("facts"),
    "no names": _drop("names"),
    "no terms": _drop("terms"),
    "an array less": lambda header: header["arrays"].pop() and None,
    "an unknown dtype": _array(0, "<z9"),
    "objects": _array(0, "|O"),
    "floats": _array(0, "<f8"),
    "a dtype that is no text": _array(0, 5),
    "a negative shape": _array(0, [-1], at=2),
    "a shape too large": _array(0, [1 << 60], at=2),
    "a shape beyond 64 bits": _array(0, [1 << 80], at=2),
    "a shape of text": _array(0, ["4"], at=2),
    "a shape that is none": _array(0, None, at=2),
    "a term too short": lambda header: header["terms"].append([1, 2]),
    "a term of text": lambda header: header.__setitem__("terms", ["abcde"] * len(header["terms"])),
    "no units": lambda header: header["facts"].pop("units") and None,
    "units of another model": lambda header: header["facts"].__setitem__("units", [1, 2, 3]),
    "too few names": lambda header: header.__setitem__("names", header["names"][:1]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_damaged_headers(packed: bytes, name: str) -> None:
    with pytest.raises(UsageError, match="damaged"):
        unpack(header_changed(packed, HEADERS[name]))


def test_deeply_nested_header() -> None:
    head = b"[" * 200_000
    with pytest.raises(UsageError, match="damaged"):
        unpack(zlib.compress(len(head).to_bytes(4, "little") + head))


def test_another_format(packed: bytes) -> None:
    other = header_changed(packed, lambda header: header.__setitem__("format", 99))
    with pytest.raises(UsageError, match="has format 99, not"):
        unpack(other)


# -- Formulas ------------------------------------------------------------------------------------

POINTS: list[Point] = [
    (2, 160, 512),
    (3, 275, 720),
    (2, 400, 97),
    (5, 519, 336),
    (4, 720, 859),
    (3, 101, 208),
    (2, 336, 635),
    (4, 850, 160),
    (5, 208, 272),
]
OTHERS: list[Point] = [(7, 33, 1000), (1, 1, 1), (6, 2049, 17), (11, 777, 333)]


def up(n: int, k: int) -> int:
    return -(-n // k) * k


SOURCE: dict[str, Callable[[int, int, int], int]] = {
    "constant": lambda b, s, t: 123_456,
    "zero": lambda b, s, t: 0,
    "b": lambda b, s, t: 512 * b,
    "b s": lambda b, s, t: b * s * 64,
    "s of a mask": lambda b, s, t: s * up(s, 16) * 2,
    "b s of a mask": lambda b, s, t: b * 8 * s * up(s, 8),
    "b s s": lambda b, s, t: b * s * s * 12 * 2,
    "rounded": lambda b, s, t: b * up(s, 128) * 4,
    "two terms": lambda b, s, t: b * s * 4096 + 8,
    "logits and counter": lambda b, s, t: b * s * 32128 * 4 + 4 * b,
    "three terms": lambda b, s, t: 3 * b * s * s + 5 * b * s + 7,
    "no weight is negative": lambda b, s, t: b * s * 16 - 16 * b,  # a shift by one token
    "large": lambda b, s, t: b * s * s * 2**24,
}
TARGET: dict[str, Callable[[int, int, int], int]] = {
    "b t": lambda b, s, t: b * t * 64,
    "b s t": lambda b, s, t: b * s * t * 16,
    "b s t of a mask": lambda b, s, t: b * t * up(s, 8) * 2,
    "t of a mask": lambda b, s, t: t * up(t, 16) * 2,
    "encoder and decoder": lambda b, s, t: b * s * 1024 + b * t * 2048,
}


def value_at(formula: tuple[tuple[Term, int], ...], point: Point) -> int:
    grid = np.asarray([point], dtype=np.int64)
    return sum(coefficient * int(term.values(grid)[0]) for term, coefficient in formula)


@pytest.mark.parametrize("name", [*SOURCE, *TARGET])
def test_fit_finds_the_formula(name: str) -> None:
    known = {**SOURCE, **TARGET}[name]
    values = np.asarray([[known(*p) for p in POINTS]], dtype=np.int64)
    (found,) = fit(values, POINTS, uses_target=name in TARGET)
    assert found is not None
    for point in [*POINTS, *OTHERS]:
        assert value_at(found, point) == known(*point)


def test_fit_names_the_terms() -> None:
    values = np.asarray([[b * s * 64 for b, s, _ in POINTS], [7] * len(POINTS)], dtype=np.int64)
    assert fit(values, POINTS, uses_target=False) == [
        ((Term(1, (1, 0), (0, 0)), 64),),
        ((Term(0, (0, 0), (0, 0)), 7),),
    ]


@pytest.mark.parametrize(
    "unknown",
    [
        lambda b, s, t: s**3,
        lambda b, s, t: b * b * s,
        lambda b, s, t: b * s * 3 // 2 + s % 7,
        lambda b, s, t: b * up(s, 24),
        lambda b, s, t: min(s, 256) * b,
    ],
)
@pytest.mark.parametrize("uses_target", [False, True])
def test_fit_gives_none_where_there_is_no_formula(
    unknown: Callable[[int, int, int], int], uses_target: bool
) -> None:
    values = np.asarray([[unknown(*p) for p in POINTS], [1] * len(POINTS)], dtype=np.int64)
    found = fit(values, POINTS, uses_target)
    assert found[0] is None
    assert found[1] is not None  # the others are found all the same


def test_one_point_gives_constants() -> None:
    values = np.asarray([[5], [0]], dtype=np.int64)
    found = fit(values, [(1, 10, 10)], uses_target=False)
    assert [value_at(f, (1, 10, 10)) for f in found if f is not None] == [5, 0]


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 1 << 20),
    st.integers(0, 1 << 20),
    st.sampled_from([lambda s: s, lambda s: s * s, lambda s: up(s, 64)]),
)
def test_fit_is_exact_for_any_coefficients(a: int, c: int, shape: Callable[[int], int]) -> None:
    values = np.asarray([[a * b * shape(s) + c for b, s, _ in POINTS]], dtype=np.int64)
    (found,) = fit(values, POINTS, uses_target=False)
    assert found is not None
    for b, s, t in OTHERS:
        assert value_at(found, (b, s, t)) == a * b * shape(s) + c


# -- Pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "config", "key"),
    [
        ((1, 512, 128), {}, "one-aligned"),
        ((2, 512, 128), {}, "many-aligned"),
        ((2, 513, 127), {}, "many-ragged"),
        ((2, 513, 128), {}, "many-source-ragged"),
        ((9, 512, 127), {}, "many-target-ragged"),
        ((2, 4095, 16), {"sliding_window": 4096}, "many-source-ragged"),
        ((2, 4096, 16), {"sliding_window": 4096}, "many-aligned-w4096"),
        ((1, 8192, 16), {"sliding_window": 4096}, "one-aligned-w4096"),
        ((2, 8192, 16), {"sliding_window": 4096, "use_sliding_window": False}, "many-aligned"),
        ((2, 800, 16), {"text_config": {"sliding_window": 512}}, "many-aligned-w512"),
        ((2, 800, 16), {"sliding_window": None}, "many-aligned"),
    ],
)
def test_regime_of_a_point(point: Point, config: dict[str, Any], key: str) -> None:
    assert regime_of(point, config).key == key


def test_windows() -> None:
    assert windows({}) == ()
    assert windows({"sliding_window": 4096, "attention_chunk_size": 1024}) == (1024, 4096)
    assert windows({"sliding_window": 0}) == ()


@pytest.mark.parametrize("uses_target", [False, True])
@pytest.mark.parametrize("limit", [None, 8192, 512])
@pytest.mark.parametrize("config", [{}, {"sliding_window": 300}])
@pytest.mark.parametrize(
    "point", [(1, 16, 16), (2, 16, 16), (1, 17, 17), (2, 17, 17), (2, 17, 16), (2, 400, 16)]
)
def test_sample_points_lie_in_their_piece(
    point: Point, config: dict[str, Any], limit: int | None, uses_target: bool
) -> None:
    regime = regime_of(point, config)
    points = sample_points(regime, config, limit, uses_target)
    assert len(set(points)) == len(points) >= 4
    for b, s, t in points:
        there = regime_of((b, s, t if uses_target else 16 + point[2] % 16), config)
        assert there == regime
        assert limit is None or s <= limit


# -- Variants and the cache ----------------------------------------------------------------------


def test_names_of_variants_differ_where_anything_differs() -> None:
    """Every field that a recording depends on is in its name; batch and lengths are not."""
    training = [
        {"padded": True},
        {"dtype": "fp16"},
        {"dtype": "fp32"},
        {"amp": True},
        *({"quantization": q} for q in ("nf4", "nf4-dq", "int8")),
        *(
            {"optimizer": o}
            for o in (
                "adamw-loop",
                "adamw-fused",
                "adamw-8bit",
                "paged-adamw-8bit",
                "adafactor",
                "sgd",
            )
        ),
        {"gradient_checkpointing": "reentrant"},
        {"gradient_checkpointing": "non-reentrant"},
        {"attention": "eager"},
        {"attention": "flash_attention_2"},
        {"max_grad_norm": 0},
        {"amp": True, "padded": True},
        {"kbit_preparation": "trl"},
        {"kbit_preparation": "none"},
        {"loss": "fused"},
        {"loss": "fused-linear"},
        {"loop": "trainer"},
        {"transformers": "4"},
        {"transformers": "4.45"},
    ]
    base = MethodSpec(name="lora")
    methods = [
        base,
        MethodSpec(name="dora"),
        base.with_settings(rank=16),
        base.with_settings(rank=24),
        base.with_settings(dropout=0.1),
        base.with_settings(target_modules=["q"]),
        base.with_settings(target_modules=["q", "v"]),
    ]
    regimes = [
        dataclasses.replace(MANY, **change)
        for change in ({}, {"single": True}, {"lengths": "ragged"}, {"beyond_window": 128})
    ]
    names = [
        *(variant(training=TrainingSpec(**change)).member(MANY) for change in training),
        *(variant(method=method).member(MANY) for method in methods),
        *(variant(kernels=k).member(MANY) for k in ("cudnn", "efficient", "cpu")),
        *(variant().member(regime) for regime in regimes[1:]),
    ]
    assert len(set(names)) == len(names)
    covered = {key for change in training for key in change}
    left_out = {"micro_batch_size", "seq_len", "target_len", "gradient_accumulation_steps"}
    assert {f.name for f in dataclasses.fields(TrainingSpec)} == covered | left_out
    for name in left_out:
        assert variant(training=TrainingSpec(**{name: 3})).member(MANY) == variant().member(MANY)


def test_names_do_not_depend_on_the_order_of_settings() -> None:
    one = MethodSpec(name="lora", settings=(("rank", 4), ("dropout", 0.5)))
    other = MethodSpec(name="lora").with_settings(rank=4).with_settings(dropout=0.5)
    assert variant(method=one).member(MANY) == variant(method=other).member(MANY)
    assert variant(method=one).member(MANY).startswith("lora-")


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 8},  # the default
        {"alpha": 64},  # a factor: no tensor is larger for it
        {"rank": 8, "alpha": 1, "dropout": 0},
    ],
)
def test_what_changes_no_shape_is_not_in_the_name(settings: dict[str, Any]) -> None:
    chosen = MethodSpec(name="lora").with_settings(**settings)
    assert variant(method=chosen).member(MANY) == variant().member(MANY)
    assert variant(method=chosen).size is None


def test_all_dropout_has_one_name() -> None:
    """Whether there is a mask depends on the share, how large it is does not."""
    some, more = (
        variant(method=MethodSpec(name="lora").with_settings(dropout=share)).member(MANY)
        for share in (0.05, 0.1)
    )
    assert some == more != variant().member(MANY)


@pytest.mark.parametrize("settings", [{"alpha": "high"}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_values_that_make_no_sense_are_no_default(settings: dict[str, Any]) -> None:
    chosen = MethodSpec(name="lora").with_settings(**settings)
    assert variant(method=chosen).member(MANY) != variant().member(MANY)


@pytest.mark.parametrize(
    ("capability", "vendor", "kernels"),
    [
        ((8, 0), "nvidia", "flash"),
        ((8, 9), "nvidia", "flash"),
        ((12, 0), "nvidia", "flash"),
        ((9, 0), "nvidia", "cudnn"),
        ((10, 0), "nvidia", "cudnn"),
        ((10, 3), "nvidia", "cudnn"),
        ((7, 5), "nvidia", "efficient"),
        ((7, 0), "nvidia", "efficient"),
        (None, "amd", "flash"),
        ((9, 0), "amd", "flash"),
    ],
)
def test_attention_kernels(gpu: GpuSpec, capability: Any, vendor: str, kernels: str) -> None:
    card = dataclasses.replace(gpu, compute_capability=capability, vendor=vendor)
    assert attention_kernels(card) == kernels


def test_keep_and_find(cache: Path, recorded: Recording, packed: bytes) -> None:
    assert variant().find(MANY) is None
    variant().keep(MANY, recorded)
    assert [p.name for p in cache.iterdir()] == [f"{TINY.config_key}.zip"]
    found = variant().find(MANY)
    assert found is not None
    assert pack(found) == packed
    single = dataclasses.replace(MANY, single=True)
    assert variant().find(single) is None
    assert variant(method=MethodSpec(name="ia3")).find(MANY) is None
    variant().keep(single, recorded)
    variant().keep(MANY, recorded)  # once more: nothing is added
    assert variant().find(single) is not None
    import zipfile

    with zipfile.ZipFile(cache / f"{TINY.config_key}.zip") as archive:
        assert sorted(archive.namelist()) == sorted([variant().member(r) for r in (MANY, single)])


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().parent == tmp_path / "peftadvisor"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert cache_folder().parent == tmp_path / "home" / ".cache" / "peftadvisor"


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Recording
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot keep the recording in .*set XDG_CACHE_HOME"):
        variant().keep(MANY, recorded)


def test_a_damaged_file_in_the_cache(cache: Path, recorded: Recording) -> None:
    cache.mkdir(parents=True)
    (cache / f"{TINY.config_key}.zip").write_bytes(b"no zip at all")
    with pytest.raises(UsageError, match="cannot be read"):
        variant().find(MANY)


# -- Where it comes from -------------------------------------------------------------------------


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(name: str, *rest: Any) -> Any:
        return None if name in ("torch", "transformers", "peft") else find_spec(name, *rest)

    monkeypatch.setattr(obtain, "find_spec", hidden)


@pytest.mark.parametrize("exact", [True, False])
def test_without_torch_and_without_a_recording(
    cache: Path, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    without_torch(monkeypatch)
    expected = r"no recording of lora on tiny/llama .*pip install 'peftadvisor\[profile\]'"
    with pytest.raises(UnsupportedError, match=expected):
        obtain.obtain(variant(), exact=exact)
    assert not cache.exists()


def test_without_torch_a_recording_serves(
    cache: Path, monkeypatch: pytest.MonkeyPatch, recorded: Recording
) -> None:
    without_torch(monkeypatch)
    variant().keep(MANY, recorded)
    training = TrainingSpec(micro_batch_size=3, seq_len=100, gradient_accumulation_steps=2)
    run = obtain.obtain(variant(training=training), exact=True)
    assert (run.source, run.note, run.point, run.accumulate) == (
        "on file",
        "",
        (3, 100, 128),
        True,
    )
    assert run.allocated_peak() == recorded.allocated_peak((3, 100, 128), UNITS, accumulate=True)
    assert run.peak().allocated_bytes == run.allocated_peak()
    assert run.units == UNITS
    assert set(run.versions) == {"torch", "transformers", "peft"}


def test_without_torch_the_nearest_recording_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch, recorded: Recording
) -> None:
    without_torch(monkeypatch)
    variant().keep(Regime(single=False, lengths="aligned"), recorded)
    training = TrainingSpec(micro_batch_size=2, seq_len=100)
    near = obtain.obtain(variant(training=training, kernels="cudnn"), exact=True)
    assert near.point == (2, 112, 128)
    assert near.note == (
        "lengths rounded up to 112; recorded with flash attention, this GPU runs cudnn"
    )
    same = obtain.obtain(variant(training=training), exact=True)
    assert same.note == "lengths rounded up to 112"
    with pytest.raises(UnsupportedError):  # batch 1 is another piece
        obtain.obtain(variant(), exact=True)


def test_parameters_at_full_depth(recorded: Recording) -> None:
    counts = obtain.Simulated(recorded, (2, 64, 1), False, "recording").parameters()
    d, f, kv, v = 64, 160, 32, 320
    layer = 2 * d * d + 2 * d * kv + 3 * d * f + 2 * d
    lora = 8 * 8 * (2 * d + d + kv)
    assert counts.trainable == lora
    assert counts.total == 8 * layer + 2 * v * d + d + lora
    assert counts.stored_bytes == 4 * lora


def test_frozen_factors_are_stored_too() -> None:
    pytest.importorskip("peft")
    from peftadvisor.simulator.record import record

    made = record(TINY, MethodSpec(name="lora-fa"))
    counts = obtain.Simulated(made, (2, 64, 1), False, "recording").parameters()
    d, kv, rank, layers = 64, 32, 8, 8
    assert counts.trainable == layers * rank * (d + kv)  # B of query and value
    assert counts.stored_bytes == 4 * layers * rank * (2 * d + d + kv)  # and A


def test_bundled_recordings_can_be_read() -> None:
    import zipfile

    for path in sorted(library.BUNDLED.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            name = archive.namelist()[0]
            made = unpack(archive.read(name))
            assert name.endswith(made.facts["regime"]), f"{path.name}: {name}"


# -- How the peak must grow ----------------------------------------------------------------------

POINT = st.tuples(st.integers(2, 64), st.integers(1, 4000), st.just(1))
DEPTH = st.integers(BASE_UNITS, 120)
quick = hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(POINT, DEPTH, st.integers(1, 9), st.integers(1, 500), st.integers(1, 9), st.booleans())
def test_peak_never_falls(
    recorded: Recording,
    point: Point,
    depth: int,
    more_batch: int,
    more_length: int,
    more_depth: int,
    accumulate: bool,
) -> None:
    b, s, t = point

    def peak(b: int, s: int, units: int) -> int:
        return recorded.allocated_peak((b, s, t), [units], accumulate=accumulate)

    here = peak(b, s, depth)
    assert peak(b + more_batch, s, depth) >= here
    assert peak(b, s + more_length, depth) >= here
    assert peak(b, s, depth + more_depth) > here


@quick
@given(POINT, DEPTH)
def test_accumulation_never_lowers_the_peak(recorded: Recording, point: Point, depth: int) -> None:
    plain = recorded.allocated_peak(point, [depth])
    assert recorded.allocated_peak(point, [depth], accumulate=True) >= plain


@quick
@given(POINT, DEPTH, st.booleans())
def test_owners_add_up_to_the_peak(
    recorded: Recording, point: Point, depth: int, accumulate: bool
) -> None:
    peak = recorded.peak(point, [depth], accumulate=accumulate)
    assert peak.allocated_bytes == sum(peak.by_owner.values())
    assert peak.allocated_bytes == recorded.allocated_peak(point, [depth], accumulate=accumulate)
    assert all(held > 0 for held in peak.by_owner.values())
    assert {Owner.WEIGHT, Owner.ADAPTER} <= set(peak.by_owner)


@quick
@given(POINT, DEPTH, st.booleans())
def test_expansion_frees_once_what_it_allocated_once(
    recorded: Recording, point: Point, depth: int, accumulate: bool
) -> None:
    events, sizes = expand(recorded, point, [depth], accumulate=accumulate)
    born = events[events > 0]
    assert len(np.unique(born)) == len(born) == len(sizes)
    live: set[int] = set()
    for event in events.tolist():
        if event > 0:
            live.add(event)
        else:
            assert -event in live
            live.remove(-event)
    rounded = -(-sizes // 512) * 512
    level = np.cumsum(np.sign(events) * rounded[np.abs(events) - 1])
    assert level.min() >= 0
    assert level.max() == recorded.allocated_peak(point, [depth], accumulate=accumulate)


def test_work_grows_as_it_should(recorded: Recording) -> None:
    """Twice the batch is twice the FLOPs; every count is positive."""
    one, two = (recorded.kernel_uses((b, 256, 1), UNITS) for b in (2, 4))
    assert sum(k.flops * k.count for k in two) == 2 * sum(k.flops * k.count for k in one) > 0
    assert all(k.count > 0 and k.touched_bytes >= 0 for k in one)


def test_kernels_are_in_events(recorded: Recording) -> None:
    runs = recorded.events.ref[recorded.events.kind == Event.KERNEL]
    assert set(runs.tolist()) == set(range(len(recorded.kernels.name)))


def test_what_breaks_in_a_models_own_code_does_not_go_together(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")

    def broken(*_: Any) -> Any:
        raise RuntimeError("sizes of tensors\nmust match")

    monkeypatch.setattr("peftadvisor.simulator.record.record", broken)
    expected = r"lora does not run on tiny/llama: RuntimeError: sizes of tensors\?must match"
    with pytest.raises(UnsupportedError, match=expected) as caught:
        obtain.obtain(variant(), exact=True)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not cache.exists()  # it may be a fault of ours: nothing is kept
