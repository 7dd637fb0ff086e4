"""Mixed precision: learning rules in bfloat16, for weights in single precision.

bfloat16 has the range of single precision but only 8 bits of mantissa: gradients need no scaling, but an update 256
times smaller than a weight would be lost. The optimiser therefore updates weights in single precision, and the rule
uses a copy, rounded again for each batch. (torch.autocast only covers backprop, as it does not cast AR's kernels.)
"""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from actrelax.models.learning import Backward, Rule, add_to_grad
from actrelax.models.network import Network
from actrelax.models.problem import Loss


def in_bfloat16(rule: Rule) -> Rule:
    """Return a rule that computes in bfloat16, for a network and stimuli in single precision.

    It adds gradients of a rounded copy to the network's `.grad`. `rule` must not change weights itself.
    """
    copies: WeakKeyDictionary[Network, Network] = WeakKeyDictionary()

    def in_copy(network: Network, x: Tensor, y: Tensor) -> Backward:
        if network not in copies:
            copies[network] = copy.deepcopy(network).to(torch.bfloat16)
        copied = copies[network]
        with torch.no_grad():
            own, rounded = ([*each.parameters(), *each.buffers()] for each in (network, copied))
            torch._foreach_copy_(rounded, own)
        copied.zero_grad()
        result = rule(copied, x.to(torch.bfloat16), y)
        for parameter, twin in zip(network.parameters(), copied.parameters(), strict=True):
            if twin.grad is not None:
                add_to_grad(parameter, twin.grad)
        return result

    return in_copy


def in_single_precision(loss: Loss) -> Loss:
    """Return a loss that computes in single precision, and returns its gradient in the output's precision.

    Softmax minus label is small for an image that is nearly learned, and bfloat16 would round it to zero.
    """
    return Loss(
        lambda output, target: loss.value(output.float(), target),
        lambda output, target: loss.gradient(output.float(), target).to(output.dtype),
        weights=loss.weights,
    )
