"""figures of the samplers -> two small pictures for the quality page"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ERRORS, JUDGED = "sampler_error.png", "sampler_judged.png"
# Told apart by colour-blind eyes too (Okabe & Ito 2008), and by their marks.
LINES: dict[str, tuple[str, str]] = {
    "euler": ("#000000", "o"),
    "heun": ("#0072b2", "s"),
    "dpmpp_2m": ("#d55e00", "^"),
    "res_2s": ("#009e73", "D"),
    "gradient_estimation": ("#cc79a7", "v"),
}
QUIET: Any = {
    "axes.edgecolor": "#bbbbbb",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 8,
    "grid.color": "#e8e8e8",
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}
CALLS = "network calls of one draft"


def plot_curves(figures: dict[str, Any], folder: Path) -> None:
    """Writes `ERRORS` and `JUDGED` into the folder, from what `sampler_curves` measured."""
    with rc_context(QUIET):
        _save(_errors(figures), folder / ERRORS)
        _save(_judged(figures), folder / JUDGED)


def _errors(figures: dict[str, Any]) -> Figure:
    """The median, for one draft that became another clip would hide how the rest converge."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    _lines(axes, figures, height=lambda point: point["error_median"])
    axes.set_yscale("log")
    reference = figures["reference"]
    axes.set_ylabel(f"distance from {reference['sampler']} in {reference['steps']} steps, median draft")
    axes.legend()
    return figure


def _judged(figures: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    for axes, share, title in ((left, "attributes_legible", "attributes legible"), (right, "attributes_right", "attributes right")):
        _lines(axes, figures, height=lambda point, share=share: 100 * point[share])
        axes.axhline(100 * figures["reference"][share], color="#888888", linestyle=":", linewidth=1, label="reference")
        axes.set_ylabel(f"{title}, %")
        axes.set_ylim(0, 102)
    right.legend(loc="lower right")
    return figure


def _lines(axes: Axes, figures: dict[str, Any], *, height: Callable[[dict[str, Any]], float]) -> None:
    """One line for each sampler over the network calls it made."""
    for name, points in figures["curves"].items():
        colour, mark = LINES[name]
        axes.plot([point["network_calls"] for point in points], [height(point) for point in points], color=colour, marker=mark, label=name)
    axes.set_xscale("log")
    ticks = [point["network_calls"] for point in next(iter(figures["curves"].values()))]
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(CALLS)


def _save(figure: Figure, file: Path) -> None:
    """Without the version of what drew it: the same figures, the same bytes."""
    figure.savefig(file, dpi=100, metadata={"Software": None}, pil_kwargs={"optimize": True})
