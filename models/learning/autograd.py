"""The front door: a module whose forward pass is a network's and whose backward pass is a relaxation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import repeat
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from actrelax.models._names import known, look_up
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.closed_form import PopulationState
from actrelax.models.engines import PAPERS, Steps, integrator_named
from actrelax.models.engines.steps import take_steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.integrators import Integrator
from actrelax.models.learning.gradients import BackwardOptions, to_gradients
from actrelax.models.learning.relax import RelaxFields, learn, prepare
from actrelax.models.network import ACTIVATIONS, FeedforwardPass, Network, check_tensor
from actrelax.models.problem import RelaxationProblem

SETTLED = Steps.until(1e-6)
"""The default length: settled relaxations are linear in the clamp, so that the scale of the loss does not matter."""

Slot = tuple[str, str]
"""A weight: the name of its projection, and "weight", "bias" or "feedback"."""
_NOTHING = torch.empty(0)
Scale = float | Tensor | Callable[[], float | Tensor]


class ActivationRelaxation(nn.Module):
    """A network that learns by activation relaxation under ``loss.backward()``.

    The forward pass is the module's. The backward pass clamps the output of each sample to the gradient of its own
    loss, relaxes, and hands the local updates to autograd as the gradients of the parameters. Losses, optimisers,
    hooks, autocast, gradient accumulation and trainers work as with any other module.

    Parameters
    ----------
    module : Network or torch.nn.Module
        A module other than a `Network` must be a chain of the layers that `Network.from_sequential` takes.
    input_shape : sequence of int, optional
        Shape of one sample; needed unless the module is a `Network`.
    assumptions : str or Assumptions, default "ar"
        A key of `PRESETS`, or any combination of knobs, except continuous plasticity (`relax_continuously`).
    steps : int or Steps, default Steps.until(1e-6)
        As for `solve`. The papers' steps are ``Steps(100, eta=0.1)``.
    integrator : str or Integrator, default "sequential"
    reduction : {"mean", "sum"}, default "mean"
        Reduction of the loss over the batch, as in the loss that is called. A sample is an index of dimension 0.
    options : BackwardOptions, optional
        Update factors, clip and decay, evaluation, checks, and the generator of noise and of feedback weights, which
        assumptions with feedback weights of their own need.
    **fields
        Other fields of `RelaxationProblem`: tau, start, clip, noise, delays ...; and eta, dt or duration as shorthand
        for `Steps`.

    Attributes
    ----------
    module : torch.nn.Module
        The module that was given; its state_dict has no trace of the relaxation.
    network : Network
        Its populations and projections.
    loss_scale : float, torch.Tensor or callable
        The factor of each sample's own loss in the loss that runs backward, besides `reduction`; 1.0 unless set. A
        relaxation of finitely many steps depends on it: ``scaler.get_scale`` under a GradScaler, 1/k for gradients
        accumulated over k batches.

    Raises
    ------
    ActrelaxError
        For invalid arguments, at once; in ``backward``, for a double backward pass.
    DivergenceError
        In ``backward``, if values become non-finite and `options.check_finite` is set.

    Notes
    -----
    Without gradients (``torch.no_grad``) the forward pass is the module alone. In ``eval()`` with gradients on,
    ``backward`` relaxes as in training. The gradient of the input is the feedback that arrives there.

    Examples
    --------
    >>> layers = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    >>> model = ActivationRelaxation(layers, input_shape=(64,))
    >>> loss = nn.CrossEntropyLoss()(model(torch.rand(8, 64)), torch.arange(8))
    >>> loss.backward()
    >>> layers[0].weight.grad.shape
    torch.Size([32, 64])
    """

    network: Network

    def __init__(
        self,
        module: nn.Module,
        *,
        input_shape: Sequence[int] | None = None,
        assumptions: str | Assumptions = "ar",
        steps: int | Steps = SETTLED,
        integrator: str | Integrator = "sequential",
        reduction: Literal["mean", "sum"] = "mean",
        options: BackwardOptions | None = None,
        **fields: Unpack[RelaxFields],
    ) -> None:
        super().__init__()
        network = _network_of(module, input_shape)
        self.module = module
        self.assumptions = look_up("assumptions", assumptions, PRESETS)
        self.integrator = integrator_named(integrator)
        self.options = _checked(options or BackwardOptions(), reduction)
        has_size = any(name in fields for name in ("eta", "dt", "duration"))
        if steps is SETTLED and (has_size or not self.integrator.takes_time):
            steps = PAPERS
        self.steps, self.fields = take_steps(steps, fields)
        self.loss_scale: Scale = 1.0
        _add_feedback(network, self.assumptions, self.options.generator)
        self.feedback = nn.Module() if network is module else _feedback_of(network)
        # not a submodule: its parameters are the module's, and would occur twice in the state_dict
        self.__dict__["network"] = network
        self._owners = _owners(module, network, self.feedback)
        self._try_out()

    def forward(self, x: Tensor) -> Tensor:
        """Return the module's output, (batch, *output shape)."""
        if getattr(self, "_is_replica", False):
            raise ActrelaxError("nn.DataParallel does not keep a relaxation's weights: use DistributedDataParallel.")
        if not torch.is_grad_enabled():
            output: Tensor = self.module(x)
            return output
        _refuse_hooks(self.module)
        if torch.compiler.is_compiling():
            from actrelax.models.learning.compiled import recorded  # torch._dynamo takes a second to load

            return recorded(self, x)
        return self.relaxed(x)

    def relaxed(self, x: Tensor, *, check_finite: bool = True) -> Tensor:
        """Return the output, (batch, *output shape), whose backward pass is a relaxation."""
        check_tensor(x)
        weights = [getattr(owner, name) for owner, name in self._owners.values()]
        if len(x) == 0:  # one process's share of a small batch
            empty = x.new_zeros(0, *self.network.populations[self.network.output].shape)
            return sum((w.sum() * 0 for w in weights), empty)
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weights = x.to(dtype), [w.to(dtype) for w in weights]
        options = self.options if check_finite else replace(self.options, check_finite=False)
        result: Tensor = _Relaxation.apply(self, options, x, *weights)  # type: ignore[no-untyped-call]
        return result

    def extra_repr(self) -> str:
        preset = self.assumptions.preset or "own"
        return f"assumptions={preset!r}, integrator={self.integrator.name!r}, steps={self.steps!r}"

    @property
    def slots(self) -> list[Slot]:
        """The weights in the order in which autograd gets them."""
        return [*self._owners]

    def network_with(self, weights: Sequence[Tensor]) -> Network:
        """Return the network with these weights, which may be others than the module's: see `functional_call`."""
        given = dict(zip(self._owners, weights, strict=True))
        if all(getattr(self.network.projections[p], slot) is w for (p, slot), w in given.items()):
            return self.network
        return self.network.with_weights(given)

    def _try_out(self) -> None:
        """Raise what a relaxation would raise."""
        network = self.network
        weight = next(network.parameters(), torch.empty(0))
        zeros = weight.new_zeros(1, *network.populations[network.input].shape)
        fields = {name: value for name, value in self.fields.items() if name != "start" or isinstance(value, str)}
        with torch.no_grad():
            passed = network.feedforward(zeros, keep_drives=False)
            clamped = passed.activities[network.output]
            problem = RelaxationProblem(network, passed, clamped, self.assumptions, **fields)
            prepare(problem, self.integrator, self.steps, self.options)


