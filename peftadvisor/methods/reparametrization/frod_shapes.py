"""FRoD on meta: the shapes of PEFT's decompositions, and products without sparse tensors.

PEFT decomposes real values on the CPU, and multiplies by sparse tensors, which have no storage
that could be followed. Here are the same buffers, and a product that keeps and makes as much.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from peftadvisor.methods.roles import is_linear, width_in


def shapes_of_bases(tuner: Any, config: Any, adapter: str) -> None:
    """A basis and the places of sparse entries per kind of layer; they hold no values yet."""
    import torch
    from peft.tuners._buffer_dict import BufferDict
    from peft.tuners.frod.model import _category_from_key
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    config = _maybe_include_all_linear_layers(config, tuner.model)
    stores = ("frod_V", "frod_s_indices", "frod_s_size")
    for store in stores:
        setattr(tuner, store, torch.nn.ModuleDict())
    cell = torch.zeros((), device="cpu")
    for path, module in tuner.model.named_modules():
        if not (tuner._check_target_module_exists(config, path) and is_linear(module)):
            continue
        width = width_in(module) or 0
        shapes = ((width, width), (2, entries(width, config.sparse_rate)), (2,))
        for store, shape in zip(stores, shapes, strict=True):
            dtype = module.weight.dtype if store == "frod_V" else torch.long
            made = BufferDict({adapter: cell.to(dtype).expand(shape)}, persistent=True)
            getattr(tuner, store)[_category_from_key(path)] = made


def shapes_of_factors(_: Any, basis: Any, weight: Any) -> tuple[Any, Any]:
    """What solving for a layer's factor U and its scales would give."""
    return basis.new_empty(()).expand(weight.shape), basis.new_empty(len(basis))


def all_on_meta(adapted: Any) -> Any:
    """Buffers to meta; and layers whose product with a sparse matrix needs no sparse tensors."""
    import torch
    from peft.tuners._buffer_dict import BufferDict
    from peft.tuners.frod.layer import FrodLayer

    for module in adapted.modules():
        if isinstance(module, BufferDict):
            for name, buffer in list(module.items()):
                module[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="meta")
        elif isinstance(module, FrodLayer):
            module._get_frod_tensors = partial(_tensors, module)
            module._sparse_activation_mm = lambda hidden, s: _product().apply(hidden, *s)
    return adapted


def _tensors(layer: Any, adapter: str, *, dtype: Any, **_: Any) -> tuple[Any, ...]:
    scales = layer.frod_lambda_l[adapter].to(dtype)
    sparse = (layer.frod_lambda_s_values[adapter].to(dtype), layer.frod_s_indices[adapter])
    return layer.frod_U[adapter].to(dtype), layer.frod_V[adapter].to(dtype), sparse, scales


def _product() -> Any:
    import torch

    class Product(torch.autograd.Function):
        """Hidden [n, d] times the sparse [d, d], which is dense in 16 bit, and its gradients."""

        @staticmethod
        def forward(ctx: Any, hidden: Any, values: Any, indices: Any) -> Any:
            d = hidden.shape[1]
            dense = hidden.new_zeros(d, d) if hidden.element_size() == 2 else None
            ctx.save_for_backward(hidden, values.clone(), indices.clone(), dense)  # coalesced
            return _times(hidden, dense)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            hidden, _, indices, dense = ctx.saved_tensors
            gradient = gradients[0]
            whole = gradient.T @ hidden
            return _times(gradient, dense), whole[indices[0], indices[1]], None

    return Product


def _times(hidden: Any, dense: Any) -> Any:
    return hidden.T.clone().T if dense is None else hidden @ dense.T


def entries(width: int, density: float) -> int:
    """Sparse entries of a rotation [d, d], off its diagonal."""
    most = width * (width - 1)
    few = min(int(width * width * density), most)
    return max(1, few) if density > 0 and most else few
