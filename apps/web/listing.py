"""A judged batch as an HTML table, for page and report alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from labkit_apps.web.markup import DECISIONS, data_uri, text

NUMBERS = {"score": ".4g", "quantile": ".1%", "p-value": ".3g", "adjusted p": ".3g"}
RISING = ("file", "p-value", "adjusted p")  # sorted from the smallest when first pressed
HINTS = {
    "score": "the run's own, higher is more unusual",
    "quantile": "share of held-out normal images that score lower",
    "p-value": "conformal: share of normal images at least this unusual",
    "adjusted p": "corrected for the size of the batch (Benjamini-Hochberg)",
}


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


def _head(name: str, hint: str) -> str:
    attributes = ' class="lk-number"' if name in NUMBERS else ""
    attributes += ' data-first="up"' if name in RISING else ""
    return (
        f'<th scope="col"{attributes} title="{text(hint)}"><button type="button">{text(name)}'
        "</button></th>"
    )


def _row(row: pd.Series, content: bytes | None, decisions: Sequence[str]) -> str:
    name, shown = text(row["file"]), ""
    if content:
        address = data_uri(content, "image/jpeg")
        shown = f'<img alt="anomaly map over {name}" loading="lazy" src="{address}">'
    cells = f'<td class="lk-thumb">{shown}</td><th scope="row" data-value="{name}">{name}</th>'
    if row["fault"]:
        return f'<tr class="lk-fault">{cells}<td colspan="6">{text(row["fault"])}</td></tr>'
    for key, form in NUMBERS.items():
        cells += f'<td class="lk-number" data-value="{row[key]:.17g}">{row[key]:{form}}</td>'
    for column in decisions:
        cells += _decision(bool(row[column]))
    return f"<tr>{cells}</tr>"


def _decision(unusual: bool) -> str:
    mark, word, role = DECISIONS[unusual]
    return f'<td data-value="{int(unusual)}"><span class="lk-{role}">{mark}</span> {word}</td>'
