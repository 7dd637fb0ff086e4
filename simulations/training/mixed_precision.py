"""Mixed precision: a rule computed in bfloat16, for weights that stay in single precision.

bfloat16 has the range of single precision and 8 bits of its mantissa: gradients need no scaling, but an update 256
times smaller than a weight would be lost. So the optimiser moves weights in single precision, and the rule sees a copy,
rounded anew for each batch. (torch.autocast covers backprop alone: AR's kernels mix precisions that it does not cast.)
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
    """Return the rule, computed in bfloat16 for a network and stimuli in single precision.

    Gradients are added to the network's `.grad`; the result is that of a rounded copy. The rule must move no weight.
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
    """Return the loss, computed in single precision, with its gradient in the output's precision.

    Softmax minus label is small for an image that is nearly learned: bfloat16 would make it zero.
    """
    return Loss(
        lambda output, target: loss.value(output.float(), target),
        lambda output, target: loss.gradient(output.float(), target).to(output.dtype),
        weights=loss.weights,
    )
