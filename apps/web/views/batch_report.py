"""A judged batch as files to keep: CSV, one HTML page that needs nothing else, and a PDF."""

from __future__ import annotations

import io
import textwrap
from datetime import datetime
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from labkit.core.files import write_whole
from labkit.figures import plots
from labkit.figures import style as palette
from labkit_apps.web import markup
from labkit_apps.web.shelf import opened
from labkit_apps.web.style import css, static
from labkit_apps.web.views import batch as views
from labkit_apps.web.views.batch import ALARM, FOUND, Judged, Rates

ACROSS, DOWN = 5, 4  # pictures on a page of the PDF
PAGES = 6  # of pictures, at most
A4 = (11.69, 8.27)  # inches, landscape
SIZES, WRAPPED = (16, 10, 9), 125  # points of heading, words and reading; letters of a line
READING = (
    "A p-value is the share of normal images at least as unusual as this one, counted on the "
    "run's held-out normal images. The false-alarm rate is a promise about each normal image, the "
    "false-discovery rate about the images called unusual together."
)


def write(judged: Judged, rates: Rates, folder: Path) -> list[Path]:
    """Write labkit-batch.csv, .html and .pdf into a folder; returns their paths."""
    table = views.decided(judged, rates)
    page, pdf = document(judged, rates), io.BytesIO()
    with PdfPages(pdf, metadata={"Title": "labkit: a batch of images"}) as pages:
        for figure in (_first(judged, rates), *_sheets(judged, rates)):
            pages.savefig(figure)
    writers = {
        "labkit-batch.csv": lambda path: table.to_csv(path, index=False),
        "labkit-batch.html": lambda path: path.write_text(page, encoding="utf-8"),
        "labkit-batch.pdf": lambda path: path.write_bytes(pdf.getvalue()),
    }
    for name, writer in writers.items():
        write_whole(folder / name, writer)
    return [folder / name for name in writers]


def document(judged: Judged, rates: Rates) -> str:
    """The whole report as one HTML page: no script and nothing from elsewhere."""
    shown = opened(judged.run)
    figure = views.draw_histogram(judged, rates)
    parts = [
        f"<h1>A batch of {len(judged.table)} images</h1>",
        f"<p>{escape(shown.caption)}<br>Run {escape(Path(judged.run).name)}, "
        f"{datetime.now():%Y-%m-%d %H:%M}</p>",
        views.draw_summary(judged, rates),
        markup.chart(figure, "histogram of the batch's scores beside held-out normal images"),
        f'<p class="lk-small">{escape(READING)}</p>',
        views.draw_scale(judged.run),
        views.draw_table(judged, rates),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>labkit batch</title>'
        '<meta name="viewport" content="width=device-width"><style>'
        f"{static('report.css')}{css()}</style></head><body>{''.join(parts)}</body></html>"
    )


def _first(judged: Judged, rates: Rates) -> Figure:
    """The page with the numbers, the histogram and the scale of the maps."""
    shown, none = opened(judged.run), plots.NONE
    page = palette.sheet(*A4, note=shown.caption, pictures=True)
    for height, words, size in zip((0.92, 0.85, 0.12), _words(judged, rates), SIZES, strict=True):
        told = textwrap.fill(words, WRAPPED if size < SIZES[0] else len(words))
        style = {"fontsize": size, "color": palette.INK, "va": "center"}
        page.text(0.07, height, told.replace("$", r"\$"), **style)
    ax = page.add_axes((0.07, 0.34, 0.86, 0.4))
    palette.dress(ax, f"image score, {shown.unit}", "share of images [%]", grid="y")
    limit, batch = shown.calibration.threshold(rates.alarm), judged.scored["score"].to_numpy()
    groups = (shown.calibration.scores, none, none)
    handles = plots.draw_scores(ax, *groups, threshold=limit, batch=batch)
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(handles)}
    ax.legend(handles=handles, fontsize=8, frameon=False, **place)
    if shown.main:
        colours = ScalarMappable(Normalize(*shown.limits[shown.unit]), palette.MAP_COLOURS)
        bar = page.colorbar(
            colours, cax=page.add_axes((0.07, 0.23, 0.4, 0.018)), orientation="horizontal"
        )
        bar.set_label(f"{shown.unit}; contour at {shown.edge:.3g}", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return page


def _words(judged: Judged, rates: Rates) -> tuple[str, str, str]:
    """Heading, what was found, and how to read it."""
    table, count = views.decided(judged, rates), len(judged.scored)
    found = [int(table[column].eq(True).sum()) for column in (ALARM, FOUND)]
    told = (
        f"Run {Path(judged.run).name}, {datetime.now():%Y-%m-%d %H:%M}. {count} of {len(table)} "
        f"images judged: {found[0]} unusual at {100 * rates.alarm:g} % false alarms, {found[1]} "
        f"at {100 * rates.discovery:g} % false discoveries (Benjamini-Hochberg)."
    )
    return f"A batch of {len(table)} images", told, READING


def _sheets(judged: Judged, rates: Rates) -> list[Figure]:
    """Pages of overlays, the most unusual first, each with its decision and numbers."""
    table, rows = views.decided(judged, rates), list(judged.pictures)[: ACROSS * DOWN * PAGES]
    sheets = []
    for start in range(0, len(rows), ACROSS * DOWN):
        figure = palette.sheet(*A4, note=opened(judged.run).caption)
        figure.get_layout_engine().set(rect=(0.04, 0.06, 0.92, 0.9))
        axes = figure.subplots(DOWN, ACROSS).ravel()
        for ax in axes:
            ax.axis("off")
        for ax, row in zip(axes, rows[start : start + ACROSS * DOWN], strict=False):
            told = table.loc[row]
            ax.imshow(np.asarray(Image.open(io.BytesIO(judged.pictures[row]))))
            colour = palette.ANOMALOUS if told[FOUND] else palette.INK
            name = told["file"] if len(told["file"]) <= 34 else f"…{told['file'][-33:]}"
            words = f"{'▲ ' if told[FOUND] else ''}{name}\n"
            words += f"{told['score']:.3g} · p {told['p-value']:.2g}"
            ax.set_title(words.replace("$", r"\$"), fontsize=7, color=colour)
        sheets.append(figure)
    return sheets
