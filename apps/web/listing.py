"""A judged batch as HTML: two numbers that sum it up, and a table, for page and report alike."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import pandas as pd

from labkit_apps.web.markup import text

NUMBERS = {"score": ".4g", "quantile": ".1%", "p-value": ".3g", "adjusted p": ".3g"}
RISING = ("file", "p-value", "adjusted p")  # sorted from the smallest when first pressed
HINTS = {
    "score": "the run's own, higher is more unusual",
    "quantile": "share of held-out normal images that score lower",
    "p-value": "conformal: share of normal images at least this unusual",
    "adjusted p": "corrected for the size of the batch (Benjamini-Hochberg)",
}


def summary(words: str, stats: Sequence[tuple[str, str, str]], link: str = "") -> str:
    """A sentence and a link, and numbers with their names above and what they mean below."""
    cells = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd><p>{text(why)}.</p></div>"
        for name, value, why in stats
    )
    return (
        f'<section class="lk-card lk-sum" aria-live="polite"><div class="lk-head">'
        f"<p>{text(words)}</p>{link}</div><dl>{cells}</dl></section>"
    )


def table(rows: pd.DataFrame, pictures: Mapping[int, bytes], decisions: tuple[str, str]) -> str:
    """One row per file: overlay, name, numbers, both decisions; a fault takes the numbers' place.

    Each heading is a button that `static/batch.js` sorts by; a cell's own value is in its
    `data-value`, empty where it has none.
    """
    heads = "".join(_head(name, HINTS.get(name, "")) for name in ("file", *NUMBERS))
    heads += _head("false alarms", decisions[0]) + _head("false discoveries", decisions[1])
    body = "".join(_row(row, pictures.get(index), decisions) for index, row in rows.iterrows())
    return (
        '<div class="lk-scroll"><table class="lk-batch"><thead><tr><th scope="col">map</th>'
        f"{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def picture(content: bytes, alt: str) -> str:
    """A JPEG inside the page."""
    coded = base64.b64encode(content).decode()
    return f'<img alt="{text(alt)}" loading="lazy" src="data:image/jpeg;base64,{coded}">'


def _head(name: str, hint: str) -> str:
    attributes = ' class="lk-number"' if name in NUMBERS else ""
    attributes += ' data-first="up"' if name in RISING else ""
    return (
        f'<th scope="col"{attributes} title="{text(hint)}"><button type="button">{text(name)}'
        "</button></th>"
    )


def _row(row: pd.Series, content: bytes | None, decisions: Sequence[str]) -> str:
    name = row["file"]
    shown = picture(content, f"anomaly map over {name}") if content else ""
    cells = f'<td class="lk-thumb">{shown}</td>'
    cells += f'<th scope="row" data-value="{text(name)}">{text(name)}</th>'
    if row["fault"]:
        return f'<tr class="lk-fault">{cells}<td colspan="6">{text(row["fault"])}</td></tr>'
    for key, form in NUMBERS.items():
        cells += f'<td class="lk-number" data-value="{row[key]:.17g}">{row[key]:{form}}</td>'
    for column in decisions:
        cells += _decision(bool(row[column]))
    return f"<tr>{cells}</tr>"


def _decision(unusual: bool) -> str:
    mark, word, role = ("▲", "unusual", "bad") if unusual else ("●", "normal", "good")
    return f'<td data-value="{int(unusual)}"><span class="lk-{role}">{mark}</span> {word}</td>'
