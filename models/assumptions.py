"""Knobs for the biologically implausible assumptions, by kind of projection or for single projections.

The knobs are data: networks read the feedback, problems the gains, and learning the presynaptic factor and the timing.
docs/theory.md, section 2, defines them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args, get_type_hints

from actrelax.models._names import known, nearest
from actrelax.models.errors import ActrelaxError

Feedback = Literal["transpose", "learned", "kolen-pollack", "random", "sign"]
Gain = Literal["feedforward", "current", "none"]
Presynaptic = Literal["feedforward", "current"]
Plasticity = Literal["equilibrium", "continuous"]
Statistics = Literal["exact", "constant"]


@dataclass(frozen=True)
class Knobs:
    """The assumptions of one kind of projection, or of one projection.

    Parameters
    ----------
    feedback : {"transpose", "learned", "kolen-pollack", "random", "sign"}
        Feedback weights: W itself (weight transport); separate weights psi, learned by the same Hebbian rule; learned
        psi with equal decay of W and psi, so that W - psi decays; fixed random psi (feedback alignment); sign(W)
        times the initial standard deviation of W.
    activity_gain, weight_gain : {"feedforward", "current", "none"}
        f' in the relaxation and in the plasticity rule: frozen at the feedforward pass, at the current drive, or
        replaced by 1.
    presynaptic : {"feedforward", "current"}
        The plasticity rule's presynaptic factor: the activity of the feedforward pass, or the current one.
    plasticity : {"equilibrium", "continuous"}
        Weights change after the relaxation, or during it.

    Raises
    ------
    ActrelaxError
        For an unknown value.
    """

    feedback: Feedback = "transpose"
    activity_gain: Gain = "feedforward"
    weight_gain: Gain = "feedforward"
    presynaptic: Presynaptic = "feedforward"
    plasticity: Plasticity = "equilibrium"

    def __post_init__(self) -> None:
        for name, values in get_type_hints(Knobs).items():
            known(name, getattr(self, name), get_args(values))


Changes = Mapping[str, str]
"""Some knobs and their values."""


@dataclass(frozen=True)
class Assumptions:
    """The knobs of dense and of convolutional projections, and of single projections by name.

    Parameters
    ----------
    dense, conv : Knobs
        By kind. A skip without weights has the gains of `conv` if its target is spatial, else of `dense`.
    projections : mapping, optional
        Name of a projection -> `Knobs` in place of those of its kind, or a mapping of the knobs that differ from these.
    statistics : {"exact", "constant"}
        How signals pass a BatchNorm in training: by its adjoint, which subtracts means over the batch, or with gamma /
        sigma per unit, as if mean and variance were constants.

    Raises
    ------
    ActrelaxError
        For `projections` of another form, unknown names and values.

    Examples
    --------
    >>> Assumptions(dense=Knobs(feedback="learned"), conv=Knobs(activity_gain="none")).conv.feedback
    'transpose'
    >>> lifted = Assumptions(projections={"hidden1->output": {"feedback": "random"}})
    >>> lifted.of("hidden1->output", "dense").feedback, lifted.of("input->hidden1", "dense").feedback
    ('random', 'transpose')
    """

    dense: Knobs = Knobs()
    conv: Knobs = Knobs()
    projections: Mapping[str, Knobs | Changes] = field(default_factory=dict, hash=False)
    statistics: Statistics = "exact"

    def __post_init__(self) -> None:
        known("statistics", self.statistics, get_args(Statistics))
        given = self.projections
        if not isinstance(given, Mapping) or not all(isinstance(each, Knobs | Mapping) for each in given.values()):
            raise ActrelaxError(
                f"projections must map names of projections to Knobs, got {given!r}: pass "
                'projections={"hidden1->output": Knobs(...)}.'
            )
        own = {name: each if isinstance(each, Knobs) else _checked(each) for name, each in given.items()}
        kinds = {"dense": self.dense, "conv": self.conv}
        named = {(name, kind): _with(knobs, each) for name, each in own.items() for kind, knobs in kinds.items()}
        self.__dict__.update(projections=own, _named=named)

    def of(self, name: str, kind: str) -> Knobs:
        """Return the knobs of one projection: those of its name, else of its kind, "dense" or "conv"."""
        named: dict[tuple[str, str], Knobs] = self.__dict__["_named"]
        return named.get((name, kind)) or (self.conv if kind == "conv" else self.dense)

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse knobs for a projection that is not among the names of a network's projections."""
        names = list(names) if self.projections else []
        for name in self.projections:
            if name not in names:
                raise ActrelaxError(f"assumptions name an unknown projection {name!r}; known: {nearest(name, names)}.")

    def changed(self, **knobs: str) -> Assumptions:
        """Return the assumptions with some knobs changed for all projections."""
        named: dict[str, Knobs | Changes] = {
            name: _with(each, knobs) if isinstance(each, Knobs) else {**each, **knobs}
            for name, each in self.projections.items()
        }
        return replace(self, dense=_with(self.dense, knobs), conv=_with(self.conv, knobs), projections=named)

    @property
    def all_knobs(self) -> tuple[Knobs, ...]:
        """The knobs of both kinds, and those that single projections of either kind have."""
        return self.dense, self.conv, *self.__dict__["_named"].values()

    @property
    def preset(self) -> str | None:
        """Name of the preset with these knobs, or None."""
        return next((name for name, preset in PRESETS.items() if preset == self), None)

    @property
    def is_continuous(self) -> bool:
        """Return whether some weights change during the relaxation."""
        return any(knobs.plasticity == "continuous" for knobs in self.all_knobs)

    @property
    def needs_decay(self) -> bool:
        """Return whether some feedback follows Kolen and Pollack's rule."""
        return any(knobs.feedback == "kolen-pollack" for knobs in self.all_knobs)


