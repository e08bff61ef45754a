"""Before a study starts: what is shared is computed once, and the cost is known in advance."""

import pytest

from labkit import methods
from labkit.core import config
from labkit.features.cache import FeatureSet
from labkit.studies import schedule
from labkit.studies.spec import Task

TINY = {"limit": 8, "image_size": 64, "grid": 4, "epochs": 1, "batch": 4}


def task(seed=0, budget="laptop", **changes):
    return Task(study="s", cell=str(changes), method="dnfad", data="procedural/gear",
                budget=budget, seed=seed, set={**TINY, **changes})  # fmt: skip


def test_tasks_of_one_training_are_one_job():
    plan = schedule.plan([task(), task(top_k=0.5), task(blocks=1)], 2, progress=False)
    assert [len(job.tasks) for job in plan.jobs] == [2, 1]
    assert plan.workers == 2
    assert "3 tasks, 2 trainings in 2 processes, about" in plan.sentence()


def test_features_are_extracted_once_for_all(monkeypatch):
    asked = []
    extract = FeatureSet.extract

    def counted(self, what="images", *more, **options):
        asked.append(what)
        return extract(self, what, *more, **options)

    monkeypatch.setattr(FeatureSet, "extract", counted)
    monkeypatch.setattr(schedule, "estimate", lambda jobs, progress: 1.0)
    schedule.plan([task(lr=rate) for rate in (1e-4, 1e-3, 1e-2)], 1, progress=False)
    assert asked == ["procedural/gear images"]


def test_the_estimate_follows_the_work():
    one = schedule.estimate(schedule.jobs([task()]), progress=False)
    three = schedule.estimate(schedule.jobs([task(epochs=e) for e in (1, 2)]), progress=False)
    assert one > 0
    assert three == pytest.approx(3 * one, rel=0.9)  # a clock on a busy machine
    assert schedule.estimate(schedule.jobs([task(blcks=1)]), progress=False) == 0


def test_the_quick_budget_stays_in_this_process():
    assert schedule.plan([task(s, "quick") for s in range(4)], None, False).workers == 1
    few = [task(s) for s in range(2)]
    assert schedule.plan(few, 7, progress=False, local=False).workers == 2


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "under 1 s"), (5, "5 s"), (300, "5 min"), (7200, "2.0 h")]
)
def test_durations_are_said_as_a_person_would(seconds, said):
    assert schedule.duration(seconds) == said


def test_a_forecast_counts_what_one_run_has_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    kind, keys = methods.get("dnfad"), TINY | {"epochs": 3}
    spec = config.resolve("dnfad", kind.Spec, "procedural/gear", "quick", 0, kind.budgets, keys)
    first, again = schedule.forecast(spec), schedule.forecast(spec)
    assert first.images["train"] == 8
    assert first.new == sum(first.images.values())
    assert again.new < first.new  # those that were timed are stored
    assert len(first.epochs) == 3
    assert first.parameters > 0
    parts = first.features + sum(first.epochs) + first.scoring
    assert first.seconds == parts > 0


@pytest.mark.parametrize(("method", "keys"), [("knn", {"k": 20}), ("padim", {})])
def test_a_method_without_training_is_forecast_too(monkeypatch, tmp_path, method, keys):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    spec = methods.resolve(
        method, "procedural/gear", "quick", overrides={"limit": 40, "image_size": 64} | keys
    )
    found = schedule.forecast(spec)
    assert found.epochs == ()
    assert found.scoring > 0
