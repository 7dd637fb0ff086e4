"""A network: a directed graph of populations joined by projections (docs/theory.md)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from actrelax.models._names import look_up
from actrelax.models.errors import ActrelaxError
from actrelax.models.network.activations import ACTIVATIONS, Activation
from actrelax.models.network.bound_recurrence import bound_recurrence
from actrelax.models.network.feedback import FeedbackWeights, kind_of
from actrelax.models.network.feedforward_pass import FeedforwardPass, pass_forward, sum_in_order
from actrelax.models.network.from_sequential import check_same_function, split_chain
from actrelax.models.network.graph import Graph, topological_order
from actrelax.models.network.overview import overview
from actrelax.models.network.population import populations_of
from actrelax.models.network.projection import Projection, ProjectionRoute
from actrelax.models.network.source import Source, refuse_global_hooks, refuse_ignored
from actrelax.models.network.stimuli import check_stimuli

if TYPE_CHECKING:
    from actrelax.models.network.captured.network import CapturedNetwork

Slot = tuple[str, str]
"""Place of a weight in a network: (name of the projection, "weight", "bias" or "feedback")."""


class Network(FeedbackWeights, nn.Module):
    """Populations and projections: a `torch.nn.Module` with weights and no relaxation state.

    Population v receives the drive ``a_v = sum_p op_p(x_source(p); W_p) + b_p`` from its incoming projections and
    fires at ``x_v = f_v(a_v)``.

    Parameters
    ----------
    input_shape : sequence of int
        Shape of one sample; the population "input" holds the stimulus.
    populations : mapping
        Name -> activation, a key of `activations.ACTIVATIONS` or an `Activation`. Shapes follow from the
        projections. The output is the only population without outgoing projections.
    projections : sequence of Projection

    Attributes
    ----------
    populations : dict of str to Population
        In topological order, the input first, the output last; those of a cycle one after another, in the order in
        which they are entered from below.
    projections : dict of str to Projection
    graph : Graph
        Connections among the hidden populations and the output.

    Raises
    ------
    ActrelaxError
        For an unknown or repeated name, drives of different shapes at one population, a population without a drive,
        a cycle that the input doesn't reach or that feeds no population outside it, or more than one output.

    Examples
    --------
    >>> network = Network(
    ...     (4,),
    ...     {"hidden1": "tanh", "output": "identity"},
    ...     [Projection("input", "hidden1", nn.Linear(4, 3)), Projection("hidden1", "output", nn.Linear(3, 2))],
    ... )
    >>> network(torch.zeros(5, 4)).shape
    torch.Size([5, 2])
    >>> network
    Network: 2 populations besides the input, 2 projections, 23 parameters
      population  shape  units  activation
      input       (4,)       4  -
      hidden1     (3,)       3  tanh
      output      (2,)       2  identity
      projection       kind   pipeline      parameters  feedback
      input->hidden1   dense  Linear(4, 3)          15  -
      hidden1->output  dense  Linear(3, 2)           8  transpose
    """

    input = "input"

    def __init__(
        self,
        input_shape: Sequence[int],
        populations: Mapping[str, str | Activation],
        projections: Sequence[Projection],
    ) -> None:
        super().__init__()
        projections = list(projections)
        order = topological_order(self.input, list(populations), projections)
        for projection in projections:
            if projection.name in self._modules:
                raise ActrelaxError(f"two projections are called {projection.name!r}: give one of them another name.")
            if "." in projection.name or not projection.name or hasattr(self, projection.name):
                raise ActrelaxError(f"a projection can't be called {projection.name!r}: choose another name.")
            self.add_module(projection.name, projection)
        self.outgoing = {name: [p for p in projections if p.source == name] for name in order}
        self.incoming = {name: [p for p in projections if p.target == name] for name in order}
        activations = {name: look_up("activation", given, ACTIVATIONS) for name, given in populations.items()}
        weight = next(self.parameters(), torch.empty(0))
        self.populations = populations_of(tuple(input_shape), order, self.incoming, activations, weight)
        self.graph = self._graph()
        self._kinds = {p.name: kind_of(p, self.populations[p.target].shape) for p in projections}
        self._source = Source()

    @classmethod
    def from_sequential(cls, module: nn.Module, input_shape: Sequence[int]) -> Network:
        """Build a network from a chain of standard layers, sharing their Parameters.

        Parameters
        ----------
        module : torch.nn.Module
            An `nn.Sequential`, also nested, or any module whose forward pass applies its layers one after another:
            Linear, Conv2d, MaxPool2d, AvgPool2d, Upsample, Flatten and activation functions.
        input_shape : sequence of int
            Shape of one sample.

        Returns
        -------
        Network
            Training it trains `module`. Populations are called ``conv1``, ``conv2``, ... after a convolution, else
            ``hidden1``, ..., and the last one ``output``.

        Raises
        ------
        ActrelaxError
            For an unsupported layer (batch normalisation, dropout, ...), a layer with hooks or parametrisations, or a
            module that is not a chain of layers. Later, when the network is used: if the module has changed since
            (other layers, options, hooks, or Parameters, as after ``load_state_dict(assign=True)``).

        Examples
        --------
        >>> module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 10))
        >>> network = Network.from_sequential(module, (1, 8, 8))
        >>> list(network.projections.values())
        [input->conv1: Conv2d(1, 2, 3), MaxPool2d(2), conv1->output: Flatten, Linear(18, 10)]
        """
        network = cls(input_shape, *split_chain(module, input_shape))
        check_same_function(module, network, input_shape)
        network._source = Source(module)
        return network

    @staticmethod
    def from_module(
        module: nn.Module,
        example: Tensor,
        output: Callable[[Any], Tensor] | None = None,
        paths: Literal["one", "many"] = "one",
    ) -> CapturedNetwork:
        """Capture any module as a network: norms, skips, attention and whatever else autograd can differentiate.

        The module's own code runs in each forward pass. Populations are what weights read, what several populations
        need, and the output; all other operations belong to one population each (docs/any-module.md).

        Parameters
        ----------
        module : torch.nn.Module
        example : torch.Tensor
            A batch as the module takes it; at least two samples for batch normalisation. The module runs once on it;
            buffers and random generators are then restored.
        output : callable, optional
            From what the module returns to its output tensor: ``lambda result: result.logits``.
        paths : {"one", "many"}, default "one"
            Whether the module always calls the same functions. Another call is an error with "one"; "many" partitions
            the module anew in each pass.

        Returns
        -------
        CapturedNetwork
            A `Network` for `RelaxationProblem`, `solve`, `relax_backward` and `ActivationRelaxation`. ``print`` lists
            its populations.

        Raises
        ------
        ActrelaxError
            For activation checkpointing, a compiled module, SyncBatchNorm, an output that is no tensor or depends on
            no weight.

        Examples
        --------
        >>> module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.GELU(), nn.Linear(3, 2))
        >>> network = Network.from_module(module, torch.zeros(2, 4))
        >>> print(*str(network).splitlines()[1:], sep="\\n")
          population  shape  units  hops  local to    phi
          input       (4,)   4
          0           (3,)   3      1     population  NativeLayerNorm, Gelu
          output      (2,)   2      0     unit        identity
        """
        from actrelax.models.network.captured.capture import capture  # which is made of networks

        return capture(module, example, output, paths)

    @property
    def output(self) -> str:
        return list(self.populations)[-1]

    @property
    def hidden(self) -> list[str]:
        """Names of the populations that relax, in topological order."""
        return list(self.populations)[1:-1]

    @property
    def is_recurrent(self) -> bool:
        """Return whether the network has cycles: its rates and gradients are then fixed points that must settle."""
        return self.graph.is_recurrent

    @property
    def slots(self) -> list[Slot]:
        """The slots of all weights, projection by projection."""
        return [(p.name, slot) for p in self.projections.values() for slot in p.slots]

    def with_weights(self, weights: Sequence[Tensor]) -> Network:
        """Return a copy of the network with these tensors in its slots, or the network itself if they are unchanged."""
        given = dict(zip(self.slots, weights, strict=True))
        if all(getattr(self.projections[p], slot) is w for (p, slot), w in given.items()):
            return self
        other = copy.copy(self)
        other._modules = {p.name: p.with_weights(given) for p in self.projections.values()}
        projections = other.projections
        other.outgoing = {name: [projections[p.name] for p in ps] for name, ps in self.outgoing.items()}
        other.incoming = {name: [projections[p.name] for p in ps] for name, ps in self.incoming.items()}
        return other

    def _refuse_changes(self) -> None:
        """Refuse hooks, and weights that are no longer those of the modules that they came from."""
        refuse_ignored(self, "")
        for name, projection in self.projections.items():
            refuse_ignored(projection, name)
        self._check_sources()

    def _check_sources(self) -> None:
        """Refuse global hooks, source modules that have changed, and Parameters the network no longer shares."""
        if not torch.compiler.is_compiling():
            refuse_global_hooks()
            self._source.check()
            for projection in self.projections.values():
                projection._check_sources(options=self._source.module is None)

    def _tensors(self) -> list[Tensor]:
        """Return all weights, biases and feedback weights."""
        return [getattr(p, slot) for p in self.projections.values() for slot in p.slots]

    def _graph(self) -> Graph:
        order, hidden = (self.output, *self.hidden[::-1]), set(self.hidden)
        sources = (dict.fromkeys(p.source for p in self.incoming[name] if p.source in hidden) for name in order)
        return Graph(order, tuple(map(tuple, sources)))

    @property
    def projections(self) -> dict[str, Projection]:
        return {name: module for name, module in self._modules.items() if isinstance(module, Projection)}

    def feedforward(self, x: Tensor, *, keep_drives: bool = True) -> FeedforwardPass:
        """Return drives, activities and routes of a batch x, (batch, *input_shape).

        ``keep_drives=False`` saves memory: it keeps a drive only if the gain can't be computed from the activity.
        """
        if self.is_recurrent:
            cycles = self.graph.cycles_in_words
            raise ActrelaxError(
                f"a feedforward pass needs a network without cycles, got {cycles}: call settle(network, x)."
            )
        self._check_sources()
        self.check_stimuli(x)
        activations = {name: population.activation for name, population in self.populations.items()}
        return pass_forward(x, list(self.populations), self.incoming, activations, keep_drives=keep_drives)

    def check_stimuli(self, x: Tensor) -> None:
        """Refuse stimuli of another shape, dtype or device than the network's input and weights."""
        check_stimuli(x, self.populations[self.input].shape, self._tensors())

    def forward(self, x: Tensor) -> Tensor:
        """Return the output activities (batch, *output shape), differentiable if grad mode is on."""
        return self.feedforward(x, keep_drives=False).activities[self.output]

    def fork_state(self, x: Tensor) -> AbstractContextManager[None]:
        """Return a context that restores buffers and random generators, for passes of a batch x without updates.

        At the end of the ``with`` block BatchNorm's running statistics, other buffers, and the random generators are as
        before. Only captured modules use them; other networks have nothing to restore.
        """
        return nullcontext()

    def drive(self, population: str, activities: Mapping[str, Tensor], routes: Mapping[str, ProjectionRoute]) -> Tensor:
        """Return the population's drive for given activities, along the routes of the feedforward pass."""
        return sum_in_order([p.drive(activities[p.source], routes[p.name]) for p in self.incoming[population]])

    def bound_recurrence(self, limit: float, iterations: int = 20) -> dict[tuple[str, ...], Tensor]:
        """Scale recurrent weights down so that the norm of each cycle's linear map is at most a limit.

        Call it after each step of the optimiser. All weights inside a cycle get the same factor, and so do its learned
        feedback weights, as a map of their own; biases stay. With slopes of at most 1, as tanh has, a limit below 1
        makes the rates settle for every stimulus, and relaxations with the gains of the forward phase, too; larger
        limits, such as 1.5, only keep training away from unstable loops.

        Parameters
        ----------
        limit : float
            Bound on the largest singular value of the map from all rates of a cycle to the drives inside it.
        iterations : int, default 20
            Steps of the power iteration, which approaches the singular value from below.

        Returns
        -------
        dict
            Populations of each cycle -> the norm before, a zero-dimensional tensor; empty without cycles.

        Raises
        ------
        ActrelaxError
            If a copy is inside a cycle, or for a limit that is not positive.

        Examples
        --------
        >>> from actrelax import build
        >>> network = build("digits-rec", generator=0)
        >>> norms = network.bound_recurrence(0.9)
        >>> [f"{float(norm):.1f}" for norm in norms.values()]
        ['1.6']
        >>> [f"{float(norm):.1f}" for norm in network.bound_recurrence(0.9).values()]
        ['0.9']
        """
        cycles = {
            members: [p for name in members for p in self.incoming[name] if p.source in members]
            for members in self.graph.cycles
        }
        shapes = {name: population.shape for name, population in self.populations.items()}
        return bound_recurrence(cycles, shapes, limit, iterations)

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.parameters())
        return overview(self.populations, self.projections, self._kinds, parameters, self.graph.cycles)


def check_network(network: object) -> None:
    """Refuse anything but a `Network`, and a network with hooks or with changed source modules."""
    if not isinstance(network, Network):
        raise ActrelaxError(
            f"network must be a Network, got {type(network).__name__}: pass Network.from_sequential(module, "
            "input_shape) or Network.from_module(module, example), or call loss.backward() on "
            "ActivationRelaxation(module, input_shape=...)."
        )
    network._refuse_changes()
