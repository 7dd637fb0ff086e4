"""Backward passes written for the purpose: autograd with psi, dropped derivatives and constant statistics.

Inside `Rules` each operation of a module is one `torch.autograd.Function`, whose forward pass is PyTorch's and whose
backward pass is written out here. It is the oracle for captured networks at equilibrium, and uses nothing of the
package.
"""

import inspect

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, psi):
        ctx.save_for_backward(x, psi)
        return x @ weight.T if bias is None else x @ weight.T + bias

    @staticmethod
    def backward(ctx, g):
        x, psi = ctx.saved_tensors
        of_weight = torch.einsum("no,ni->oi", g.flatten(0, -2), x.flatten(0, -2))
        return g @ psi, of_weight, g.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, psi, stride, padding, groups):
        ctx.save_for_backward(x, weight, psi)
        ctx.options = stride, padding, 1, groups
        return F.conv2d(x, weight, bias, *ctx.options)

    @staticmethod
    def backward(ctx, g):
        x, weight, psi = ctx.saved_tensors
        down = nn.grad.conv2d_input(x.shape, psi, g, *ctx.options)
        of_weight = nn.grad.conv2d_weight(x, weight.shape, g, *ctx.options)
        return down, of_weight, g.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None, None, None, None


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, function):
        return function(x.clone())

    @staticmethod
    def backward(ctx, g):
        return g, None


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        over = (0, 2, 3)
        mean, variance = x.mean(over, keepdim=True), x.var(over, correction=0, keepdim=True)
        sigma = (variance + eps).sqrt()
        ctx.save_for_backward((x - mean) / sigma, weight, sigma)
        return (x - mean) / sigma * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)

    @staticmethod
    def backward(ctx, g):
        scaled, weight, sigma = ctx.saved_tensors
        return g * weight.view(1, -1, 1, 1) / sigma, (g * scaled).sum((0, 2, 3)), g.sum((0, 2, 3)), None


NAMES = ("relu", "leaky_relu", "tanh", "sigmoid", "softplus", "gelu", "silu", "elu", "hardtanh", "relu6")
FUNCTIONS = {getattr(owner, name) for owner in (torch, F, torch.Tensor) for name in NAMES if hasattr(owner, name)}


class Rules(TorchFunctionMode):
    """Replaces a module's operations by those above.

    psi          id of a weight -> the weights of its feedback
    is_dropped   whether pointwise functions lose their derivatives
    is_constant  whether BatchNorm's statistics count as constants
    """

    def __init__(self, psi=None, is_dropped=False, is_constant=False):
        super().__init__()
        self.psi, self.is_dropped, self.is_constant = psi or {}, is_dropped, is_constant

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.linear:
            x, weight, bias = (*args, None)[:3]
            return _Linear.apply(x, weight, bias, self.psi.get(id(weight), weight))
        if func is F.conv2d:
            x, weight, bias, stride, padding, dilation, groups = args
            assert set(dilation) == {1}
            return _Convolution.apply(x, weight, bias, self.psi.get(id(weight), weight), stride, padding, groups)
        if self.is_dropped and func in FUNCTIONS:
            return _Dropped.apply(args[0], lambda x: func(x, *args[1:], **kwargs))
        if self.is_constant and func is F.batch_norm:
            given = inspect.signature(F.batch_norm).bind(*args, **kwargs).arguments
            assert given["training"]
            return _BatchNorm.apply(given["input"], given["weight"], given["bias"], given["eps"])
        return func(*args, **kwargs)


def gradients(module, x, clamp, **rules):
    """Return parameter's name -> gradient by these backward passes."""
    module.zero_grad()
    with Rules(**rules):
        output = module(x)
    output.backward(clamp)
    found = {name: p.grad for name, p in module.named_parameters()}
    module.zero_grad()
    return found
