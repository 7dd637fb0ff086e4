"""Bokeh charts of errors and of arrived signals over time, empty until viewer.js fills them."""

from __future__ import annotations

from typing import Any

from actrelax.models.errors import ActrelaxError

SLOTS = ("a", "b")
"""Slots for one relaxation, or for two side by side."""


def require_bokeh(what: str) -> None:
    """Raise an error if the package bokeh, which `what` needs, is missing.

    Raises
    ------
    ActrelaxError
        If bokeh is not installed.
    """
    try:
        import bokeh  # noqa: F401
    except ImportError as error:
        raise ActrelaxError(f'{what} needs the package bokeh: pip install "bokeh>=3.6".') from error


def charts(slots: int = 1) -> dict[str, Any]:
    """Return name -> figure, "errors-a" and "arrived-a", and the same for "b", with a common time axis.

    viewer.js finds models by name: the sources CHART-lines, CHART-circles and CHART-cells, and the cursor
    CHART-cursor.
    """
    from bokeh.models import Range1d

    times, errors = Range1d(0, 1), Range1d(1e-6, 10)
    drawn = {}
    for slot in SLOTS[:slots]:
        drawn[f"errors-{slot}"] = _errors(f"errors-{slot}", times, errors)
        drawn[f"arrived-{slot}"] = _arrived(f"arrived-{slot}", times)
    return drawn


def _figure(name: str, times: Any, height: int, **how: Any) -> Any:
    from bokeh.models import Span
    from bokeh.plotting import figure

    fig = figure(
        name=name,
        x_range=times,
        height=height,
        sizing_mode="stretch_width",
        tools="box_zoom,reset",
        toolbar_location="above",
        x_axis_label="time",
        background_fill_color=None,
        border_fill_color=None,
        **how,
    )
    fig.toolbar.logo, fig.toolbar.active_drag = None, None  # a finger scrolls the page
    fig.add_layout(Span(name=f"{name}-cursor", dimension="height", location=0, line_color="#D55E00", line_width=2))
    return fig


def _errors(name: str, times: Any, errors: Any) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool

    label = "error against backprop (largest, relative)"
    fig = _figure(name, times, 340, y_axis_type="log", y_range=errors, y_axis_label=label)
    lines = ColumnDataSource({"xs": [], "ys": [], "colour": [], "dash": [], "population": []}, name=f"{name}-lines")
    fig.multi_line("xs", "ys", source=lines, color="colour", line_dash="dash", line_width=2, legend_field="population")
    circles = ColumnDataSource({"x": [], "y": [], "colour": []}, name=f"{name}-circles")
    fig.scatter("x", "y", source=circles, size=6, line_color="colour", fill_color=None)
    fig.add_tools(HoverTool(tooltips=[("population", "@population"), ("time", "$x"), ("error", "$y")]))
    fig.legend.background_fill_alpha, fig.legend.border_line_alpha = 0, 0
    fig.legend.orientation, fig.legend.label_text_font_size = "horizontal", "12px"
    fig.legend.ncols, fig.legend.margin, fig.legend.padding = 3, 0, 4
    fig.add_layout(fig.legend[0], "below")
    return fig


def _arrived(name: str, times: Any) -> Any:
    from bokeh.models import ColorBar, ColumnDataSource, FactorRange, HoverTool, LinearColorMapper
    from bokeh.palettes import Cividis256

    fig = _figure(name, times, 260, y_range=FactorRange(), y_axis_label="population (hops from output)")
    cells = ColumnDataSource({"x": [], "y": [], "width": [], "share": [], "population": []}, name=f"{name}-cells")
    mapper = LinearColorMapper(Cividis256, low=0, high=1)
    colour = {"field": "share", "transform": mapper}  # also for lines, to avoid seams between cells
    fig.rect("x", "y", "width", 0.92, source=cells, fill_color=colour, line_color=colour)
    bar = ColorBar(color_mapper=mapper, width=10, padding=4, background_fill_color=None, title_text_font_size="11px")
    fig.add_layout(bar, "right")
    tips = [("population", "@population"), ("time", "$x"), ("share", "@share{0.000}")]
    fig.add_tools(HoverTool(tooltips=tips))
    fig.grid.visible = False
    return fig