class _Relaxation(torch.autograd.Function):
    """Feedforward pass, and relaxation as its backward pass."""

    @staticmethod
    def forward(ctx: Any, model: ActivationRelaxation, options: BackwardOptions, x: Tensor, *weights: Tensor) -> Tensor:
        network = model.network_with(weights)
        with _without_autocast(x.device):
            passed = network.feedforward(x, keep_drives=False)
        output = passed.activities[network.output]
        if network.populations[network.output].activation == ACTIVATIONS["identity"]:
            # its gain does not read it, and the caller may change it in place
            passed = replace(passed, activities={**passed.activities, network.output: _NOTHING})
        ctx.model, ctx.options, ctx.count = model, options, len(weights)
        ctx.passed = passed.with_tensors(repeat(_NOTHING))
        # autograd raises an error if one of them changes in place before the backward pass
        ctx.save_for_backward(*weights, *passed.tensors())
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise ActrelaxError(
                "a relaxation has no second derivative: leave create_graph out, or differentiate model.module."
            )
        model, (gradient,) = ctx.model, gradients
        weights, passed = ctx.saved_tensors[: ctx.count], ctx.passed.with_tensors(ctx.saved_tensors[ctx.count :])
        network = model.network_with(weights)
        if passed.activities[network.output].numel() == 0:
            passed.activities[network.output] = gradient  # for its shape
        with _without_autocast(gradient.device):
            found, at_input = _relax(model, network, passed, gradient, ctx.options, ctx.needs_input_grad[2])
        return None, None, at_input, *(found.get(slot) for slot in model.slots)


