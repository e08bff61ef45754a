"""What a study says of a paper's claim: confirmed, contradicted, or not testable here.

A claim is data (`expects` of a study): one variant should be better than another. Each data set
has a verdict of its own. It is "not testable here" where the effect could not have appeared:

- the term of the loss that the claim is about moves the weights by less than 1 % of the gradient,
- what the method trains against is never selected,
- the flow of the base variant gains nothing over its first step on held-out normals,
- a control, a variant that is known to rank worse than the base, does not do so here,
- or the interval of the difference includes 0.

Else the sign of the difference decides. The first three are figures of the table.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from labkit.studies import tables
from labkit.studies.results import Gap, Results

LEAST = 0.01  # of the gradient, that a term must contribute
CONFIRMED, CONTRADICTED, UNTESTABLE = "confirmed", "contradicted", "not testable here"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim on one data set; NaN is a figure that the runs do not have."""

    better: str
    than: str
    data: str
    metric: str
    gap: Gap  # better minus than
    term: str = ""
    gradient: float = np.nan  # share of the term
    selected: float = np.nan  # share of synthetic defects
    nats: float = np.nan  # per dimension, gained over the first step on held-out normals
    why: str = ""  # it is not testable, "" if it is

    @property
    def word(self) -> Literal["confirmed", "contradicted", "not testable here"]:
        """One of three."""
        if self.why:
            return UNTESTABLE
        return CONFIRMED if self.gap.low > 0 else CONTRADICTED


def verdicts(results: Results) -> list[Verdict]:
    """Every claim of a study on every data set where both of its variants are finished."""
    every = [
        verdict(results, claim.better, claim.than, data, claim.metric, claim.term)
        for claim in results.study.expects
        for data in results.datasets
    ]
    return [one for one in every if not np.isnan(one.gap.value)]


def verdict(
    results: Results, better: str, than: str, data: str, metric: str = "", term: str = ""
) -> Verdict:
    """Whether a variant is better than another on a data set, as far as it can be tested there."""
    every, pair = results.anchored, (better, than)
    metric, term = metric or results.study.metrics[0], term or results.study.term

    def means(name: str, *variants: str) -> list[float]:
        values = [every.gap(variant, "", data, name).value for variant in variants]
        return [value for value in values if np.isfinite(value)] or [np.nan]

    whole = Verdict(
        better=better,
        than=than,
        data=data,
        metric=metric,
        gap=every.gap(better, than, data, metric),
        term=term,
        gradient=max(means(f"share_{term}", *pair)),  # of the variant that has it
        selected=max(means("selected", *pair)),
        nats=means("nats_gained", results.base, *pair)[0],
    )
    return replace(whole, why=_why(whole, every))


def table(results: Results) -> pd.DataFrame:
    """The verdicts of a study with their figures, text to print.

    "-" is a figure that the runs do not have; p is DeLong's, of an image AUROC.
    """
    rows, first = [], results.study.metrics[0]
    for one in verdicts(results):
        where = "" if one.metric == first else f", {tables.name(one.metric)}"
        rows.append(
            {
                "claim": f"{one.better} > {one.than}{where}",
                "data": one.data,
                "verdict": f"{one.word}: {one.why}" if one.why else one.word,
                "difference": tables.difference(one.gap.value, one.gap.low, one.gap.high),
                "p": _shown(one.gap.p, "{:.2g}"),
                "term's share of the gradient": _shown(one.gradient, one.term + " {:.1%}"),
                "defects selected": _shown(one.selected, "{:.1%}"),
                "nats gained over the first step": _shown(one.nats, "{:+.4f}"),
            }
        )
    return pd.DataFrame(rows)


def _shown(value: float, form: str) -> str:
    return form.format(value) if np.isfinite(value) else "-"


def _why(one: Verdict, every: Results) -> str:
    """Why a claim cannot be tested, in words; "" if it can."""
    if one.gradient < LEAST:
        return f"{one.term} is {one.gradient:.2%} of the gradient"
    if one.selected == 0:
        return "no synthetic defect is selected"
    if one.nats <= 0:
        return "the flow gains nothing over its first step"
    for control in (row for row in every.study.anchors if row.control):
        gap = every.gap(control.name, every.base, one.data, one.metric)
        if control.name in every.variants and not gap.high < 0:
            finished = np.isfinite(gap.value)
            what = "does not rank below the base" if finished else "is not finished"
            return f"the control “{control.name}” {what}"
    if np.isnan(one.gap.low):
        return "one seed has no interval"
    return "the interval includes 0" if one.gap.low <= 0 <= one.gap.high else ""
