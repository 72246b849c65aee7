"""Stored bytes of quantized layers against those of bitsandbytes, where that is installed."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
bitsandbytes = pytest.importorskip("bitsandbytes")

from torch import nn  # noqa: E402

from peftadvisor.simulator.quantized import quantized_layer  # noqa: E402


def of_bitsandbytes(rows: int, columns: int, double: bool) -> list[tuple[Any, Any]]:
    weight = bitsandbytes.nn.Params4bit(
        torch.randn(rows, columns, dtype=torch.bfloat16),
        requires_grad=False,
        compress_statistics=double,
        quant_type="nf4",
    ).to("cpu")
    state = weight.quant_state
    tensors = [weight.data, state.absmax, state.code]
    if state.nested:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    return sorted((str(t.dtype), t.numel()) for t in tensors)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(256, 1024), (96, 100), (3, 5)])
def test_every_stored_tensor_of_a_4_bit_layer(rows: int, columns: int, double: bool) -> None:
    source = nn.Linear(columns, rows, bias=False, device="meta")
    layer = quantized_layer(source, "nf4-dq" if double else "nf4", torch.bfloat16)
    ours = sorted((str(t.dtype), t.numel()) for t in [layer.weight, *layer.buffers()])
    assert ours == of_bitsandbytes(rows, columns, double)
