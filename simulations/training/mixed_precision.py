"""Mixed precision: a rule computed in bfloat16, for weights that stay in single precision.

bfloat16 has the range of single precision and 8 bits of its mantissa: gradients need no scaling, but a weight would not
notice an update 256 times smaller than itself. So the optimiser, checkpoints and tests know the weights in single
precision alone; the rule sees a copy, rounded anew for each batch.
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
    """Return a rule that computes in bfloat16 and leaves its gradients with the weights as they are.

    Parameters
    ----------
    rule : callable
        (network, x, y) -> Backward, which leaves gradients in `.grad` and moves no weight.

    Returns
    -------
    callable
        The same of a network and stimuli in single precision; what it returns is of the network's rounded copy.
    """
    copies: WeakKeyDictionary[Network, Network] = WeakKeyDictionary()

    def rounded(network: Network, x: Tensor, y: Tensor) -> Backward:
        if network not in copies:
            copies[network] = copy.deepcopy(network).to(torch.bfloat16)
        copied = copies[network]
        with torch.no_grad():
            torch._foreach_copy_(_weights(copied), _weights(network))
        copied.zero_grad()
        result = rule(copied, x.to(torch.bfloat16), y)
        for parameter, own in zip(network.parameters(), copied.parameters(), strict=True):
            if own.grad is not None:
                add_to_grad(parameter, own.grad)
        return result

    return rounded


def in_single_precision(loss: Loss) -> Loss:
    """Return a loss that is computed in single precision whatever the output's, its gradient in the output's.

    Softmax minus label of an image that is nearly learned is small against both: bfloat16 would make it zero.
    """

    def value(output: Tensor, target: Tensor) -> Tensor:
        return loss.value(output.float(), target)

    def gradient(output: Tensor, target: Tensor) -> Tensor:
        return loss.gradient(output.float(), target).to(output.dtype)

    def both(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        losses, top = loss.both(output.float(), target)
        return losses, top.to(output.dtype)

    return Loss(value, gradient, both)


def _weights(network: Network) -> list[Tensor]:
    """Everything that is in the checkpoint: parameters, and feedback weights that are fixed."""
    return [*network.parameters(), *network.buffers()]
