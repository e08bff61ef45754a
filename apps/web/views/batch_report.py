"""A judged batch as files to keep: CSV, and one HTML page that needs nothing else."""

from __future__ import annotations

from datetime import datetime
from html import escape
from pathlib import Path

from labkit.core.files import write_whole
from labkit_apps.web import markup
from labkit_apps.web.shelf import opened
from labkit_apps.web.style import css, static
from labkit_apps.web.views import batch as views
from labkit_apps.web.views.batch import JudgedBatch, Rates

READING = (
    "A p-value is the share of normal images at least as unusual as this one, counted on the "
    "run's held-out normal images. The false-alarm rate is a promise about each normal image, the "
    "false-discovery rate about the images called unusual together."
)


def write(batch: JudgedBatch, rates: Rates, folder: Path) -> list[Path]:
    """Write labkit-batch.csv and .html into a folder; returns their paths."""
    table, page = views.decided(batch, rates), document(batch, rates)
    writers = {
        "labkit-batch.csv": lambda path: table.to_csv(path, index=False),
        "labkit-batch.html": lambda path: path.write_text(page, encoding="utf-8"),
    }
    for name, writer in writers.items():
        write_whole(folder / name, writer)
    return [folder / name for name in writers]


def document(batch: JudgedBatch, rates: Rates) -> str:
    """The whole report as one HTML page: no script and nothing from elsewhere."""
    shown = opened(batch.run)
    figure = views.draw_histogram(batch, rates)
    parts = [
        f"<h1>A batch of {len(batch.table)} images</h1>",
        f"<p>{escape(shown.caption)}<br>Run {escape(Path(batch.run).name)}, "
        f"{datetime.now():%Y-%m-%d %H:%M}</p>",
        views.draw_summary(batch, rates),
        markup.chart(figure, "histogram of the batch's scores beside held-out normal images"),
        f'<p class="lk-small">{escape(READING)}</p>',
        views.draw_scale(batch.run),
        views.draw_table(batch, rates),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>labkit batch</title>'
        '<meta name="viewport" content="width=device-width"><style>'
        f"{static('report.css')}{css()}</style></head><body>{''.join(parts)}</body></html>"
    )
