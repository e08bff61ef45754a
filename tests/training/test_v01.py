"""Runs that labkit 0.1 stored open today and say what they said.

`v01/` holds two of them, trained by version 0.1 on four drawn gears:
dnfad with blocks=1 hidden=0.1 position=4 grid=2 taps=1 standardise=channel, cflow with taps=2
standardise=place pool=1; both with backbone=random/resnet18 image_size=64 limit=4 epochs=1.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import labkit

RUNS = Path(__file__).parent / "v01"


@pytest.mark.parametrize("name", ["cflow", "dnfad"])
def test_a_run_of_version_01_scores_as_it_did(name):
    run = labkit.load_run(RUNS / name)
    assert run.info["labkit"] == "0.1.0"
    features = run.experiment.features("test", progress=False).batch(range(8))
    with torch.no_grad():
        scores = run.detector.maps_and_scores(features)[1].numpy()
    stored = run.scores.query("split == 'test'")["score"].to_numpy()
    np.testing.assert_allclose(scores, stored[:8], rtol=1e-6)
    assert run.experiment.counts == run.info["counts"]
    assert run.experiment.data_hash == run.info["data_hash"]
