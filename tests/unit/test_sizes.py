"""A rank is a variable of a recording: set to one, it is what a recording at that rank is."""

from __future__ import annotations

import dataclasses
import json
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from peftadvisor.errors import UnsupportedError, UsageError
from peftadvisor.methods import find_method
from peftadvisor.simulator import obtain
from peftadvisor.simulator.expansion import expand
from peftadvisor.simulator.growth import Growth
from peftadvisor.simulator.library import Variant, cache_folder
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.recording_files import pack, unpack
from peftadvisor.simulator.regimes import Regime
from peftadvisor.simulator.trace import Event
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 128,
    "intermediate_size": 160,
    "num_hidden_layers": 7,
    "num_attention_heads": 8,  # as many as the rank that is recorded
    "num_key_value_heads": 8,
    "vocab_size": 320,
    "max_position_embeddings": 4096,
}
T5: dict[str, Any] = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "is_encoder_decoder": True,
    "d_model": 64,
    "d_ff": 160,
    "d_kv": 16,
    "num_heads": 4,
    "num_layers": 7,
    "num_decoder_layers": 8,
    "vocab_size": 320,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
MANY = Regime(single=False, lengths="any")
ONE = Regime(single=True, lengths="any")
ALIGNED = Regime(single=False, lengths="aligned")
DEPTH = [7]


def model_of(config: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec(
        id=f"tiny/{config['model_type']}",
        config=config,
        config_key=f"feedfacefeed{len(config):04x}",
        parameters=None,
        checkpoint_parameters=None,
        provenance="made for a test",
    )


def variant(name: str = "lora", config: Mapping[str, Any] = LLAMA, **training: Any) -> Variant:
    quantization = find_method(name).quantization or "none"
    chosen = TrainingSpec(**{"quantization": quantization, **training})
    return Variant(model_of(config), MethodSpec(name=name), chosen, "flash")


def with_settings(found: Variant, **settings: Any) -> Variant:
    return dataclasses.replace(found, method=found.method.with_settings(**settings))


def made_at(found: Variant, regime: Regime, rank: int) -> Recording:
    from peftadvisor.simulator.record import record

    method = found.method.with_settings(rank=rank)
    return record(found.model, method, found.training, regime=regime)


@cache
def growing_recording() -> Recording:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    from peftadvisor.simulator.record import record_growing

    return unpack(pack(record_growing(variant(), MANY)))


@pytest.fixture
def growing() -> Recording:
    """LoRA on a small Llama for every rank, recorded once for all tests here."""
    return growing_recording()


@pytest.fixture
def cache_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_folder()


def assert_same_run(ours: Recording, theirs: Recording, point: Point) -> None:
    """Peaks, owners, every allocation in order, every kernel, all parameters: to the byte."""
    units = theirs.facts["units"]
    assert ours.facts == theirs.facts
    assert ours.parameter_counts(units) == theirs.parameter_counts(units)
    counts = [Counter[Any](), Counter[Any]()]
    for recording, count in zip((ours, theirs), counts, strict=True):
        for use in recording.kernel_uses(point, units):
            count[dataclasses.replace(use, count=0)] += use.count
    assert counts[0] == counts[1]
    for accumulate in (False, True):
        mine, other = (r.peak(point, units, accumulate=accumulate) for r in (ours, theirs))
        assert mine == other
        for a, b in zip(
            expand(ours, point, units, accumulate=accumulate),
            expand(theirs, point, units, accumulate=accumulate),
            strict=True,
        ):
            assert np.array_equal(a, b)


# -- Exactness -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "regime", "point", "ranks"),
    [
        (variant("lora"), ONE, (1, 333, 1), (3,)),
        (variant("lora-all", gradient_checkpointing="non-reentrant"), MANY, (3, 333, 1), (100,)),
        (variant("dora"), MANY, (3, 333, 1), (100,)),
        (variant("qlora"), MANY, (3, 333, 1), (100,)),
        (variant("lora-all", T5), ALIGNED, (3, 320, 112), (100,)),
        (variant("x-lora"), MANY, (3, 333, 1), (100,)),  # keeps more than it trains
    ],
    ids=lambda part: part.method.name if isinstance(part, Variant) else "",
)
def test_set_to_a_rank_it_is_the_recording_of_that_rank(
    found: Variant, regime: Regime, point: Point, ranks: tuple[int, ...]
) -> None:
    pytest.importorskip("peft")
    from peftadvisor.simulator.record import record_growing

    growing = unpack(pack(record_growing(found, regime)))
    assert growing.growth is not None
    assert (growing.growth.low, growing.growth.size, growing.growth.high) == (1, 8, 1025)
    for rank in ranks:
        assert_same_run(growing.at_size(rank), made_at(found, regime, rank), point)


