"""The tab in which a digits network learns by two rules side by side, by Bokeh."""

from __future__ import annotations

import html
import threading
from functools import partial
from typing import Any

from actrelax.models.assumptions import PRESETS
from actrelax.simulations.explorer.controls import looks
from actrelax.simulations.explorer.latest import as_sentence
from actrelax.simulations.explorer.lessons import Progress, learn
from actrelax.simulations.explorer.setting import SHOWN, Lesson

COLOURS = {"A": "#0072B2", "B": "#D55E00"}
DASHES = {"A": "solid", "B": "dashed"}
WIDTHS = {"A": 5, "B": 2}
"""Of lines: both are seen where one lies on the other."""


class Learning:
    """Widgets for two lessons, and charts that grow while they are learned.

    roots  the widgets and the charts
    """

    def __init__(self, document: Any) -> None:
        from bokeh.models import Button, ColumnDataSource, Div, Range1d, Select, Slider

        self.document, self.stop = document, threading.Event()
        how: dict[str, Any] = {"sizing_mode": "stretch_width", "stylesheets": looks()}
        networks = [name for name in SHOWN if name.startswith("digits-")]
        # Kolen-Pollack feedback needs a decay rate, which has no usual value
        rules = ["backprop", *(name for name, preset in PRESETS.items() if not preset.needs_decay)]
        self.network = Select(name="lesson network", title="network", options=networks, value="digits-cnn", **how)
        self.rules = {
            "A": Select(name="rule A", title="rule A", options=rules, value="backprop", **how),
            "B": Select(name="rule B", title="rule B", options=rules, value="ar", **how),
        }
        self.epochs = Slider(name="epochs", title="epochs", start=1, end=30, step=1, value=10, **how)
        self.rate = Slider(name="rate", title="learning rate", start=0.01, end=0.5, step=0.01, value=0.1, **how)
        self.button = Button(name="learn", label="Learn", **how)
        self.button.on_click(self.press)
        self.said = Div(name="lesson said", text="", **how)
        self.range = Range1d(0, self.epochs.value, bounds=(0, None))
        self.rows = {name: ColumnDataSource({"epoch": [], "accuracy": [], "angle": []}) for name in self.rules}
        self.running = False

    @property
    def roots(self) -> list[Any]:
        """The widgets in a column, and two charts."""
        from bokeh.models import Column

        widgets = [self.network, *self.rules.values(), self.epochs, self.rate, self.button, self.said]
        column = Column(*widgets, name="lessons", sizing_mode="stretch_width")
        self.charts = [
            self._chart("learning-a", "accuracy", "test accuracy (%)"),
            self._chart("learning-b", "angle", "angle (degrees)"),
        ]
        return [column, *self.charts]

    def press(self) -> None:
        """Begin the trainings, or stop those that are running."""
        if self.running:
            self.stop.set()
            return
        lessons = {
            name: Lesson(self.network.value, rule.value, int(self.epochs.value), self.rate.value)
            for name, rule in self.rules.items()
        }
        for rows in self.rows.values():
            rows.data = {"epoch": [], "accuracy": [], "angle": []}
        self.range.end = int(self.epochs.value)
        for item in (item for chart in self.charts for item in chart.legend.items):
            name = item.label.value[0]
            item.label = {"value": f"{name}: {lessons[name].rule}"}
        commands = "".join(
            f"<p>{name}: <code>{html.escape(lesson.command())}</code></p>" for name, lesson in lessons.items()
        )
        self.said.text, self.button.label, self.running = f"<p>learning ...</p>{commands}", "Stop", True
        self.stop = threading.Event()
        threading.Thread(target=self._learn, args=(lessons, self.stop, commands)).start()

    def end(self) -> None:
        """Stop learning."""
        self.stop.set()

    def _learn(self, lessons: dict[str, Lesson], stop: threading.Event, commands: str) -> None:
        def report(name: str, progress: Progress) -> None:
            self.document.add_next_tick_callback(partial(self._show, name, progress))

        try:
            said = "done." if learn(lessons, report, stop) else "stopped."
        except Exception as error:  # of any kind: the page says what happened, and can begin again
            said = html.escape(str(as_sentence(error)))
        self.document.add_next_tick_callback(partial(self._finish, f"<p>{said}</p>{commands}"))

    def _show(self, name: str, progress: Progress) -> None:
        angle = float("nan") if progress.angle is None else progress.angle
        self.rows[name].stream({"epoch": [progress.epoch], "accuracy": [progress.accuracy], "angle": [angle]})

    def _finish(self, said: str) -> None:
        self.said.text, self.button.label, self.running = said, "Learn", False

    def _chart(self, name: str, column: str, label: str) -> Any:
        from bokeh.models import HoverTool
        from bokeh.plotting import figure

        most = 100 if column == "accuracy" else 90
        fig = figure(
            name=name,
            height=320,
            sizing_mode="stretch_width",
            tools="",
            toolbar_location=None,
            x_range=self.range,
            y_range=(0, most),
            x_axis_label="epoch",
            y_axis_label=label,
            background_fill_color=None,
            border_fill_color=None,
        )
        for each, rows in self.rows.items():
            how = {"source": rows, "color": COLOURS[each], "legend_label": each}
            fig.line("epoch", column, line_width=WIDTHS[each], line_dash=DASHES[each], **how)
            fig.scatter("epoch", column, size=WIDTHS[each] + 3, **how)
        fig.add_tools(HoverTool(tooltips=[("epoch", "@epoch"), (label, f"@{column}{{0.0}}")]))
        fig.legend.background_fill_alpha, fig.legend.border_line_alpha = 0, 0
        fig.add_layout(fig.legend[0], "below")
        fig.legend.orientation = "horizontal"
        return fig
