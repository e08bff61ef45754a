"""What a study's numbers mean: the bootstrap of an AUROC, and differences between variants."""

import json

import numpy as np
import pandas as pd
import pytest

from labkit.evaluation.bootstrap import bootstrap_means
from labkit.evaluation.metrics import image_auroc
from labkit.studies import tables
from labkit.studies.results import Results
from labkit.studies.spec import Study, Variant


def test_the_bootstrap_is_the_aurocs():
    rng = np.random.default_rng(0)
    good, bad = rng.normal(0, 1, 60), rng.normal(1, 1, 40).round(1)
    wins = (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
    scores, labels = np.concatenate([good, bad]), np.repeat([0, 1], [60, 40])
    draws = bootstrap_means(wins)
    area = image_auroc(scores, labels)
    assert wins.mean() == pytest.approx(area)
    assert draws.mean() == pytest.approx(area, abs=0.003)
    spread = np.sqrt(area * (1 - area) / 40)  # of the right size
    assert 0.3 * spread < draws.std() < 1.2 * spread
    assert np.ptp(bootstrap_means(np.ones((4, 4)))) == 0
    shifted = bootstrap_means(np.clip(wins - 0.1, 0, 1))  # the same images are drawn
    assert (draws - shifted).std() < draws.std() / 2


ODD = [{"metrics": [1]}, {"labkit": 3}, {"config": 1}, {"seconds": 2}]


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_record_is_not_finished(tmp_path, odd):
    study = Study(name="s", title="t", question="q", paper="p", source="ours", method="cflow",
                  data=("x",), variants=(Variant(name="base"),), base="base")  # fmt: skip
    results = Results(study, "laptop", tmp_path, study.tasks())
    task = results.tasks[0]
    results.write(task, {"metrics": {"image_auroc": 0.5}}, pd.DataFrame({"score": [1.0]}))
    assert results.read(task)
    path = tmp_path / "tasks" / f"{task.fingerprint}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    assert results.read(task) is None


def test_a_difference_is_of_the_seeds_that_both_have(tmp_path):
    """Two variants with the same scores; one of them has finished its first seed alone."""
    variants = (Variant(name="base"), Variant(name="late", set={"blocks": 9}))
    study = Study(name="s", title="t", question="q", paper="p", source="ours", method="cflow",
                  data=("x",), seeds=(0, 1, 2), variants=variants, base="base")  # fmt: skip
    found = Results(study, "laptop", tmp_path, study.tasks())
    label = np.repeat([0, 1], 40)
    for task in found.tasks:
        if task.variant == "late" and task.seed > 0:
            continue
        noise = np.random.default_rng(0).normal(size=80)
        score = noise + label * (3.0, 0.5, 0.2)[task.seed]
        scores = pd.DataFrame({"key": range(80), "split": "test", "label": label, "score": score})
        found.write(task, {"metrics": {"image_auroc": image_auroc(score, label)}}, scores)
    row = found.summary.set_index("variant").loc["late"]
    assert row[["difference", "difference_low", "difference_high"]].tolist() == [0.0, 0.0, 0.0]
    assert row["high"] > row["mean"] > row["low"]


def test_defects_and_likelihoods_are_metrics_of_the_table(tmp_path):
    """Those of one defect alone, or of a record before version 0.3, add nothing."""
    study = Study(name="s", title="t", question="q", paper="p", source="ours", method="cflow",
                  data=("x",), seeds=(0, 1, 2), variants=(Variant(name="base"),), base="base",
                  metrics=("image_auroc_local", "nats_gained"))  # fmt: skip
    results = Results(study, "laptop", tmp_path, study.tasks())
    kinds = [{"defect": "global", "image_auroc": 0.9}, {"defect": "local", "image_auroc": 0.7}]
    flow = {"train_nats": 0.75, "held_out_nats": 1.25, "held_out_z2": 1.1, "nats_gained": 0.25}
    records = [
        {"metrics": {"image_auroc": 0.8, "defects": kinds} | flow},
        {"metrics": {"image_auroc": 0.7, "defects": kinds[:1]}},
        {"metrics": {"image_auroc": 0.6}},
    ]
    scores = pd.DataFrame({"split": "test", "defect": ["good", "local"], "label": [0, 1],
                           "score": [0.0, 1.0]})  # fmt: skip
    for task, record in zip(results.tasks, records, strict=True):
        results.write(task, record, scores)
    numbers = results.table.pivot(index="seed", columns="metric", values="value")
    assert numbers.loc[0].to_dict() == {
        "image_auroc": 0.8,
        "image_auroc_global": 0.9,
        "image_auroc_local": 0.7,
        **flow,
    }
    assert numbers.loc[1].dropna().to_dict() == {"image_auroc": 0.7}
    assert numbers.loc[2].dropna().to_dict() == {"image_auroc": 0.6}
    heads = tables.side_by_side(results).columns[1:]
    assert list(heads) == [
        "measured: image AUROC, local, x", "measured: nats/dim. gained over the first step, x"
    ]  # fmt: skip
