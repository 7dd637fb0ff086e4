"""A PyTorch module whose backward pass is a relaxation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from actrelax.models._names import is_number, look_up
from actrelax.models._values import as_number
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.engines import PAPERS, Steps, integrator_named
from actrelax.models.engines.steps import take_steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.learning.autograd import captured_output, feedforward
from actrelax.models.learning.gradients import BackwardOptions, with_reduction
from actrelax.models.learning.recipe import Recipe, captured_recipe, checked_recipe
from actrelax.models.learning.relax import RelaxFields
from actrelax.models.learning.report import SettlingReport
from actrelax.models.learning.settling import default_steps
from actrelax.models.learning.without_gradient import warn_of_no_gradient
from actrelax.models.learning.wrapped import Wrapped, WrappedCapture
from actrelax.models.network import CapturedNetwork, Network, Slot, check_tensor

SETTLED = Steps.until(1e-6)
"""The default steps. A settled relaxation without "current" knobs is linear in the clamp: it needs no `loss_scale`."""
_CAST = (torch.float32, torch.float16, torch.bfloat16)
"""Dtypes that autocast converts."""
Scale = float | Tensor | Callable[[], float | Tensor]


class ActivationRelaxation(nn.Module):
    """A module that learns by activation relaxation under ``loss.backward()``.

    The forward pass is the wrapped module's. The backward pass clamps the output of each sample to its loss gradient,
    relaxes the hidden populations, and returns the local updates as the gradients of the parameters.
    Losses, optimisers, autocast, gradient accumulation and trainers work as with any other module.

    Parameters
    ----------
    module : Network or torch.nn.Module
        A `Network`; a module that applies its layers one after another, with `input_shape`
        (`Network.from_sequential` lists the supported layers); or any module, with `example` (`Network.from_module`).
    input_shape : sequence of int, optional
        Shape of one sample, for a module that applies layers one after another.
    example : torch.Tensor, optional
        A batch as the module takes it, for any module.
    output : callable, optional
        With `example`: from what the module returns to its output tensor.
    assumptions : str or Assumptions, default "ar"
        A key of `PRESETS`, or any combination of knobs, except continuous plasticity (use `relax_continuously`).
    steps : int or Steps, default Steps.until(1e-6)
        As for `solve`; by default the relaxation runs until it has settled. The papers use ``Steps(100, eta=0.1)``.
        On a network with cycles the default is ``Steps.until(1e-2, eta=0.5, most=100)``, from zero.
    integrator : str or Integrator, default "sequential"
        As for `solve`.
    reduction : {"mean", "sum"}, default "mean"
        Reduction over the batch; must match the loss that you call. Each index of dimension 0 is one sample.
    options : BackwardOptions, optional
        Update factors, clip and decay, evaluation, checks, and the generator of noise and feedback weights. Assumptions
        with separate feedback weights need the generator, unless the network already has these weights. On a network
        with cycles also how its rates settle, and whether samples learn that have not.
    **fields
        Other fields of `RelaxationProblem` (tau, start, clip, noise, delays, ...), and eta, dt or duration as shorthand
        for `Steps`.

    Attributes
    ----------
    module : torch.nn.Module
        The wrapped module.
    report : SettlingReport or None
        Whether the samples of the last backward pass had settled, on a network with cycles.
    loss_scale : float, torch.Tensor or callable
        Factor by which the loss is scaled before ``backward()``, apart from `reduction`; 1.0 by default, read in each
        forward pass. Set it if the number of steps is fixed: ``scaler.get_scale`` with a GradScaler, 1/k for gradients
        accumulated over k batches, the product if several apply.

    Raises
    ------
    ActrelaxError
        For invalid arguments; in ``forward``, if the module has changed since it was wrapped, under transforms of
        `torch.func` and in forward mode; in ``backward``, for a second derivative.
    DivergenceError
        In ``backward``, if the relaxation diverges and `options.check_finite` is set. A non-finite loss gradient raises
        no error, as GradScaler expects.

    Notes
    -----
    Under ``torch.no_grad()`` a call only runs the wrapped module. In ``eval()`` mode with gradients enabled,
    ``backward`` relaxes as in training. The gradient of the input is the sum of all feedback to it. A network with
    cycles can be a layer of a larger model, as a deep-equilibrium layer is.

    Warns of parameters and other tensors that require a gradient and get none.

    Examples
    --------
    >>> layers = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    >>> model = ActivationRelaxation(layers, input_shape=(64,))
    >>> loss = nn.CrossEntropyLoss()(model(torch.rand(8, 64)), torch.arange(8))
    >>> loss.backward()
    >>> layers[0].weight.grad.shape
    torch.Size([32, 64])
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        input_shape: Sequence[int] | None = None,
        example: Tensor | None = None,
        output: Callable[[Any], Tensor] | None = None,
        assumptions: str | Assumptions = "ar",
        steps: int | Steps = SETTLED,
        integrator: str | Integrator = "sequential",
        reduction: Literal["mean", "sum"] = "mean",
        options: BackwardOptions | None = None,
        **fields: Unpack[RelaxFields],
    ) -> None:
        super().__init__()
        if type(module) is ActivationRelaxation:
            raise ActrelaxError("the module is already an ActivationRelaxation: wrap its .module.")
        scheme = integrator_named(integrator)
        wrapped = _wrapped(module, input_shape, example, output)
        usual = default_steps(wrapped.network, scheme, SETTLED)
        length, of_problem = take_steps(usual if steps is SETTLED else steps, fields, usual)
        if length == SETTLED and not scheme.takes_time:
            length = PAPERS  # ignored by the equilibrium sweep
        checked = _with_reduction(options or BackwardOptions(), reduction)
        knobs = look_up("assumptions", assumptions, PRESETS)
        if isinstance(wrapped, WrappedCapture):
            self._recipe: Recipe = captured_recipe(wrapped, knobs, scheme, length, checked, of_problem)
        else:
            self._recipe = checked_recipe(wrapped, knobs, scheme, length, checked, of_problem)
            warn_of_no_gradient(module, wrapped.network, knobs, of_problem, checked.settle)
        self._wrapped, self.module = wrapped, module
        if wrapped.feedback is not None:
            self.feedback = wrapped.feedback
        self.loss_scale: Scale = 1.0
        self.report: SettlingReport | None = None

    @property
    def assumptions(self) -> Assumptions:
        """The assumptions; read-only, like all arguments of the constructor."""
        assumptions: Assumptions = self._recipe.request.problem.assumptions
        return assumptions

    @property
    def steps(self) -> Steps:
        """The steps of each relaxation."""
        return self._recipe.steps

    @property
    def network(self) -> Network:
        """The populations and projections, with the module's current weights."""
        if isinstance(self._wrapped, WrappedCapture):
            return self._wrapped.network
        return self._wrapped.network.with_weights(self._wrapped.weights())

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's output, (batch, *output shape)."""
        if getattr(self, "_is_replica", False):
            raise ActrelaxError("nn.DataParallel is not supported: use DistributedDataParallel.")
        if not torch.is_grad_enabled():
            return self._without_graph(x)
        scale = _scale(self.loss_scale)
        if torch.compiler.is_compiling():
            from actrelax.models.learning import compiled  # torch._dynamo takes a second to load

            records = isinstance(self._wrapped, Wrapped) and not self._recipe.reads_values
            run = compiled.recorded if records else compiled.unrecorded
            given = scale if isinstance(scale, Tensor) else torch.full((), scale, device=x.device)
            return run(self, x, given)
        _refuse_transforms(x)  # below the compiler, which can't trace this
        return self._output(x, scale)

    def _without_graph(self, x: Tensor) -> Tensor:
        """Return the output of a pass that no relaxation follows."""
        if isinstance(self._wrapped, WrappedCapture):
            found: Tensor = self._wrapped.network(x)
            return found
        check_tensor(x)
        if x.dim() > 0 and len(x) == 0:
            return self._output(x, 1.0)
        if self._wrapped.network.is_recurrent:
            return self._recipe.alone().run(self.network, x).activities[self.network.output]
        output: Tensor = self.module(x)
        return output

    def _output(self, x: Tensor, scale: float | Tensor, *, recording: bool = False) -> Tensor:
        """Return the output; its backward pass is a relaxation."""
        check_tensor(x)
        if isinstance(self._wrapped, WrappedCapture):
            return self._captured(self._wrapped, x, scale)
        recipe, network, weights = self._recipe, self._wrapped.network, self._wrapped.weights()
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, *weights = [w.to(dtype) if w.dtype in _CAST else w for w in (x, *weights)]
        if len(x) == 0:  # a process's share of a batch can be empty
            zero = sum(w.sum() * 0 for w in (x, *weights))
            return zero + x.new_zeros(0, *network.populations[network.output].shape)
        if recording:  # checks read values, which torch.compile can't record
            recipe = replace(recipe, options=replace(recipe.options, check_finite=False))
        return feedforward(network, recipe.run, partial(self._relax, recipe, scale), x, weights)

    def _relax(self, recipe: Recipe, *arguments: Any) -> tuple[dict[Slot, Tensor], Tensor | None]:
        """Relax one batch, and keep the report."""
        relaxed = recipe.relax(*arguments)
        self.report = relaxed.report
        return relaxed.weights, relaxed.input

    def _captured(self, wrapped: WrappedCapture, x: Tensor, scale: float | Tensor) -> Tensor:
        """Return the output of a captured module; its backward pass is a relaxation."""
        recipe = self._recipe
        if len(x) == 0:  # nothing to relax
            learning = [psi for psi in wrapped.network.feedback.named().values() if psi.requires_grad]
            output: Tensor = wrapped.network(x) + sum(psi.sum() * 0 for psi in learning)
            return output
        with wrapped.leaves() as leaves:
            passed = wrapped.network.run(x, values=not recipe.at_equilibrium, wants_input=x.requires_grad)
            return captured_output(passed, partial(recipe.relax_pass, scale), x, leaves)

    def extra_repr(self) -> str:
        return str(self._recipe)


