"""Verdicts about a paper's claim: three values, and why one cannot be tested."""

import numpy as np
import pandas as pd
import pytest

from labkit.evaluation.metrics import image_auroc
from labkit.studies import spec, tables, verdicts
from labkit.studies.results import Results
from labkit.studies.spec import Expectation, Study, Variant
from labkit_apps.cli.studies import markdown

VARIANTS = (Variant(name="without"), Variant(name="with", set={"blocks": 9}),
            Variant(name="blind", set={"blocks": 1}, control=True))  # fmt: skip
CLAIM = Expectation(better="with", than="without", term="bce")
FLOW = {"train_nats": 0.5, "held_out_nats": 0.9, "nats_gained": 0.1}
SHIFTS = {"without": 1.0, "with": 1.6, "blind": 0.0}  # of defective images, in deviations
LOSS = {"share_nll": 0.9, "share_bce": 0.1, "selected": 0.25}


def study_of(folder, shifts=SHIFTS, loss=LOSS, flow=FLOW, seeds=(0, 1), **changes):
    """A finished study whose variants separate good from bad by so many deviations."""
    keys = {"title": "t", "question": "q", "paper": "p", "source": "ours", "method": "sanflow",
            "data": ("x",), "seeds": seeds, "variants": VARIANTS, "base": "without",
            "expects": (CLAIM,), "first_step": False, "metrics": ("image_auroc",)}  # fmt: skip
    study = Study(name="s", **keys | changes)
    results = Results(study, "laptop", folder, study.tasks(), anchors=study.anchor_tasks("laptop"))
    label = np.repeat([0, 1], 80)
    for task in (*results.tasks, *results.anchors):
        if task.variant not in shifts:
            continue
        noise = np.random.default_rng(task.seed).normal(size=160)
        score = noise + label * shifts[task.variant]
        scores = pd.DataFrame({"split": "test", "defect": "hole", "label": label, "score": score})
        own = loss if task.variant == "with" else {"share_nll": 1.0}
        metrics = {"image_auroc": image_auroc(score, label), "aupro": shifts[task.variant]}
        results.write(task, {"metrics": metrics | (flow or {}), "loss": own}, scores)
    return results


def only(results):
    (one,) = verdicts.verdicts(results)
    return one


def test_a_claim_is_confirmed_or_contradicted_by_the_interval(tmp_path):
    one = only(study_of(tmp_path / "a"))
    assert (one.word, one.why) == ("confirmed", "")
    assert 0 < one.gap.low < one.gap.value < one.gap.high
    assert one.gap.p < 0.05
    assert (one.gradient, one.selected, one.nats) == (0.1, 0.25, pytest.approx(0.1))
    one = only(study_of(tmp_path / "b", {"without": 1.6, "with": 1.0, "blind": 0.0}))
    assert one.word == "contradicted"
    assert one.gap.high < 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"loss": LOSS | {"share_bce": 0.0099}}, "bce is 0.99% of the gradient"),
        ({"loss": LOSS | {"selected": 0.0}}, "no synthetic defect is selected"),
        ({"flow": FLOW | {"nats_gained": 0.0}}, "gains nothing over its first step"),
        ({"shifts": SHIFTS | {"blind": 1.0}}, "the control “blind” does not rank below the base"),
        ({"shifts": {"without": 1.0, "with": 1.6}}, "the control “blind” is not finished"),
        ({"shifts": SHIFTS | {"with": 1.0}}, "the interval includes 0"),
        ({"seeds": (0,), "metrics": ("aupro",), "variants": VARIANTS[:2]}, "has no interval"),
    ],
)
def test_where_the_effect_cannot_appear_nothing_is_said_of_the_claim(tmp_path, changes, why):
    one = only(study_of(tmp_path, **changes))
    assert one.word == "not testable here"
    assert why in one.why


def test_figures_that_no_run_has_decide_nothing(tmp_path):
    one = only(study_of(tmp_path, loss={}, flow=None))
    assert one.word == "confirmed"
    assert np.isnan([one.gradient, one.selected, one.nats]).all()


def test_another_metric_has_students_interval_over_seeds(tmp_path):
    claims = (Expectation(better="with", than="without", metric="aupro"),)
    one = only(study_of(tmp_path, expects=claims))
    assert one.gap.value == pytest.approx(0.6)
    assert np.ptp([one.gap.low, one.gap.high]) == pytest.approx(0, abs=1e-9), "equal in all seeds"
    assert np.isnan(one.gap.p)


def test_a_type_of_defect_has_its_own_interval(tmp_path):
    results = study_of(tmp_path)
    whole = results.gap("with", "without", "x")
    half = np.arange(160) % 2 == 0
    for variant in ("with", "without"):
        for task in results.finished(variant):
            scores = results.scores(task).assign(defect=np.where(half, "dent", "hole"))
            kinds = [
                {"defect": kind, "image_auroc": image_auroc(*own[["score", "label"]].to_numpy().T)}
                for kind in ("dent", "hole")
                for own in [scores.query("label == 0 or defect == @kind")]
            ]
            record = results.read(task)
            results.write(task, record | {"metrics": {"defects": kinds}}, scores)
    fresh = Results(results.study, "laptop", tmp_path, results.tasks)
    gap = fresh.gap("with", "without", "x", "image_auroc_dent")
    assert gap.low < gap.value < gap.high
    assert gap.high - gap.low > whole.high - whole.low, "half as many images"


def test_the_verdict_stands_in_the_tables_with_its_figures(tmp_path):
    results = study_of(tmp_path)
    (row,) = verdicts.table(results).to_dict("records")
    assert row["claim"] == "with > without"
    assert row["verdict"] == "confirmed"
    assert row["term's share of the gradient"] == "bce 10.0%"
    assert (row["defects selected"], row["nats gained over the first step"]) == (
        "25.0%",
        "+0.1000",
    )
    assert "| with > without | x | confirmed |" in markdown(results)
    assert "blind" in tables.rows(results)
    assert "blind" not in results.variants


@pytest.mark.parametrize("name", spec.names())
def test_what_the_shipped_studies_expect_can_be_compared(name):
    """Both variants of a claim run at one budget, on the same data; a term is one of the loss."""
    study = spec.get(name)
    every = {row.name: row for row in (*study.rows, *study.anchors)}
    for claim in study.expects:
        budgets = [set(every[one].budgets) for one in (claim.better, claim.than)]
        assert budgets[0] & budgets[1], claim
        assert claim.better != claim.than
    assert study.expects or not study.term
