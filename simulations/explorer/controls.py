"""The controls of the explorer, by Bokeh: widgets that a setting is read from and written to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from actrelax.models.assumptions import PRESETS, Assumptions
from actrelax.models.engines import INTEGRATORS
from actrelax.simulations.explorer.setting import SHOWN, Setting
from actrelax.simulations.training.assumption_names import assumptions_named, name_of
from actrelax.simulations.training.usual_images import drawing_shape

FEEDBACK = ("transpose", "learned", "kolen-pollack", "random", "sign")
GAINS = ("feedforward", "current", "none")
SIZES = ("eta", "dt")
USUAL_ETA = 0.1
LOOKS = """
:host { --color: var(--ink); color: var(--ink); font-size: .85rem; }
label, .bk-input-group > * { color: var(--ink); }
.bk-input, .bk-btn { background-color: var(--paper); color: var(--ink); border-color: var(--line); }
.bk-btn:hover { background: var(--shade); }
.bk-btn.bk-active { background: var(--accent); color: var(--paper); }
select.bk-input:not([multiple]) { appearance: auto; background-image: none; }
.bk-input:focus, .bk-btn:focus { outline: 2px solid var(--accent); border-color: var(--accent); }
.noUi-target { background: var(--shade); border-color: var(--line); box-shadow: none; }
.noUi-connects { background: var(--line); }
.noUi-handle { background: var(--accent); border-color: var(--paper); box-shadow: none; }
.noUi-handle:focus { outline: 2px solid var(--ink); outline-offset: 2px; }
.bk-slider-title, .bk-slider-value { color: var(--ink); }
"""
"""Colours of the page, which Bokeh's widgets, each in a shadow root, take through variables."""


def looks() -> list[Any]:
    """Return the style sheets of a widget on the page."""
    from bokeh.models import InlineStyleSheet

    return [InlineStyleSheet(css=LOOKS)]


def heard(call: Callable[[], None]) -> Callable[[str, object, object], None]:
    """Return a function as Bokeh calls it when a property changes."""

    def on_change(attr: str, old: object, new: object) -> None:
        call()

    return on_change


