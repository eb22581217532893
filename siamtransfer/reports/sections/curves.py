"""The section of pretraining runs: loss, kNN with its baselines, health of the projections, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siamtransfer.methods.registry import METHODS
from siamtransfer.pretraining.collapse import CollapseWatch
from siamtransfer.reports.charts import MOST_LINES, Chart, Series, Table, View, line_chart, number
from siamtransfer.reports.section import Section
from siamtransfer.reports.sources import RunFolderView, Sources

MOST_POINTS = 400
"""Points of a line; a longer series is thinned."""
ROWS = 40
"""Rows of the table below a figure."""
Points = list[tuple[int, float]]
HEALTH = {
    "health/std": "std of outputs × √d",
    "health/rank_share": "share of directions",
    "health/centre_norm": "norm of the centre",
    "health/view_cosine": "cosine of two views",
}
GRADIENTS = {
    "gradient/ratio": "push over pull",
    "gradient/parts_cosine": "cosine of push and pull",
    "gradient/view_cosine": "cosine of embedding and target",
}
BASELINES = {"pixels": "raw pixels", "untrained": "untrained backbone", "start": "weights of the start"}


def curves_section(sources: Sources) -> Section | None:
    """Curves and health of the runs of pretraining; None where there is no run with rows."""
    runs = [run for run in sources.runs if run.rows]
    if not runs:
        return None
    names = unique_names([run.name for run in runs])
    found = [_knn_chart(names, runs), *(_chart_by_run(*kind, names, runs) for kind in _KINDS)]
    verdicts = [
        {"run": name, "verdict": collapse_verdict(run)} for name, run in zip(names, runs, strict=True)
    ]
    return Section(
        "runs",
        "Pretraining",
        "sections/curves.html",
        {"charts": [chart for chart in found if chart is not None], "verdicts": verdicts},
        scripts=("charts.js",),
        styles=("charts.css",),
        plotly=True,
    )


def series_of(rows: Sequence[dict[str, Any]], name: str) -> Points:
    """(step, value) of one number of a journal, in the order of its rows."""
    return [(row["step"], float(row[name])) for row in rows if isinstance(row.get(name), int | float)]


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """At most `most` of the points: the lowest and the highest of each stretch, so that no spike is lost,
    and the first and the last."""
    if len(points) <= most:
        return points
    stretches = most // 2 - 1
    kept = {0, len(points) - 1}
    for stretch in range(stretches):
        places = range(stretch * len(points) // stretches, (stretch + 1) * len(points) // stretches)
        kept.add(min(places, key=lambda place: points[place][1]))
        kept.add(max(places, key=lambda place: points[place][1]))
    return [points[place] for place in sorted(kept)]


def collapse_verdict(run: RunFolderView) -> str:
    """What the collapse alarm says of the run's rows, by the bounds of its method."""
    checks = [row for row in run.rows if "health/std" in row and "health/rank_share" in row]
    if not checks:
        return "The projections were not checked for collapse (not measured)."
    watch = _watch(run)
    bounds = (
        f"the output std times √d stays at {watch.min_std:g} or more and the share of directions "
        f"(effective rank by its healthy maximum) at {watch.min_rank_share:g} or more"
    )
    for row in checks:
        watch.check(row["step"], row)
    std, share = checks[-1]["health/std"], checks[-1]["health/rank_share"]
    last = f"In the last check they are {std:.2f} and {share:.2f}."
    if not watch.alarms:
        return f"No collapse alarm in {len(checks)} checks: healthy means that {bounds}. {last}"
    steps = ", ".join(str(step) for step in watch.alarms[:5])
    return (
        f"COLLAPSE alarm at step {steps}: in {watch.patience} checks in a row nearly all images got the same "
        f"projection. Healthy means that {bounds}. {last}"
    )