def _checked(changes: Changes) -> Knobs | Changes:
    """Return changes of known knobs to known values, as `Knobs` if they are all of them."""
    for name in changes:
        known("knob", name, get_type_hints(Knobs))
    every = Knobs(**changes)  # type: ignore[arg-type]
    return every if len(changes) == len(get_type_hints(Knobs)) else dict(changes)


def _with(knobs: Knobs, changes: Knobs | Changes) -> Knobs:
    return changes if isinstance(changes, Knobs) else replace(knobs, **changes)  # type: ignore[arg-type]


def _everywhere(knobs: Knobs) -> Assumptions:
    return Assumptions(dense=knobs, conv=knobs)


_LEARNED = Knobs(feedback="learned")
_NO_DERIVATIVES = Knobs(activity_gain="none", weight_gain="none")
_SIMPLIFIED = Knobs(feedback="learned", activity_gain="none", weight_gain="none")

PRESETS: dict[str, Assumptions] = {
    "ar": Assumptions(),
    "learned-feedback": _everywhere(_LEARNED),
    "kolen-pollack": _everywhere(Knobs(feedback="kolen-pollack")),
    "random-feedback": _everywhere(Knobs(feedback="random")),
    "sign-feedback": _everywhere(Knobs(feedback="sign")),
    "learned-feedback-dense": Assumptions(dense=_LEARNED),
    "learned-feedback-conv": Assumptions(conv=_LEARNED),
    "no-derivatives": _everywhere(_NO_DERIVATIVES),
    "no-derivatives-dense": Assumptions(dense=_NO_DERIVATIVES),
    "no-derivatives-conv": Assumptions(conv=_NO_DERIVATIVES),
    "no-derivatives-relaxation": _everywhere(Knobs(activity_gain="none")),
    "simplified-dense": Assumptions(dense=_SIMPLIFIED),
    "simplified": Assumptions(dense=_SIMPLIFIED, conv=_NO_DERIVATIVES),
    "simplified-relaxation": _everywhere(Knobs(feedback="learned", activity_gain="none")),
    "unfrozen-relaxation": _everywhere(Knobs(activity_gain="current")),
    "unfrozen-weights": _everywhere(Knobs(weight_gain="current")),
    "unfrozen": _everywhere(Knobs(activity_gain="current", weight_gain="current")),
    "current-presynaptic": _everywhere(Knobs(presynaptic="current")),
    "continuous": _everywhere(Knobs(plasticity="continuous")),
    "constant-statistics": Assumptions(statistics="constant"),
}
