"""The cost-return plane to look into: one task at a time, methods toggled, a trial under the pointer.

In: the trials. Out: a Vega-Lite specification and Vega's own code, which the page holds: it works without a network.
"""

from __future__ import annotations

import base64
import functools
import gzip
from typing import Any

import vl_convert

from analysis import labels
from analysis.load import Run
from analysis.styles import FAINT, INK, each_style

COLUMNS = {
    **{"seed": "seed", "normalized_return": "return", "normalized_cost": "cost", "cvar_cost_20": "CVaR 20 %"},
    **{"auroc": "AUROC", "trial_id": "trial"},
}
# marker of a figure -> Vega's; others are circles
SHAPES = {
    **{"s": "square", "D": "diamond", "d": "diamond", "P": "cross", "X": "cross", "^": "triangle-up"},
    **{"v": "triangle-down", "<": "triangle-left", ">": "triangle-right"},
}


def specification(run: Run, style_of: dict) -> dict:
    """The plane as Vega-Lite: seeds small and hoverable, a link to their trials; means large; the limit a line."""
    tasks, rows = sorted(run.trials["task"].unique()), []
    for style, mine in each_style(run.trials, run.axes, style_of):
        shown = mine[["task", *COLUMNS, *run.axes]].rename(columns=COLUMNS).round(4)
        for row in shown.astype(object).where(shown.notna(), None).to_dict("records"):
            anchor = labels.anchor(row["task"], style.method, [row.pop(axis) for axis in run.axes])
            rows.append({**row, "method": style.label, "href": f"#{anchor}"})
    used = list(style_of.values())
    names = [style.label for style in used]
    color = {"domain": names, "range": [style.color for style in used]}
    shape = {"domain": names, "range": [SHAPES.get(style.marker, "circle") for style in used]}
    faded = {"condition": {"param": "methods", "value": 0.7}, "value": 0.02}
    large = run.trials["normalized_cost"].max() > 4
    places = {
        name: {"field": name, "type": "quantitative", "title": f"normalized {title}", "scale": {**scale, "padding": 12}}
        for name, title, scale in (
            ("cost", "cost (1 = limit)", {"type": "symlog", "constant": 1} if large else {}),
            ("return", "return", {"zero": False}),
        )
    }
    legend = {"title": "click: show or hide", "orient": "bottom", "symbolOpacity": 1}
    encoding = {
        **{"x": places["cost"], "y": places["return"], "opacity": faded},
        "color": {"field": "method", "type": "nominal", "scale": color, "legend": legend},
        "shape": {"field": "method", "type": "nominal", "scale": shape, "legend": legend},
    }
    hover = [{"field": name} for name in ("method", "trial", "seed", "return", "cost", "CVaR 20 %", "AUROC")]
    select = [
        {"name": "methods", "select": {"type": "point", "fields": ["method"], "toggle": "true"}, "bind": "legend"}
    ]
    select += [{"name": "zoom", "select": "interval", "bind": "scales"}]
    seeds: dict[str, Any] = {"mark": {"type": "point", "filled": True, "size": 50}, "params": select}
    seeds |= {"encoding": {**encoding, "tooltip": hover, "href": {"field": "href"}}}
    averages = [{"op": "mean", "field": name, "as": name} for name in ("cost", "return")]
    means: dict[str, Any] = {"mark": {"type": "point", "size": 170, "strokeWidth": 2.5}, "encoding": encoding}
    means |= {"transform": [{"aggregate": averages, "groupby": ["method"]}]}
    limit = {"mark": {"type": "rule", "strokeDash": [5, 3], "color": INK}, "encoding": {"x": {"datum": 1}}}
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "titleLimit": 400}
    lines = {"gridColor": FAINT, "tickColor": INK, "domainColor": INK}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        **{"width": "container", "height": 400, "background": None, "autosize": {"type": "fit", "contains": "padding"}},
        "data": {"values": rows},
        "params": [{"name": "task", "value": tasks[0], "bind": {"input": "select", "options": tasks, "name": "Task "}}],
        "transform": [{"filter": "datum.task == task"}],
        "layer": [limit, seeds, means],
        "config": {
            "axis": {**text, **lines},
            "legend": {**text, "columns": 5},
            "view": {"stroke": None},
        },
    }


@functools.cache
def code() -> str:
    """Vega, Vega-Lite and vega-embed as one script, packed with gzip, as base64 text: 0.4 MB instead of 0.9."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return base64.b64encode(gzip.compress(script.encode(), 9, mtime=0)).decode()
