"""The price catalog, the recommendations, and how broken catalog files are reported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peftadvisor.data.gpus import load_gpus
from peftadvisor.data.prices import cheapest_price, load_prices, read_prices
from peftadvisor.data.recommendations import load_recommendations
from peftadvisor.data.sources import describe_sources
from peftadvisor.data.tables import read_table
from peftadvisor.errors import UsageError
from peftadvisor.specs import PriceSpec

HEADER = (
    "gpu_id,provider,instance,gpu_count,region,usd_per_gpu_hour,spot_usd_per_gpu_hour,"
    "date,source,confidence\n"
)
PRICES = load_prices()


def test_the_catalog_has_every_price() -> None:
    assert len(PRICES) == 120


@pytest.mark.parametrize("price", PRICES, ids=lambda p: f"{p.provider}-{p.instance}-{p.gpu_id}")
def test_prices_are_in_range(price: PriceSpec) -> None:
    assert price.gpu_id in load_gpus()
    assert price.usd_per_gpu_hour is not None
    assert 0.01 <= price.usd_per_gpu_hour <= 50
    if price.spot_usd_per_gpu_hour is not None:
        assert 0.01 <= price.spot_usd_per_gpu_hour <= price.usd_per_gpu_hour
    assert price.gpu_count in (1, 2, 4, 8)
    assert re.fullmatch(r"20\d\d(-\d\d){0,2}|2025/2026", price.date)
    assert price.confidence in {"high", "medium", "low"}
    assert describe_sources(price.source)


def test_cheapest_on_demand() -> None:
    # a100-40g: aws 2.7447, gcp 3.6734 twice, azure 3.3996.
    price = cheapest_price("a100-40g")
    assert price is not None
    assert (price.provider, price.usd_per_gpu_hour) == ("aws", 2.7447)


def test_anchor_prices_and_bare_gpus_do_not_undercut_real_offers() -> None:
    # h100-sxm: the Lium anchor of 1.39 is no quote; verda asks 2.29.
    h100 = cheapest_price("h100-sxm")
    assert h100 is not None
    assert (h100.provider, h100.usd_per_gpu_hour) == ("verda", 2.29)
    # t4: 0.35 at gcp is the GPU without its VM; aws g4dn.xlarge is 0.526.
    t4 = cheapest_price("t4")
    assert t4 is not None
    assert (t4.instance, t4.usd_per_gpu_hour) == ("g4dn.xlarge", 0.526)
    # p100: nothing else is known.
    p100 = cheapest_price("p100-16g")
    assert p100 is not None
    assert (p100.confidence, p100.usd_per_gpu_hour) == ("low", 1.46)


def test_cheapest_spot() -> None:
    # h100-sxm spot: verda 0.8015, nebius 1.25, crusoe 1.6, vultr 2.3.
    spot = cheapest_price("h100-sxm", spot=True)
    assert spot is not None
    assert (spot.provider, spot.spot_usd_per_gpu_hour) == ("verda", 0.8015)
    assert cheapest_price("a100-40g", spot=True) is None


def test_no_price() -> None:
    assert cheapest_price("rtx-3080") is None
    assert cheapest_price("no-such-gpu") is None


def test_rows_whose_source_ran_into_their_confidence_are_mended() -> None:
    bare = [price for price in PRICES if "GPU only" in price.instance]
    assert {price.gpu_id for price in bare} == {"t4", "v100-16g", "p100-16g"}
    assert {price.confidence for price in bare} == {"low"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty; reinstall peftadvisor"),
        (b"\n\n", "is empty; reinstall peftadvisor"),
        (HEADER.encode(), "is empty; reinstall peftadvisor"),
        (b"gpu_id,provider\nt4,aws\n", "lacks the column 'instance'"),
        (b"\xff\xfe\x00\x01", "is not a CSV text file"),
        (HEADER.encode() + b't4,"aws\n', "is not a CSV text file"),
        (HEADER.encode() + b"t4,aws\n", "line 2: 2 cells where the header has 10"),
        (
            HEADER.encode() + b"t4,aws,g4dn,1,,free,,2026,recalled,low\n",
            "line 2: column 'usd_per_gpu_hour' is 'free'; it must be a positive number",
        ),
        (
            HEADER.encode() + b"t4,aws,g4dn,1.5,,1,,2026,recalled,low\n",
            "line 2: column 'gpu_count' is '1.5'; it must be a positive whole number",
        ),
        (
            HEADER.encode() + b"t4,aws,g4dn,1,,1,,2026,recalled,low\nt4,,x,1,,1,,2026,a,low\n",
            "line 3: column 'provider' is blank",
        ),
    ],
)
def test_a_broken_catalog_names_the_file(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "prices.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_prices(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert problem in message
    assert "\n" not in message


def test_a_missing_catalog_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gone.csv cannot be read"):
        read_table(tmp_path / "gone.csv", ())
    with pytest.raises(UsageError, match="cannot be read"):
        read_table(tmp_path, ())


def test_blank_optional_cells_are_none(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(HEADER + "t4,aws,g4dn,1,,,0.2,2026,recalled,low\n", encoding="utf-8")
    (price,) = read_prices(path)
    assert (price.region, price.usd_per_gpu_hour, price.spot_usd_per_gpu_hour) == ("", None, 0.2)


def test_recommendations() -> None:
    found = load_recommendations()
    assert list(found) == [f"R{number}" for number in range(1, 22)]
    for recommendation in found.values():
        assert recommendation.statement.endswith(".")
        assert recommendation.source
        assert recommendation.confidence in {"high", "medium", "low"}
    # What was only recalled or inferred must not pass as read.
    assert {key for key, r in found.items() if r.confidence == "low"} == {"R5", "R21"}
