"""Matrix products of trained models on the CPU: oneDNN's where they are the faster ones, in float32 all the same.

PyTorch hands float32 products to MKL, which on processors of other makers than Intel runs at a fraction of what they
can do; oneDNN, which PyTorch carries too and uses for bfloat16, does not. ``linear`` is ``torch.nn.functional.linear``
and ``Linear`` is ``torch.nn.Linear`` with that one change, forward and backward. Nothing is rounded more than before.

Legend: N rows, D inputs, F outputs.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Linear", "linear", "onednn_is_faster"]

# Multiplications below which the call costs more than it saves (benchmarks/linear.py).
_WORTH = 1 << 22


class Linear(nn.Linear):
    """``torch.nn.Linear`` through :func:`linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """input [..., D] -> [..., F]."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., D] times weight [F, D] transposed, plus bias [F]: [..., F]."""
    if x.device.type == "cpu" and _fits(x, weight, bias) and onednn_is_faster():
        product: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return product
    return F.linear(x, weight, bias)


def _fits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        x.numel() * weight.shape[0] >= _WORTH
        and all(t.dtype == torch.float32 and type(t) in (Tensor, nn.Parameter) for t in (x, weight))
        and x.ndim > 1
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.maybe_current_level()
    )


@functools.cache
def onednn_is_faster() -> bool:
    """Whether this PyTorch's float32 products are MKL's, on a processor that is not Intel's, and oneDNN is there."""
    if not (torch._C.has_mkl and torch._C._has_mkldnn and hasattr(torch.ops, "mkldnn")):
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise") or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return "GenuineIntel" not in _processor()


def _processor() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")[:1000]
    except OSError:  # not Linux: Windows names the maker here; where nobody does, it is taken to be Intel
        return platform.processor() or "GenuineIntel"


class _Product(torch.autograd.Function):
    """linear(x, weight, bias) by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return product

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows, read = gradient.flatten(0, -2), x.flatten(0, -2)
        # By ``linear``, which has gradients of its own, so that second derivatives are right.
        return (
            linear(gradient, weight.t()) if for_x else None,
            _turned(rows, read) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def _turned(rows: Tensor, read: Tensor) -> Tensor:
    """rows [N, F] transposed times read [N, D]: [F, D]. What stands first is copied, which is to be the smaller one."""
    if rows.shape[1] <= read.shape[1]:
        return linear(rows.t(), read.t())
    return linear(read.t(), rows.t()).t()