@torch.no_grad()
def _relax(
    model: ActivationRelaxation,
    network: Network,
    passed: FeedforwardPass,
    gradient: Tensor,
    options: BackwardOptions,
    wants_input: bool,
) -> tuple[dict[Slot, Tensor], Tensor | None]:
    """Return the gradients of the weights and of the input."""
    scale = model.loss_scale() if callable(model.loss_scale) else model.loss_scale
    if isinstance(scale, Tensor):
        scale = scale.to(torch.promote_types(gradient.dtype, torch.float32))
    is_one = not isinstance(scale, Tensor) and scale == 1
    share = scale / len(gradient) if options.reduction == "mean" else scale
    problem = RelaxationProblem(network, passed, gradient / share, model.assumptions, **model.fields)
    at_input = _InputFeedback(problem) if wants_input else None
    learned = learn(problem, model.integrator, model.steps, options, at_input or iter)
    found = {
        (projection.name, slot): update if is_one else update * scale
        for projection, totals in learned.totals.items()
        for slot, update in to_gradients(network, model.assumptions, projection, totals, options.updates)
    }
    return found, None if at_input is None else at_input.total * share


class _InputFeedback:
    """The sum of all feedback to the input, collected while populations arrive."""

    def __init__(self, problem: RelaxationProblem) -> None:
        self.problem = problem

    def __call__(self, arrivals: Iterator[PopulationState]) -> Iterator[PopulationState]:
        problem, network = self.problem, self.problem.network
        self.total = torch.zeros_like(problem.feedforward.activities[network.input])
        for arrived in arrivals:
            for projection in network.outgoing[network.input]:
                if projection.target in arrived.names:
                    sent = problem.feedback_source(projection, arrived.state)
                    route = problem.feedforward.routes[projection.name]
                    self.total += projection.feedback_signal(sent, route, projection.weight)
            yield arrived


def _without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Leave autocast for a block: stimuli and weights have been cast already, and states stay as wide as they are."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def _checked(options: BackwardOptions, reduction: Literal["mean", "sum"]) -> BackwardOptions:
    """Return the options with the reduction; refuse those that belong to `relax_backward`."""
    known("reduction", reduction, ["mean", "sum"])
    if options.reduction not in ("mean", reduction):
        raise ActrelaxError(f"reduction is {reduction!r}, but {options.reduction!r} in options: leave it out there.")
    if options.keep:
        raise ActrelaxError("loss.backward() returns no trajectory: call relax_backward with keep, or leave it out.")
    return replace(options, reduction=reduction)


def _network_of(module: object, input_shape: Sequence[int] | None) -> Network:
    if isinstance(module, Network):
        own = module.populations[module.input].shape
        if input_shape is not None and tuple(input_shape) != own:
            raise ActrelaxError(f"the network takes samples of shape {own}, got input_shape={tuple(input_shape)}.")
        return module
    if not isinstance(module, nn.Module):
        raise ActrelaxError(
            f"module must be a Network or an nn.Module, got {module!r}: put the layers in nn.Sequential."
        )
    _refuse_hooks(module)
    if input_shape is None:
        raise ActrelaxError("input_shape is missing: pass the shape of one sample, such as input_shape=(3, 32, 32).")
    return Network.from_sequential(module, input_shape)


def _add_feedback(network: Network, assumptions: Assumptions, generator: torch.Generator | None) -> None:
    """Create the feedback weights that the assumptions need, unless the network has them."""
    if not network.lacks_feedback(assumptions):
        return
    if generator is None:
        raise ActrelaxError(
            f"assumptions {assumptions.preset or 'of your own'!r} need feedback weights: pass "
            "options=BackwardOptions(generator=torch.Generator().manual_seed(0))."
        )
    network.add_feedback(assumptions, generator)


def _feedback_of(network: Network) -> nn.Module:
    """Return a module that owns the network's feedback weights, called like their projections."""
    container = nn.Module()
    for projection in network.projections.values():
        if isinstance(projection.feedback, nn.Parameter):
            container.register_parameter(projection.name, projection.feedback)
        elif projection.feedback is not None:
            container.register_buffer(projection.name, projection.feedback)
    return container


def _owners(module: nn.Module, network: Network, feedback: nn.Module) -> dict[Slot, tuple[nn.Module, str]]:
    """Return slot -> the module that has this weight, and its name there."""
    if network is module:
        return {(p.name, slot): (p, slot) for p in network.projections.values() for slot in p.slots}
    owners = {id(w): (m, name) for m in module.modules() for name, w in m.named_parameters(recurse=False)}
    owned: dict[Slot, tuple[nn.Module, str]] = {}
    for p in network.projections.values():
        for slot in p.slots:
            owned[p.name, slot] = (feedback, p.name) if slot == "feedback" else owners[id(getattr(p, slot))]
    return owned


def _refuse_hooks(module: nn.Module) -> None:
    """Refuse what would change a layer's result or weights, since relaxation does not call the layers."""
    for name, layer in module.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise ActrelaxError(
                f"layer {name!r} has a forward hook (a pruned layer has one), which a relaxation would not call: "
                "remove it; prune.remove makes pruned weights permanent."
            )