@pytest.mark.parametrize("rank", [1, 2, 16, 64, 1000])
def test_every_rank_of_one_recording(growing: Recording, rank: int) -> None:
    assert_same_run(growing.at_size(rank), made_at(variant(), MANY, rank), (5, 77, 1))


def test_what_is_alike_at_one_rank_only_is_told_apart(growing: Recording) -> None:
    """8 heads are 8 heads at any rank, where rank 8 has dimensions of 8 too."""
    dimensions = [
        {n for use in r.kernel_uses((3, 50, 1), DEPTH) for n in use.shapes}
        for r in (growing, growing.at_size(24))
    ]
    assert 8 in dimensions[0]
    assert 24 not in dimensions[0]
    assert {8, 24} <= dimensions[1]


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.integers(1, 1000), st.integers(1, 25), st.integers(2, 40), st.integers(1, 2000))
def test_more_rank_takes_more(rank: int, more: int, b: int, s: int) -> None:
    small, large = (growing_recording().at_size(r) for r in (rank, rank + more))
    d, layers = 128, 7
    for now, r in ((small, rank), (large, rank + more)):
        # A and B of query and value: r x d and d x r.
        assert now.parameter_counts(DEPTH)[1] == layers * 2 * r * 2 * d
    point = (b, s, 1)
    assert large.allocated_peak(point, DEPTH) >= small.allocated_peak(point, DEPTH)
    work = [sum(u.count * u.flops for u in r.kernel_uses(point, DEPTH)) for r in (small, large)]
    assert work[1] > work[0]