def _refuse_transforms(x: Tensor) -> None:
    if torch._C._are_functorch_transforms_active():
        what = "the transforms of torch.func (grad, vmap, jvp, ...)"
    elif forward_ad.unpack_dual(x).tangent is not None:  # type: ignore[no-untyped-call]
        what = "forward-mode derivatives (dual tensors)"
    else:
        return
    raise ActrelaxError(f"{what} can't see a relaxation: call loss.backward(), or transform the plain module.")


def _wrapped(
    module: nn.Module,
    input_shape: Sequence[int] | None,
    example: Tensor | None,
    output: Callable[[Any], Tensor] | None,
) -> Wrapped | WrappedCapture:
    if example is not None and input_shape is not None:
        raise ActrelaxError("example and input_shape exclude each other: pass example for any module.")
    if output is not None and example is None:
        raise ActrelaxError("output needs an example: pass a batch as the module takes it.")
    if example is None and not isinstance(module, CapturedNetwork):
        return Wrapped(module, input_shape)
    return WrappedCapture(module, example, output)


def _scale(given: Scale) -> float | Tensor:
    """Return the value of `loss_scale`; a tensor stays on its device, without a synchronisation."""
    value = given() if callable(given) else given
    value = value if isinstance(value, Tensor) else as_number(value)
    if isinstance(value, Tensor):
        if value.numel() == 1:
            return value.detach().reshape(())
    elif is_number(value) and 0 < value < math.inf:
        return float(value)
    raise ActrelaxError(f"loss_scale must be a positive number, or a function that returns one, got {value!r}.")


def _with_reduction(options: BackwardOptions, reduction: Literal["mean", "sum"]) -> BackwardOptions:
    """Return the options with the reduction; refuse options that only `relax_backward` supports."""
    if options.keep:
        raise ActrelaxError("loss.backward() returns no trajectory: leave keep out of options, or call relax_backward.")
    return with_reduction(options, reduction)
