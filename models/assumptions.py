"""Which implausible assumptions are lifted, for dense and for convolutional projections (THEORY.md section 2).

The knobs are data. `problem.py` reads the gains and the presynaptic factor, `network.py` the feedback and
`learning.py` the timing, each in one function.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

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
        What carries feedback: W itself (weight transport); weights psi of its own, learned by the same Hebbian
        rule; the same with the same decay on W and psi, so that W - psi decays; a fixed random psi (feedback
        alignment); sign(W) times the scale of W's initialisation.
    activity_gain, weight_gain : {"feedforward", "current", "none"}
        f' in the relaxation and in the plasticity rule: frozen at the feedforward pass, taken at the current
        drive, or dropped (= 1).
    presynaptic : {"feedforward", "current"}
        The plasticity rule's presynaptic factor: the activity of the feedforward pass, or the current one.
    plasticity : {"equilibrium", "continuous"}
        Weights change after the relaxation, or during it.

    Raises
    ------
    ActrelaxError
        For a value that isn't listed.
    """

    feedback: Feedback = "transpose"
    activity_gain: Gain = "feedforward"
    weight_gain: Gain = "feedforward"
    presynaptic: Presynaptic = "feedforward"
    plasticity: Plasticity = "equilibrium"

    def __post_init__(self) -> None:
        values = {
            "feedback": Feedback,
            "activity_gain": Gain,
            "weight_gain": Gain,
            "presynaptic": Presynaptic,
            "plasticity": Plasticity,
        }
        for field in fields(self):
            known(field.name, getattr(self, field.name), get_args(values[field.name]))


@dataclass(frozen=True)
class Assumptions:
    """The knobs of dense and of convolutional projections.

    A skip without weights takes the gains of `conv` where the population it feeds is spatial, else of `dense`.

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
        """Name of the preset that says the same; None if there is none."""
        return next((name for name, preset in PRESETS.items() if preset == self), None)

    @property
    def is_continuous(self) -> bool:
        """Whether some weights change while the relaxation runs."""
        return any(knobs.plasticity == "continuous" for knobs in self.both)

    @property
    def needs_decay(self) -> bool:
        """Whether some feedback follows Kolen and Pollack's rule."""
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
