"""The report's figures: inline SVG, the same bytes for the same numbers.

Lines and letters use the page's text colour, so that one figure suits a light and a dark page.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Both are visible on white and near-black, and distinguishable with red-green colour blindness.
BLUE = "#3b82c4"
ORANGE = "#d97706"
GREY = "#8b94a3"
COLOURS = (BLUE, GREY, ORANGE)

# A placeholder colour that nothing else uses; in the SVG it becomes the page's text colour.
INK = "#010203"

SVG = "http://www.w3.org/2000/svg"
# Characters that are not allowed in XML; strangers wrote the labels.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Small relative to its letters, so that they stay legible when it is scaled to the width of a phone.
WIDTH_IN = 4.6
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays searchable text, in the page's font
    "svg.hashsalt": "pokefa",
    "text.parse_math": False,  # strangers wrote the labels: a `$` in them is a dollar sign
    "font.size": 10.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@contextmanager
def drawing(name: str, alt: str, height_in: float) -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes to draw on, and a list that receives the finished SVG at the end of the block."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Letters that matplotlib's own font lacks are measured as boxes; the page's font has them.
        warnings.filterwarnings("ignore", message="Glyph ", category=UserWarning)
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
        result: list[str] = []
        yield axes, result
        stream = io.StringIO()
        FigureCanvasSVG(figure).print_figure(stream, format="svg", metadata={"Date": None, "Creator": None})
        result.append(_inline(stream.getvalue(), name, alt))


def bars(name: str, alt: str, counts: Sequence[tuple[str, float]], *, total: int | None = None) -> str:
    """Return horizontal bars, from top to bottom, each with its number and, with `total`, its share."""
    with drawing(name, alt, 0.4 + 0.29 * max(1, len(counts))) as (axes, result):
        labels = [label for label, _ in counts]
        values = [value for _, value in counts]
        drawn = axes.barh(range(len(counts)), values, color=BLUE, height=0.72)
        shares = [f" {value}" + (f" ({value / total:.0%})" if total else "") for value in values]
        axes.bar_label(drawn, shares, padding=1)
        axes.set_yticks(range(len(counts)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, max([*values, 1]) * 1.36)
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks([])
    return result[0]


def stacked_bars(name: str, alt: str, labels: Sequence[str], groups: Mapping[str, Sequence[float]]) -> str:
    """Return horizontal bars, from top to bottom, each with one part for each of up to three groups."""
    with drawing(name, alt, 0.75 + 0.29 * max(1, len(labels))) as (axes, result):
        left = [0.0] * len(labels)
        for colour, (group, values) in zip(COLOURS, groups.items(), strict=False):
            drawn = axes.barh(range(len(labels)), values, left=left, color=colour, height=0.72, label=group)
            left = [before + value for before, value in zip(left, values, strict=True)]
        axes.bar_label(drawn, [f" {total:g}" for total in left], padding=1)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlim(0, max([*left, 1]) * 1.16)
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.figure.legend(loc="outside upper center", ncols=len(groups))
    return result[0]


def histogram(
    name: str,
    alt: str,
    groups: Mapping[str, Sequence[int]],
    edges: Sequence[float],
    *,
    label: str,
    threshold: float | None = None,
) -> str:
    """Return a stacked histogram of up to three groups, with a threshold as a line.

    Args:
        groups: the counts of each class.
        edges: of the classes, one more than there are counts.
    """
    with drawing(name, alt, 2.5) as (axes, result):
        bottom = [0] * (len(edges) - 1)
        for colour, (group, counts) in zip(COLOURS, groups.items(), strict=False):
            axes.bar(
                edges[:-1], counts, [high - low for low, high in pairwise(edges)], bottom, align="edge",
                color=colour, label=group,
            )  # fmt: skip
            bottom = [before + count for before, count in zip(bottom, counts, strict=True)]
        if threshold is not None:
            axes.axvline(threshold, color=ORANGE, linestyle="--", linewidth=1.6, label=f"threshold {threshold:g}")
        axes.set_xlim(edges[0], edges[-1])
        _count_axis(axes, label)
        if len(groups) > 1 or threshold is not None:
            axes.figure.legend(loc="outside upper center", ncols=len(groups) + (threshold is not None))
    return result[0]


def columns(
    name: str, alt: str, groups: Mapping[str, Sequence[int]], ticks: Sequence[str], *, label: str, count: str = "images"
) -> str:
    """Return vertical bars over named classes, those of up to three groups side by side."""
    with drawing(name, alt, 2.5) as (axes, result):
        width = 0.8 / len(groups)
        for place, (group, values) in enumerate(groups.items()):
            middles = [tick + (place - (len(groups) - 1) / 2) * width for tick in range(len(ticks))]
            drawn = axes.bar(middles, values, width=width, color=COLOURS[place], label=group)
            if len(groups) == 1:
                axes.bar_label(drawn, padding=1)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.tick_params(axis="x", length=0)
        _count_axis(axes, label, count)
        if len(groups) > 1:
            axes.figure.legend(loc="outside upper center", ncols=len(groups))
    return result[0]


def coverage(name: str, alt: str, ranks: Sequence[int], quotas: Sequence[int], kept: Sequence[int]) -> str:
    """Return a figure of quota and kept images by the popularity rank of the species."""
    with drawing(name, alt, 2.7) as (axes, result):
        axes.plot(ranks, quotas, color=GREY, drawstyle="steps-mid", label="quota")
        have = [(rank, count) for rank, count in zip(ranks, kept, strict=True) if count]
        axes.scatter([rank for rank, _ in have], [count for _, count in have], s=10, color=BLUE, label="kept", zorder=3)
        axes.set_xlim(0, max([*ranks, 1]))
        axes.set_ylim(bottom=0)
        _count_axis(axes, "popularity rank of the species")
        axes.figure.legend(loc="outside upper center", ncols=2)
    return result[0]


def _count_axis(axes: Axes, label: str, count: str = "images") -> None:
    """Label the axes of a figure, and give the vertical one a few integer ticks."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(label)
    axes.set_ylabel(count)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))


def _inline(svg: str, name: str, alt: str) -> str:
    """Return an SVG document as an element of a page: scaled by the page, described, with unique ids.

    Styles become presentation attributes, which a page's Content-Security-Policy allows. The rules of matplotlib's
    style sheet go to the root, from which elements inherit them, and the page sets the font.
    """
    root = ElementTree.fromstring(NOT_XML.sub("\ufffd", svg))
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style")]:
            parent.remove(child)
    for element in root.iter():
        attributes: dict[str, str] = {}
        for key, value in element.attrib.items():
            if key == "style":
                attributes |= _presentation(value)
            elif key == "id":
                attributes["id"] = f"{name}-{value}"
            else:  # href, without the prefix that only XML needs, and clip-path
                attributes[key.rpartition("}")[2]] = value.replace("url(#", f"url(#{name}-")
        if attributes.get("href", "").startswith("#"):
            attributes["href"] = f"#{name}-{attributes['href'][1:]}"
        element.attrib = {key: value.replace(INK, "currentColor") for key, value in attributes.items()}
    for size in ("width", "height"):
        del root.attrib[size]
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    root.attrib |= {"role": "img", "aria-label": NOT_XML.sub("\ufffd", alt)}
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode").strip()


def _presentation(style: str) -> dict[str, str]:
    """Return the declarations of a style attribute as separate attributes, without the font's name."""
    pairs = (declaration.partition(":") for declaration in style.split(";") if declaration.strip())
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip() != "font-family"}
