"""A replay as a picture: NDCG over the events, a line for each way of serving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from process.errors import StreamGCNError
from streamgcn.replay.figures import Figures, K
from streamgcn.replay.run import WAYS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = ("refresh and retrains", "retrains alone", "refresh alone", "popularity")
COLORS = ("#0b6e4f", "#d1495b", "#30638e", "#8d8d8d")
SMOOTHED = 5  # windows that a point of a line is the mean of
SIZE = (9.0, 3.4)  # inches
DPI = 80


class PlotError(StreamGCNError):
    """The picture cannot be made; the text says what to do."""


def check_plot(file: Path) -> None:
    """See before a long run that the picture can be written after it.

    Raises:
        PlotError: matplotlib is not there, the name does not end in .png, or there is no folder.
    """
    if file.suffix.lower() != ".png":
        raise PlotError(f"--plot {file} is refused: the picture is a PNG; give a name as in f.png")
    if not file.absolute().parent.is_dir():
        raise PlotError(f"--plot {file} is refused: there is no folder {file.absolute().parent}")
    try:
        import matplotlib  # noqa: F401  only to see that it can be imported
    except ImportError:
        raise PlotError(
            "--plot needs matplotlib, which is not installed; pip install 'streamgcn[plot]'"
        ) from None


def plot(result: Figures, file: Path) -> None:
    """Write the picture of what a replay returned.

    Raises:
        PlotError: the file cannot be written.
    """
    try:
        drawn(result).savefig(file, format="png", metadata={"Software": None})
    except OSError as error:
        raise PlotError(f"the picture cannot be written to {file}: {error.strerror}") from error


def drawn(result: Figures) -> Figure:
    """The picture of what a replay returned."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    everyone, new = figure.subplots(1, 2, sharey=True)
    windows = result["over_time"]
    until = [window["until"] for window in windows]
    for axes, title, groups in (
        (everyone, "all users", windows),
        (new, "users who are new since the last training", [w["new_users"] for w in windows]),
    ):
        for way, color in zip(WAYS, COLORS, strict=True):
            axes.plot(until, smoothed(groups, way), color=color, linewidth=1.6)
        for training in result["trainings"]:
            axes.axvline(training["before_event"], color="#dddddd", linewidth=0.8, zorder=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("events")
        axes.spines[["top", "right"]].set_visible(False)
    everyone.set_ylabel(f"NDCG@{K}")
    everyone.set_ylim(bottom=0)  # both, once all lines are there
    lines = everyone.lines[: len(WAYS)]
    figure.legend(lines, LABELS, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def smoothed(windows: list[Figures], way: str) -> list[float]:
    """NDCG of each window and the ones before, SMOOTHED together, weighed by their events."""
    made = []
    for at in range(len(windows)):
        some = [w for w in windows[max(0, at + 1 - SMOOTHED) : at + 1] if w["events"]]
        events = sum(w["events"] for w in some)
        total = sum(w["events"] * w[way][f"ndcg@{K}"] for w in some)
        made.append(total / events if events else float("nan"))
    return made