def _watch(run: RunFolderView) -> CollapseWatch:
    """The alarm by the bounds of a run's method, or by the common ones where the method is not known here."""
    method = run.config.get("method", {}).get("name", "")
    if method not in METHODS:
        return CollapseWatch()
    options = METHODS[method].Config
    return CollapseWatch(options.least_std, options.least_rank_fraction)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names; those that occur several times with their number."""
    counts: dict[str, int] = {}
    unique = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(name if names.count(name) == 1 else f"{name} ({counts[name]})")
    return unique


def _knn_chart(names: Sequence[str], runs: Sequence[RunFolderView]) -> Chart | None:
    """The kNN accuracy of all runs in one figure, with the baselines of each."""
    measured: dict[str, list[tuple[str, Points, dict[str, float]]]] = {}
    for name, run in zip(names, runs, strict=True):
        for metric in sorted({key for row in run.rows for key in row if _is_knn(key)}):
            measured.setdefault(metric, []).append(
                (name, series_of(run.rows, metric), _baselines(run, metric))
            )
    views = [_knn_view(metric, found) for metric, found in measured.items()]
    return Chart("chart-knn", "kNN accuracy while training", views, choice="Number") if views else None


def _knn_view(metric: str, found: Sequence[tuple[str, Points, dict[str, float]]]) -> View:
    lines, rows, sentences = [], [], []
    ordered = sorted(found, key=lambda one: one[1][-1][1], reverse=True)
    for place, (name, points, baselines) in enumerate(ordered):
        of_run = {
            f"{name}: {label}" if len(found) > 1 else label: value for label, value in baselines.items()
        }
        if place < MOST_LINES:
            lines += _with_baselines(name, points, of_run)
        rows += [[name, step, number(value, 4)] for step, value in thinned(points, ROWS)]
        rows += [[label, "baseline", number(value, 4)] for label, value in of_run.items()]
        against = " and ".join(f"{label} {value:.2f}" for label, value in baselines.items())
        sentences.append(
            f"{name}: {points[-1][1]:.2f} % at step {points[-1][0]}, "
            + (f"beside the baselines {against}." if against else "and no baseline was measured.")
        )
    if len(found) > MOST_LINES:
        sentences.insert(0, f"The {MOST_LINES} best of {len(found)} runs are drawn; the table has all.")
    figure = line_chart(lines, "step", "kNN (%)", xaxis={"rangemode": "tozero"})
    return View(metric, figure, " ".join(sentences[:6]), Table(["run", "step", f"{metric} (%)"], rows))


def _with_baselines(name: str, points: Points, baselines: dict[str, float]) -> list[Series]:
    """The line of a run, and a level line for each of its baselines."""
    kept = thinned(points)
    steps = [kept[0][0], kept[-1][0] + (len(kept) == 1)]  # a line has a length
    line = Series(name, [step for step, _ in kept], [value for _, value in kept], markers=True)
    return [
        line,
        *(Series(label, steps, [level, level], reference=True) for label, level in baselines.items()),
    ]


def _chart_by_run(
    place: str,
    title: str,
    y_title: str,
    labels: dict[str, str],
    names: Sequence[str],
    runs: Sequence[RunFolderView],
) -> Chart | None:
    """A chart with a view a run, of the numbers in `labels`; None where no run has any of them."""
    views = []
    for name, run in zip(names, runs, strict=True):
        series = {label: series_of(run.rows, metric) for metric, label in labels.items()}
        series = {label: points for label, points in series.items() if points}
        if series:
            bounds = _bounds(run) if "health/std" in labels else {}
            views.append(_lines_view(name, series, y_title, bounds))
    return Chart(place, title, views, choice="Run") if views else None


def _bounds(run: RunFolderView) -> dict[str, float]:
    """The levels below which the projections of a run count as collapsed."""
    watch = _watch(run)
    return {"least std of outputs × √d": watch.min_std, "least share of directions": watch.min_rank_share}


def _lines_view(name: str, series: dict[str, Points], y_title: str, bounds: dict[str, float]) -> View:
    lines, rows, sentences = [], [], []
    for label, points in series.items():
        kept = thinned(points)
        lines.append(Series(label, [step for step, _ in kept], [value for _, value in kept]))
        rows += [[label, step, number(value, 4)] for step, value in thinned(points, ROWS)]
        told = f" ({len(kept)} of {len(points)} points drawn: the ends of each stretch)"
        sentences.append(
            f"{label} {points[0][1]:.3g} at step {points[0][0]}, {points[-1][1]:.3g} at step {points[-1][0]}"
            + (told if len(kept) < len(points) else "")
        )
    ends = [min(points[0][0] for points in series.values()), max(points[-1][0] for points in series.values())]
    lines += [Series(label, ends, [level, level], reference=True) for label, level in bounds.items()]
    figure = line_chart(lines, "step", y_title)
    return View(name, figure, f"{'; '.join(sentences)}.", Table(["number", "step", "value"], rows))


def _is_knn(name: str) -> bool:
    return name.startswith("knn/") and name.rpartition("/")[2] in ("top1", "mAP")


def _baselines(run: RunFolderView, metric: str) -> dict[str, float]:
    """The baselines of a number, by what they are of."""
    found = {label: series_of(run.rows, f"baseline/{key}/{metric}") for key, label in BASELINES.items()}
    return {label: points[-1][1] for label, points in found.items() if points}


_KINDS = (
    ("chart-loss", "Loss", "loss", {"loss": "loss"}),
    ("chart-health", "Health of the projections", "", HEALTH),
    (
        "chart-rank",
        "Directions that the projections use",
        "effective rank",
        {"health/effective_rank": "effective rank"},
    ),
    ("chart-rate", "Learning rate", "learning rate", {"lr": "learning rate"}),
    ("chart-gradients", "What pulls and pushes the embeddings", "", GRADIENTS),
)
