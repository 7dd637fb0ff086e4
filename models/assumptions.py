"""Knobs for the biologically implausible assumptions, for dense and convolutional projections.

The knobs are data: networks read the feedback, problems the gains, and learning the presynaptic factor and the timing.
docs/theory.md, section 2, defines them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from actrelax.models._names import known

Feedback = Literal["transpose", "learned", "kolen-pollack", "random", "sign"]
Gain = Literal["feedforward", "current", "none"]
Presynaptic = Literal["feedforward", "current"]
Plasticity = Literal["equilibrium", "continuous"]


@dataclass(frozen=True)
class Knobs:
    """The assumptions of one kind of projection.

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


@dataclass(frozen=True)
class Assumptions:
    """The knobs of dense and of convolutional projections.

    A skip without weights has the gains of `conv` if its target is spatial, else of `dense`.

    Examples
    --------
    >>> Assumptions(dense=Knobs(feedback="learned"), conv=Knobs(activity_gain="none")).conv.feedback
    'transpose'
    """

    dense: Knobs = Knobs()
    conv: Knobs = Knobs()

    @property
    def both(self) -> tuple[Knobs, Knobs]:
        return self.dense, self.conv

    @property
    def preset(self) -> str | None:
        """Name of the preset with these knobs, or None."""
        return next((name for name, preset in PRESETS.items() if preset == self), None)

    @property
    def is_continuous(self) -> bool:
        """Return whether some weights change during the relaxation."""
        return any(knobs.plasticity == "continuous" for knobs in self.both)

    @property
    def needs_decay(self) -> bool:
        """Return whether some feedback follows Kolen and Pollack's rule."""
        return any(knobs.feedback == "kolen-pollack" for knobs in self.both)


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
}
