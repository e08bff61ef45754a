"""Before a study starts: tasks are grouped, and what they share is computed once."""

import sys
from types import SimpleNamespace

import pytest

from labkit.features.cache import FeatureSet
from labkit.studies import engines
from labkit.studies.spec import Task

TINY = {"limit": 8, "image_size": 64, "grid": 4, "epochs": 1, "batch": 4}


def task(seed=0, budget="laptop", **changes):
    return Task(study="s", variant=str(changes), method="dnfad", data="procedural/gear",
                budget=budget, seed=seed, set={**TINY, **changes})  # fmt: skip


def timetable(tasks, workers, local=True):
    return engines.timetable(tasks, workers, progress=False, local=local, again=False)


def test_features_are_extracted_once_for_all(monkeypatch):
    asked = []
    extract = FeatureSet.extract

    def counted(self, what="images", *more, **options):
        asked.append(what)
        return extract(self, what, *more, **options)

    monkeypatch.setattr(FeatureSet, "extract", counted)
    timetable([task(lr=rate) for rate in (1e-4, 1e-3, 1e-2)], 1)
    assert asked == ["procedural/gear images"]


def test_the_quick_budget_stays_in_this_process():
    assert timetable([task(s, "quick") for s in range(4)], None)[1] == 1
    few = [task(s) for s in range(2)]
    assert timetable(few, 7, local=False)[1] == 2, "no more than there are trainings"


@pytest.mark.parametrize(
    ("present", "asked", "share"), [(0, None, 0), (4, None, 1), (4, 0.25, 0.25), (4, 0, 0)]
)
def test_a_job_on_ray_takes_a_share_of_a_gpu_where_there_are_any(
    monkeypatch, present, asked, share
):
    options = {}  # what Ray is asked for; it runs nothing
    remote = SimpleNamespace(remote=lambda job, table: job.head.fingerprint)
    remote.options = lambda **given: options.update(given) or remote
    ray = SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=lambda: {"CPU": 8.0} | ({"GPU": float(present)} if present else {}),
        remote=lambda function: remote,
        wait=lambda pending, num_returns: (pending[:1], pending[1:]),
        get=lambda job: [job],
        exceptions=SimpleNamespace(RayError=OSError),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    jobs, workers = timetable([task(), task(blocks=1)], 2)
    assert len(list(engines.cluster(jobs, workers, asked))) == 2
    assert options["num_gpus"] == share
