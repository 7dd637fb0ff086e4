"""Learning in Brian2: a feedforward phase, a relaxation and local plasticity per stimulus, in one run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import brian2 as b2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actrelax.models._names import is_number, known, look_up
from actrelax.models._values import as_number
from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.engines.brian2 import UNIT, generating, target_named
from actrelax.models.engines.brian2.codegen import require_runtime
from actrelax.models.engines.brian2.names import identifiers
from actrelax.models.engines.brian2.support import check_steps
from actrelax.models.errors import ActrelaxError
from actrelax.models.learning.brian2 import equations
from actrelax.models.learning.brian2.captured import written
from actrelax.models.learning.brian2.objects import (
    assemble,
    biases_of,
    check_weights,
    learning_in,
    matrix_of,
    weights_of,
)
from actrelax.models.learning.brian2.phases import Phases
from actrelax.models.network import Network, check_network
from actrelax.models.problem import LOSSES
from actrelax.models.results import DivergenceError

NEVER = -1
"""Step of an event that doesn't take place."""


class Learner:
    """A network trained in one Brian2 simulation of rates, gains, relaxation and weights (docs/theory.md).

    Each stimulus takes ``feedforward_steps + steps + 1`` time steps of ``eta`` ms. First the feedforward phase,
    ``tau dx_v/dt = -x_v + f_v(a_v)``, yields the rates r and the gains g; then the populations relax while the output
    sends dLoss/dr; in the last step ``dW = -rate * r_pre * g_post * x_post`` changes the forward and learned feedback
    weights. Simulated time continues from call to call.

    Each call reads the weights of `network` and, after learning, writes them back, so PyTorch's optimisers and Brian2
    can alternate. Brian2 computes in float64.

    Parameters
    ----------
    network : Network
        Network of dense projections and copies whose activations have a formula; call `add_feedback` first if the
        assumptions need feedback weights. Convolutions and average pooling keep their weights, which must not require
        a gradient. Networks with cycles are trained at the rates that the feedforward phase reaches. In captured
        networks each population must be one pointwise function, known by name, of the sum of its inputs.
    rate : float
        Learning rate; each stimulus is one step of plain gradient descent.
    loss : str, default "cross-entropy"
        "cross-entropy", "sum-of-squares" or "half-sum-of-squares".
    assumptions : str or Assumptions, default "ar"
        Assumptions with plasticity at equilibrium.
    phases : Phases, optional
        Number and size of the steps.
    decay : float, optional
        Decay rate of the weights, only for "kolen-pollack" feedback, which needs it.
    codegen : str, default "numpy"
        Brian2's code generation target. "cython" compiles for about a minute at first and is then faster.

    Raises
    ------
    ActrelaxError
        If Brian2 can't train the network; for values out of range or missing feedback weights.

    Examples
    --------
    >>> from actrelax import build
    >>> from actrelax.brian2 import Learner, Phases
    >>> network = build("mlp-2x5", input_shape=(4,), generator=torch.Generator().manual_seed(0))
    >>> learner = Learner(network, rate=0.1, phases=Phases(steps=20, eta=0.2))
    >>> learner.learn(torch.rand(3, 4), torch.tensor([0, 7, 2])).shape
    torch.Size([3, 10])
    """

    def __init__(
        self,
        network: Network,
        *,
        rate: float,
        loss: str = "cross-entropy",
        assumptions: str | Assumptions = "ar",
        phases: Phases | None = None,
        decay: float | None = None,
        codegen: str = "numpy",
    ) -> None:
        self.network, self.rate, self.decay = network, as_number(rate), as_number(decay)
        self.assumptions = look_up("assumptions", assumptions, PRESETS)
        check_network(network)
        self._written = written(network, self.assumptions)
        self.loss = known("Brian2 loss", loss, equations.TOP_GRADIENTS)
        self.phases = phases or Phases()
        self.codegen = target_named(codegen)
        self._learning = learning_in(self._own)
        self._check()
        self.feedforward_steps = self.phases.feedforward_steps or equations.depth(self._own)
        self._simulation = assemble(self._own, self._written.assumptions, self.loss, self.phases.eta)
        self._set_taus()

    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        """Learn from stimuli one by one, in one run.

        Parameters
        ----------
        x : torch.Tensor
            Stimuli, (n, *input shape), in the order of presentation.
        y : torch.Tensor
            Targets: integer labels (n,) or (n, *output shape).

        Returns
        -------
        torch.Tensor
            (n, output units): the output's rates at the end of each feedforward phase, before the weights change.

        Raises
        ------
        DivergenceError
            If weights become non-finite; the network's weights are then unchanged.
        """
        self._read_weights()
        before = self.activities
        output = self._run(x, y, self.feedforward_steps + self.phases.steps + 1, self.rate)
        try:
            self._write_weights()
        except DivergenceError:
            self.activities = before
            raise
        return output

    def respond(self, x: Tensor) -> Tensor:
        """Present stimuli, (n, *input shape), for the feedforward phase only, and return the output's rates.

        Returns
        -------
        torch.Tensor
            (n, output units), as from `learn`.
        """
        self._read_weights()
        return self._run(x, None, self.feedforward_steps + 1, 0.0)

    def watch(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Present stimuli like `learn`, with a learning rate of 0, and record the activities.

        Returns
        -------
        dict
            Population -> (n * steps per stimulus, units), after each step, except the input.
        """
        self._read_weights()
        monitors = self._simulation.monitors
        seen = {name: len(monitor.t) for name, monitor in monitors.items()}
        for monitor in monitors.values():
            monitor.active = True
        try:
            self._run(x, y, self.feedforward_steps + self.phases.steps + 1, 0.0)
        finally:
            for monitor in monitors.values():
                monitor.active = False
        return {name: torch.tensor(monitor.x[:, seen[name] :].T) for name, monitor in monitors.items()}

    @property
    def activities(self) -> dict[str, Tensor]:
        """Population -> current x, (units,). With the weights it is the complete state: assign it to resume."""
        return {name: torch.tensor(np.array(self._simulation.groups[name].x)) for name in self._simulation.monitors}

    @activities.setter
    def activities(self, given: Mapping[str, Tensor]) -> None:
        for name in self._simulation.monitors:
            group = self._simulation.groups[name]
            # r and g are only ever multiplied by 0 from here; reset them, because 0 * nan is nan
            group.x, group.r, group.g = _array(given[name]), 0.0, 0.0

    def _check(self) -> None:
        require_runtime()
        reason = equations.unsupported(self._own, self._written.assumptions)
        if reason:
            raise ActrelaxError(reason)
        self.phases.check(self._own)
        self._written.assumptions.check_names(self._own.projections)
        for projection in self._own.projections.values():
            self._own.feedback_weight(projection, self._written.assumptions)
        if not (is_number(self.rate) and 0 <= self.rate < math.inf):
            raise ActrelaxError(f"rate must be a number, 0 or positive, got {self.rate!r}.")
        if self.decay is not None and not (is_number(self.decay) and 0 <= self.decay < math.inf):
            raise ActrelaxError(f"decay must be 0 or positive, got {self.decay}.")
        if self._written.assumptions.needs_decay != (self.decay is not None):
            raise ActrelaxError(
                f'"kolen-pollack" feedback needs a decay rate and other feedback takes none, got decay={self.decay}.'
            )
        check_weights(self._own, self._written.assumptions, self._learning)

    def _set_taus(self) -> None:
        for name, tau in self.phases.taus(self._own).items():
            self._simulation.groups[name].slowness = _array(torch.as_tensor(tau).flatten())

    def _run(self, x: Tensor, y: Tensor | None, period: int, rate: float) -> Tensor:
        stimuli, targets = self._arrays(x, y)
        simulation, stimulus = self._simulation, period * self._simulation.dt
        begin, seen = simulation.step, len(simulation.read.i)
        check_steps(begin + len(stimuli) * period)
        namespace = {
            "begin": begin,
            "period": period,
            "feedforward_end": self.feedforward_steps,
            "relaxing_end": period - 1,
            "learning": NEVER if y is None else period - 1,
            "tau": 1.0 * UNIT,
            "tau_feedforward": simulation.dt / self.phases.feedforward_eta,
            "rate": rate,
            "decay": self.decay or 0.0,
            # with fixed names, compiled code is the same in every call
            "stimuli": b2.TimedArray(stimuli, stimulus, name="stimuli"),
            "targets": b2.TimedArray(targets, stimulus, name="targets"),
        }
        with generating(self.codegen), np.errstate(all="ignore"):
            simulation.network.run(len(stimuli) * stimulus, namespace=namespace)
        if simulation.step != begin + len(stimuli) * period:
            raise KeyboardInterrupt  # Brian2 ends a run silently at Ctrl-C
        return torch.tensor(np.array(simulation.read.r[seen:])).reshape(len(stimuli), -1)

    def _arrays(self, x: Tensor, y: Tensor | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        self._own.check_stimuli(x)
        for name, given in (("stimuli", x), ("targets", y)):
            if isinstance(given, Tensor) and not bool(torch.isfinite(given).all()):
                raise ActrelaxError(f"{name} must be finite: look for inf and nan in them.")
        require_runtime()
        with torch.no_grad():
            silent = x.new_zeros(len(x), *self._own.populations[self._own.output].shape)
            if y is not None:
                LOSSES[self.loss].value(silent, y)  # refuses invalid targets
        # the gradient of half the sum of squares at 0 is minus the target, for labels and for dense targets
        targets = silent if y is None else -LOSSES["half-sum-of-squares"].gradient(silent, y)
        return _array(x.flatten(1)), _array(targets.flatten(1))

    @property
    def _own(self) -> Network:
        """The network as populations and projections."""
        return self._written.network

    def _read_weights(self) -> None:
        self._written.check()
        check_weights(self._own, self._written.assumptions, self._learning)
        self._read_fixed_weights()
        for _, group, variable, tensor in self._weights():
            values = _array(tensor)
            setattr(group, variable, values[group.j[:], group.i[:]] if values.ndim == 2 else values)

    @torch.no_grad()
    def _read_fixed_weights(self) -> None:
        tag = identifiers(self._own.projections)
        for p in filter(equations.is_sparse, self._own.projections.values()):
            synapses = self._simulation.synapses[p.name]
            synapses.w = matrix_of(self._own, p, p.weight)[synapses.j[:], synapses.i[:]]
            if p.bias is not None:
                setattr(self._simulation.groups[p.target], f"{tag[p.name]}_bias", _array(biases_of(self._own, p)))

    @torch.no_grad()
    def _write_weights(self) -> None:
        found = []
        for name, group, variable, tensor in self._weights():
            values = np.array(getattr(group, variable))
            if not np.isfinite(values).all():
                raise DivergenceError(f"{name!r} became non-finite: lower the learning rate or eta.")
            if tensor.dim() == 2:
                matrix = np.empty(tensor.shape)
                matrix[group.j[:], group.i[:]] = values
                values = matrix
            found.append((tensor, values))
        for tensor, values in found:
            if tensor.requires_grad:
                tensor.copy_(torch.from_numpy(values))

    def _weights(self) -> Iterator[tuple[str, Any, str, Tensor]]:
        """Yield (name in the state_dict, Brian2 object, its variable, tensor) of each weight and bias."""
        tag = identifiers(self._own.projections)
        for p, kind, tensor in weights_of(self._own, self._written.assumptions):
            ends = self._simulation.synapses[p.name], self._simulation.groups[p.target]
            variable = {"weight": "w", "feedback": "psi", "bias": f"{tag[p.name]}_bias"}[kind]
            yield f"{p.name}.{kind}", ends[kind == "bias"], variable, tensor


def _array(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().double().cpu().numpy()
    return array