class Controls:
    """Widgets for one setting at a time.

    root     the widgets, one below the other
    changed  called after the user has changed a widget; a slider that is dragged calls once, where it is let go
    """

    def __init__(self, setting: Setting, changed: Callable[[], None]) -> None:
        self._changed, self._writing, self.setting = changed, False, setting
        self.widgets: dict[str, Any] = {}
        self._add_image(setting)
        self._add_assumptions()
        self._add_relaxation()
        from bokeh.models import Column

        self.root = Column(*self.widgets.values(), name="controls", sizing_mode="stretch_width")
        self.write(setting)

    def read(self) -> Setting:
        """Return the setting that the widgets show."""
        value = {name: widget.value for name, widget in self.widgets.items()}
        problem = replace(self.setting.problem, seed=value["seed"] or 0)
        if problem.run is None:
            problem = replace(problem, model=replace(problem.model, network=value["network"]))
        drawn = value["from"] == "drawing"
        problem = replace(
            problem,
            first=0 if drawn else value["image"] or 0,
            drawing=value["drawing"] if drawn else None,
            label=int(value["label"]) if drawn else None,
        )
        assumptions, size = self._assumptions(value), value["size"]
        # what is usual is left out: a command has only what matters
        named = replace(self.setting.relaxation, assumptions=name_of(assumptions))
        usual_start = "zero" if named.is_continuous else "feedforward"
        relaxation = replace(
            named,
            **{name: value[name] for name in _NUMBERS},
            eta=None if value["size of"] == "dt" or size == USUAL_ETA else size,
            dt=size if value["size of"] == "dt" else None,
            integrator=value["integrator"],
            start=None if value["start"] == usual_start else value["start"],
            tau_spread_over=value["spread over"],
        )
        return Setting(problem, relaxation)

    def fit_drawing(self, pixels: int) -> None:
        """Replace the drawing by an empty one with `pixels` pixels, unless it has that size already."""
        drawing = self.widgets["drawing"]
        if len(drawing.value) != pixels:
            self._quietly(drawing, "0" * pixels)

    def _fit_network(self) -> None:
        """Begin an empty drawing if the network that was chosen takes other images."""
        shape = drawing_shape(self.widgets["network"].value)
        if len(shape) == 1 or shape[0] == 1:
            self.fit_drawing(math.prod(shape))

    def _quietly(self, widget: Any, value: object) -> None:
        before, self._writing = self._writing, True
        widget.value = value
        self._writing = before

    def write(self, setting: Setting) -> None:
        """Show a setting."""
        self._writing, self.setting = True, setting
        problem, relaxation = setting.problem, setting.relaxation
        knobs, size = relaxation.knobs, "eta" if relaxation.dt is None else "dt"
        shown = {
            **{name: getattr(relaxation, name) for name in _NUMBERS},
            "seed": problem.seed,
            "from": "test images" if problem.drawing is None else "drawing",
            "image": problem.first,
            "label": str(problem.label or 0),
            "preset": name_of(knobs).split(",")[0],
            **_gains_and_feedback(knobs),
            "integrator": relaxation.integrator,
            "size of": size,
            "size": getattr(relaxation, size) or USUAL_ETA,
            "spread over": relaxation.tau_spread_over,
            "start": relaxation.start or ("zero" if relaxation.is_continuous else "feedforward"),
            **({} if problem.run is not None else {"network": problem.model.network}),
            **({} if problem.drawing is None else {"drawing": problem.drawing}),
        }
        for name, value in shown.items():
            self.widgets[name].value = value
        self._writing = False

    def _assumptions(self, value: dict[str, Any]) -> Assumptions:
        preset = assumptions_named(value["preset"])
        dense, conv = (
            replace(knobs, feedback=value[f"{kind} feedback"], activity_gain=value[f"{kind} gain"])
            for kind, knobs in (("dense", preset.dense), ("conv", preset.conv))
        )
        return replace(preset, dense=dense, conv=conv)

    def _add_image(self, setting: Setting) -> None:
        run = setting.problem.run
        networks = SHOWN if run is None else [f"{setting.problem.model.network} of {run.name}"]
        self._choice("network", "network", networks)
        if run is None:
            self.widgets["network"].on_change("value", heard(self._follow_network))
        self._number("seed", "seed of weights and noise")
        self._choice("from", "image from", ["test images", "drawing"])
        self._number("image", "number of the test image")
        self._text("drawing", "drawing, pixels from 0 to f", "0" * 64)
        self._choice("label", "label of the drawing", [str(label) for label in range(10)])

    def _add_assumptions(self) -> None:
        self._choice("preset", "assumptions: preset", [*PRESETS])
        for kind in ("dense", "conv"):
            self._choice(f"{kind} feedback", f"feedback weights, {kind}", FEEDBACK)
            self._choice(f"{kind} gain", f"gain of activities, {kind}", GAINS)
        self.widgets["preset"].on_change("value", heard(self._follow_preset))

    def _add_relaxation(self) -> None:
        schemes = [name for name, scheme in INTEGRATORS.items() if scheme.takes_time]
        self._choice("integrator", "integrator", [*schemes, "scipy:DOP853"])
        self._choice("size of", "step given as", SIZES)
        self._slider("size", "step: eta, or dt", 0.01, 2, 0.01)
        self._slider("steps", "steps", 1, 500, 1)
        self._slider("tau", "tau", 0.1, 5, 0.1)
        self._slider("tau_spread", "spread of tau, relative", 0, 1, 0.05)
        self._choice("spread over", "spread over", ["neurons", "populations"])
        self._slider("noise", "noise (standard deviation)", 0, 0.5, 0.01)
        self._slider("delay", "delay of feedback", 0, 2, 0.1)
        self._choice("start", "start", ["feedforward", "zero"])

    def _follow_network(self) -> None:
        if not self._writing:
            self._fit_network()
            self._changed()

    def _follow_preset(self) -> None:
        """Set the knobs to those of the preset that was chosen."""
        if self._writing:
            return
        for name, value in _gains_and_feedback(assumptions_named(self.widgets["preset"].value)).items():
            self._quietly(self.widgets[name], value)
        self._changed()

    def _choice(self, name: str, title: str, options: Sequence[str]) -> None:
        from bokeh.models import Select

        on = () if name in ("preset", "network") else ("value",)
        self._keep(name, Select(title=title, options=list(options), value=options[0], **self._how(name)), *on)

    def _number(self, name: str, title: str) -> None:
        from bokeh.models import Spinner

        self._keep(name, Spinner(title=title, low=0, step=1, value=0, mode="int", **self._how(name)), "value")

    def _text(self, name: str, title: str, value: str) -> None:
        from bokeh.models import TextInput

        self._keep(name, TextInput(title=title, value=value, **self._how(name)), "value")

    def _slider(self, name: str, title: str, start: float, end: float, step: float) -> None:
        from bokeh.models import Slider

        slider = Slider(title=title, start=start, end=end, step=step, value=start, **self._how(name))
        self._keep(name, slider, "value_throttled")

    def _how(self, name: str) -> dict[str, Any]:
        return {"name": name, "sizing_mode": "stretch_width", "stylesheets": looks()}

    def _keep(self, name: str, widget: Any, *on: str) -> None:
        self.widgets[name] = widget
        for each in on:
            widget.on_change(each, heard(self._hear))

    def _hear(self) -> None:
        if not self._writing:
            self._changed()


_NUMBERS = ("steps", "tau", "tau_spread", "noise", "delay")


def _gains_and_feedback(assumptions: Assumptions) -> dict[str, str]:
    kinds = {"dense": assumptions.dense, "conv": assumptions.conv}
    feedback = {f"{kind} feedback": knobs.feedback for kind, knobs in kinds.items()}
    return {**feedback, **{f"{kind} gain": knobs.activity_gain for kind, knobs in kinds.items()}}
