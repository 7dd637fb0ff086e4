"""The page of `actrelax explore`, by Bokeh: controls, one or two relaxations, and trainings in another tab."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from actrelax.analysis.view.charts import charts
from actrelax.analysis.view.pack import packed
from actrelax.analysis.view.page import read, shared, template
from actrelax.models.errors import ActrelaxError
from actrelax.simulations.explorer.compute import pictured
from actrelax.simulations.explorer.controls import Controls, heard, looks
from actrelax.simulations.explorer.latest import Latest
from actrelax.simulations.explorer.learning import Learning
from actrelax.simulations.explorer.setting import Setting

HERE = "actrelax.simulations.explorer"
NAMES = ("a", "b")
RECEIVE = "explorer.receive(JSON.parse(answer.data.json[0]))"


def answer_of(setting: Setting) -> dict[str, Any]:
    """Return the browser's data for a setting: the picture, and the calls that repeat it.

    Raises
    ------
    ActrelaxError
        For options that can't be met.
    """
    picture = pictured(setting)
    scene = picture.scene
    return {
        "shown": packed(scene),
        "said": [*picture.remarks, f"{scene.trajectory} on {picture.source}, {picture.seconds * 1e3:.0f} ms"],
        "command": setting.command(),
        "python": setting.python(),
    }


@dataclass(eq=False)
class App:
    """One visitor's page: two settings, of which the controls show one.

    document  Bokeh's
    start     the setting to begin with
    """

    document: Any
    start: Setting
    active: str = NAMES[0]
    settings: dict[str, Setting] = field(default_factory=dict)
    compared: bool = False

    def __post_init__(self) -> None:
        from bokeh.events import DocumentReady
        from bokeh.models import ColumnDataSource, CustomJS, Div, RadioButtonGroup

        self.settings = dict.fromkeys(NAMES, self.start)
        self.latest: Latest[Setting, dict[str, Any]] = Latest(answer_of, self.deliver)
        self.controls = Controls(self.start, self.changed)
        self.learning = Learning(self.document)
        self.answer = ColumnDataSource({"json": []}, name="answer")
        self.answer.js_on_change("data", CustomJS(args={"answer": self.answer}, code=RECEIVE))
        how = {"sizing_mode": "stretch_width", "stylesheets": looks()}
        self.views = RadioButtonGroup(name="views", labels=["one setting", "A and B side by side"], active=0, **how)
        self.turns = RadioButtonGroup(name="turns", labels=["change A", "change B"], active=0, visible=False, **how)
        self.views.on_change("active", heard(lambda: self.compare(self.views.active == 1)))
        self.turns.on_change("active", heard(lambda: self.turn(NAMES[self.turns.active])))
        # a document keeps what its roots refer to
        keeper = Div(name="keeper", tags=[self.answer], visible=False)
        for root in (self.views, self.turns, self.controls.root, keeper, *self.learning.roots):
            self.document.add_root(root)
        self.document.on_event(DocumentReady, lambda _: self.changed())
        self.document.on_session_destroyed(lambda _: self.end())
        self.document.title = "actrelax explore"
        self.document.template = template("app.html", HERE)
        self.document.template_variables.update(page_parts())

    def changed(self) -> None:
        """Relax what the controls show now."""
        self.settings[self.active] = self.controls.read()
        self.latest.ask(self.active, self.settings[self.active])

    def compare(self, compared: bool) -> None:
        """Show two settings, the second first equal to the first; or one again."""
        self.compared, self.turns.visible = compared, compared
        if compared:
            self.settings["b"] = self.settings["a"]
            self.latest.ask("b", self.settings["b"])
            self.turns.active = 1
        else:
            self.turns.active = 0
            self.send({"slot": "b", "hide": True})

    def turn(self, name: str) -> None:
        """Let the controls change the other setting."""
        self.active = name
        self.controls.write(self.settings[name])

    def deliver(self, name: str, setting: Setting, result: dict[str, Any] | ActrelaxError) -> None:
        """Bring a result from the computing thread to the browser."""
        answer = {"refused": str(result)} if isinstance(result, ActrelaxError) else result
        self.document.add_next_tick_callback(partial(self.send, {"slot": name, **answer}))

    def send(self, answer: dict[str, Any]) -> None:
        """Give the browser an answer, unless it is for a setting that is not shown any more."""
        if answer["slot"] == "b" and not (self.compared or "hide" in answer):
            return
        if "shown" in answer and self.settings[answer["slot"]].problem.drawing is None:
            stimulus = answer["shown"]["stimuli"][0]
            if stimulus["rows"] == stimulus["columns"] and answer["slot"] == self.active:
                self.controls.fit_drawing(stimulus["rows"] ** 2)
        self.answer.data = {"json": [json.dumps(answer, allow_nan=False)]}

    def end(self) -> None:
        """Stop all computations for a closed page."""
        self.latest.end()
        self.learning.end()


def page_parts() -> dict[str, Any]:
    """Return what the template of the page shows beside the widgets."""
    from bokeh.embed import components

    script, places = components(charts(len(NAMES)))
    return {
        "script": script,
        "places": places,
        "explorer": read("app.js", HERE),
        "own_style": read("app.css", HERE),
        **shared(),
    }
