"""PatchCore beside us: the same images are judged, once, and read where anomalib is missing."""

import numpy as np
import pytest
import torch

from labkit_apps.bench import references
from labkit_apps.bench.contenders import Contender, Job

JOB = Job(data="procedural/gear", epochs=1, limit=2, image_size=64)


@pytest.fixture
def brightest():
    """A contender that remembers how bright its normals are."""

    def train(job, samples, folder):
        assert folder.is_dir()
        return np.mean([sample.read().mean() for sample in samples["train"]])

    def infer(model, images):
        scores = torch.tensor([abs(image.mean() - model) for image in images])
        return torch.zeros(len(images), 8, 8), scores

    return Contender("brightest", "labkit", train, infer)


def test_every_test_image_gets_one_score(brightest):
    table = references.scores(JOB, brightest)
    samples = JOB.samples()["test"]
    assert table["key"].tolist() == [sample.key for sample in samples]
    assert table["label"].tolist() == [sample.label for sample in samples]
    assert (table["score"] >= 0).all()
    assert table["score"].nunique() > 1


def test_it_is_measured_once_and_then_read(brightest, tmp_path, monkeypatch):
    place = tmp_path / "some" / "patchcore.csv"
    monkeypatch.setattr(references.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(references, "theirs", lambda model, **settings: brightest)
    first = references.patchcore(place, JOB)
    assert first.attrs["cpu_seconds"] > 0
    monkeypatch.setattr(references, "theirs", None)
    again = references.patchcore(place, JOB)
    assert np.allclose(first["score"], again["score"])
    assert list(again) == references.COLUMNS


def test_without_anomalib_there_is_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(references.importlib.util, "find_spec", lambda name: None)
    assert references.patchcore(tmp_path / "patchcore.csv", JOB) is None
    assert not list(tmp_path.iterdir())
