"""A run of the app's folder and an image to judge by it."""

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def run(quick_run, runs_folder):
    """The folder of `quick_run` as the app opens it."""
    return str(runs_folder / quick_run.folder.name)


@pytest.fixture(scope="module")
def defective(quick_run, tmp_path_factory):
    """A defective test image as a file."""
    sample = next(s for s in quick_run.samples() if s.label)
    path = tmp_path_factory.mktemp("images") / "gear.png"
    Image.fromarray(sample.read()).save(path)
    return str(path)
