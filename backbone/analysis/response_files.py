"""Layer responses as CSV and as the two panels of Fig. 7."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.errors import RunError
from ..common.files import write_text, write_whole
from ..networks import find_architecture
from .responses import Responses

COLUMNS = ("network", "weights", "layer", "name", "std", "rank")
HEADROOM = 1.08
COLOURS = ("#b8860b", "#d62728", "#1f77b4", "#2ca02c", "#111111", "#9467bd", "#8c564b", "#17becf")


def write_csv(path: Path, measured: Sequence[Responses]) -> None:
    """Write one row a layer; `layer` and `rank` (by magnitude) count from 1."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for responses in measured:
        rank = {name: position for position, (name, _) in enumerate(responses.ranked(), start=1)}
        state = "trained" if responses.trained else "untrained"
        for layer, (name, value) in enumerate(responses.layers.items(), start=1):
            rows.writerow((responses.network, state, layer, name, f"{value:.6g}", rank[name]))
    write_text(path, text.getvalue())


def draw(path: Path, measured: Sequence[Responses], source: str) -> None:
    """Draw a PNG; see `make_figure`.

    Raises:
        RunError: matplotlib is not installed, or the file cannot be written.
    """
    figure = make_figure(measured, source)
    write_whole(path, lambda temporary: figure.savefig(temporary, format="png", dpi=130))


def make_figure(measured: Sequence[Responses], source: str) -> Any:
    """Return a matplotlib figure: the layers in their order above, by magnitude below; plain nets dashed.

    Args:
        source: words for the images, written beneath.

    Raises:
        RunError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise RunError("drawing layer responses needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(8, 8), layout="constrained")
    FigureCanvasAgg(figure)
    ordered, ranked = figure.subplots(2, 1, sharey=True)
    for index, responses in enumerate(measured):
        style = {
            "label": responses.label,
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": "--" if find_architecture(responses.network).shortcut is None else "-",
            "linewidth": 1.3,
        }
        positions = range(1, len(responses.layers) + 1)
        ordered.plot(positions, list(responses.layers.values()), **style)
        ranked.plot(positions, [value for _, value in responses.ranked()], **style)
    ordered.set_xlabel("layer, in the original order")
    ranked.set_xlabel("layer, sorted by magnitude")
    for panel in (ordered, ranked):
        panel.set_ylabel("standard deviation")
        # From 0, with room above: curves of one value would lie under the frame.
        panel.set_ylim(0, HEADROOM * max(max(one.layers.values()) for one in measured) or 1)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(alpha=0.3)
    ordered.legend(fontsize="small")
    figure.suptitle("Responses of 3x3 layers, behind BN, before ReLU and addition", fontsize="medium")
    figure.supxlabel(source, fontsize="x-small")
    return figure