def test_setting_the_rank_takes_no_time(growing: Recording) -> None:
    seconds = []
    for rank in range(1, 30):
        start = time.perf_counter()
        growing.at_size(rank)
        seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[len(seconds) // 2] < 1e-3


def test_frees_may_have_changed_places_since_it_was_recorded(growing: Recording) -> None:
    """A file of before is extended, not refused: what is freed at one moment has no order."""
    from peftadvisor.simulator.record import record_growing

    events = growing.events
    free = events.kind == Event.FREE
    together = np.flatnonzero(free[:-1] & free[1:] & (np.diff(events.ref) != 0))
    first = int(together[len(together) // 2])
    ref = events.ref.copy()
    ref[[first, first + 1]] = ref[[first + 1, first]]
    before = dataclasses.replace(growing, events=dataclasses.replace(events, ref=ref), growth=None)
    again = record_growing(variant(), MANY, before)
    assert_same_run(again.at_size(40), growing.at_size(40), (4, 100, 1))


def test_a_recording_that_is_another_run_is_not_extended(growing: Recording) -> None:
    from peftadvisor.simulator.record import record_growing
    from peftadvisor.simulator.recorder import InexactError

    kernels = growing.kernels
    other = dataclasses.replace(
        growing, kernels=dataclasses.replace(kernels, names=tuple(reversed(kernels.names)))
    )
    with pytest.raises(InexactError, match="other things"):
        record_growing(variant(), MANY, dataclasses.replace(other, growth=None))


def test_a_method_that_does_not_grow_evenly_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA-FA's optimizer multiplies A by its transpose: rank squared."""
    pytest.importorskip("peft")
    from peftadvisor.simulator.record import record_growing
    from peftadvisor.simulator.recorder import InexactError

    fa = find_method("lora-fa")
    assert fa.size is None
    claimed = tuple(
        dataclasses.replace(p, shapes="linear") if p.name == "rank" else p
        for p in fa.hyperparameters
    )
    false = dataclasses.replace(fa, hyperparameters=claimed)
    for user in ("library", "record", "step"):
        monkeypatch.setattr(f"peftadvisor.simulator.{user}.find_method", lambda name: false)
    with pytest.raises(InexactError, match="differs from the direct run"):
        record_growing(variant("lora-fa"), MANY)


# -- Bytes ---------------------------------------------------------------------------------------


def test_pack_and_unpack(growing: Recording) -> None:
    packed = pack(growing)
    again = unpack(packed)
    assert pack(again) == packed
    assert_same_run(again.at_size(40), growing.at_size(40), (4, 100, 1))
    plain = pack(dataclasses.replace(growing, growth=None))
    assert unpack(plain).growth is None  # as files of before
    assert len(packed) < len(plain) + 300


def _changed(packed: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    raw = zlib.decompress(packed)
    size = int.from_bytes(raw[:4], "little")
    header = json.loads(raw[4 : 4 + size])
    change(header)
    head = json.dumps(header).encode()
    return zlib.compress(len(head).to_bytes(4, "little") + head + raw[4 + size :])


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header["growth"].__setitem__(name, value)


@pytest.mark.parametrize(
    "change",
    [
        _set("low", 0),
        _set("low", 9),
        _set("high", 7),
        _set("high", 1 << 40),
        _set("size", "8"),
        _set("counts", {"base": [1, 2]}),
        _set("counts", None),
        _set("stored", "all"),
        _set("more", 1),
        lambda header: header["growth"].pop("low"),
        lambda header: header.__setitem__("growth", 8),
        lambda header: header["arrays"].__delitem__(slice(-2, None)),
        lambda header: header["arrays"][-2].__setitem__(2, [1, 1]),
    ],
)
def test_damaged_growth(growing: Recording, change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(UsageError, match="damaged"):
        unpack(_changed(pack(growing), change))


def test_flipped_bits(growing: Recording) -> None:
    """Refused, or a recording that can be set to its sizes and played: never another error."""
    raw, chance = zlib.decompress(pack(growing)), random.Random(4)
    size = int.from_bytes(raw[:4], "little")
    for number in range(200):
        data = bytearray(raw)
        first, last = (0, 4 + size) if number % 2 else (4 + size, len(raw))
        data[chance.randrange(first, last)] ^= 1 << chance.randrange(8)
        try:
            made = unpack(zlib.compress(bytes(data), 1))
        except UsageError:
            continue
        with np.errstate(over="ignore"):
            if made.growth is not None:
                made = made.at_size(made.growth.high)
            made.allocated_peak((2, 64, 1), DEPTH)
            made.kernel_uses((2, 64, 1), DEPTH)


# -- Where it is found ---------------------------------------------------------------------------


def test_a_growing_recording_serves_for_any_rank(cache_at: Path, growing: Recording) -> None:
    variant().keep(MANY, growing)
    assert growing.growth is not None
    for rank in (1, 16, growing.growth.high):
        chosen = with_settings(variant(), rank=rank, alpha=2 * rank)
        found = chosen.find(MANY)
        assert found is not None
        assert found.growth is None
        assert_same_run(found, growing.at_size(rank), (4, 100, 1))
        assert chosen.on_file()
    assert with_settings(variant(), rank=8, alpha=32).find(MANY) is variant().find(MANY)


@pytest.mark.parametrize("rank", [1026, 5000, 0, -8, True, 8.5, "8"])
def test_ranks_beyond_what_was_checked_are_not_answered(
    cache_at: Path, growing: Recording, rank: Any
) -> None:
    variant().keep(MANY, growing)
    chosen = with_settings(variant(), rank=rank)
    assert chosen.find(MANY) is None
    assert not chosen.on_file()


def test_a_recording_of_one_rank_serves_for_that_only(cache_at: Path, growing: Recording) -> None:
    variant().keep(MANY, dataclasses.replace(growing, growth=None))
    assert variant().find(MANY) is not None
    assert with_settings(variant(), rank=16).find(MANY) is None
    assert not with_settings(variant(), rank=16).on_file()


def test_one_that_grows_takes_the_place_of_one_that_does_not(
    cache_at: Path, growing: Recording
) -> None:
    plain = dataclasses.replace(growing, growth=None)
    variant().keep(MANY, plain)
    variant().keep(ONE, plain)
    variant().keep(MANY, growing)
    variant().keep(MANY, plain)  # does not take it back
    grows = []
    for regime in (MANY, ONE):
        found = variant().find(regime)
        assert found is not None
        grows.append(found.growth is not None)
    assert grows == [True, False]


def test_what_was_made_at_that_very_rank_goes_first(cache_at: Path, growing: Recording) -> None:
    chosen = with_settings(variant(), rank=16)
    exact = dataclasses.replace(growing.at_size(16), facts={**growing.facts, "regime": "exact"})
    variant().keep(MANY, growing)
    chosen.keep(MANY, exact)
    found = chosen.find(MANY)
    assert found is not None
    assert found.facts["regime"] == "exact"


def test_without_torch_any_rank_is_answered(
    cache_at: Path, monkeypatch: pytest.MonkeyPatch, growing: Recording
) -> None:
    def hidden(name: str, *rest: Any) -> Any:
        return None if name in ("torch", "transformers") else find_spec(name, *rest)

    monkeypatch.setattr(obtain, "find_spec", hidden)
    variant().keep(MANY, growing)
    chosen = with_settings(variant(micro_batch_size=4, seq_len=100), rank=32, alpha=64)
    run = obtain.obtain(chosen, exact=True)
    assert (run.source, run.note) == ("on file", "")
    # A and B of query and value in 7 layers of width 128, in fp32.
    assert run.parameters().trainable == 7 * 2 * 32 * 2 * 128
    assert run.parameters().stored_bytes == 4 * run.parameters().trainable
    with pytest.raises(UnsupportedError):
        obtain.obtain(with_settings(chosen, target_modules=["q_proj"]), exact=True)


def test_a_rank_that_is_asked_for_is_recorded_with_all_others(
    cache_at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    chosen = with_settings(variant(micro_batch_size=4, seq_len=96), rank=32)
    first = obtain.obtain(chosen, exact=True)
    assert first.source == "made now"
    assert_same_run(first.recording, made_at(variant(), MANY, 32), (4, 96, 1))

    def never(*_: Any) -> None:
        raise AssertionError("there is nothing left to record")

    monkeypatch.setattr("peftadvisor.simulator.record.record", never)
    monkeypatch.setattr("peftadvisor.simulator.record.record_growing", never)
    other = obtain.obtain(with_settings(chosen, rank=7, alpha=3), exact=True)
    assert other.source == "on file"
    assert other.allocated_peak() < first.allocated_peak()
    assert obtain.obtain(variant(micro_batch_size=4), exact=True).source == "on file"


def test_growth_tells_its_counts() -> None:
    growth = Growth(
        size=8,
        low=1,
        high=64,
        coefficients=np.zeros((1, 1), dtype=np.int64),
        depth=np.zeros((1, 1), dtype=np.int64),
        counts={"base": [10, 10, 40], "layer": [[2, 2, 8]]},
        stored=3,
    )
    facts = {"counts": {"base": [180, 80, 320], "layer": [[26, 16, 64]]}, "stored": 24, "units": []}
    assert growth.facts_at(10, facts) == {
        "counts": {"base": [200, 100, 400], "layer": [[30, 20, 80]]},
        "stored": 30,
        "units": [],
    }
    assert [growth.holds_for(n) for n in (0, 1, 64, 65)] == [False, True, True, False]
