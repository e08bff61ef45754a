"""The tabs that compare and teach: their pure handlers, then their endpoints."""

import os
import shutil
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import test_tables
from gradio_client import handle_file
from PIL import Image

import labkit
from labkit.studies import spec
from labkit.studies.runner import folder as study_folder
from labkit_apps.web import app
from labkit_apps.web.tabs import compare as compare_tab
from labkit_apps.web.tabs import microscope as microscope_tab
from labkit_apps.web.tabs import studies
from labkit_apps.web.views import compare, gallery, microscope
from labkit_apps.web.views.judged_image import read


@pytest.fixture(scope="module")
def home(runs_folder, tmp_path_factory):
    """A folder of three runs, two of them on gears."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(runs_folder, folder, dirs_exist_ok=True)
    told = {"seed": 1, "limit": 6, "progress": False, "runs": folder}
    labkit.train("dnfad", "procedural/gear", "quick", **told)
    return folder


@pytest.fixture(scope="module")
def runs(home, quick_run):
    """Two runs on gears and one on weave."""
    other, weave = (next(home.glob(name)) for name in ("*gear*-s1-*", "*weave*"))
    return [str(home / quick_run.folder.name), str(other), str(weave)]


@pytest.fixture(scope="module")
def url(home):
    """The address of the app over these runs."""
    demo, address = app.serve(home)
    yield address
    demo.close(verbose=False)


@pytest.fixture(scope="module")
def key(quick_run):
    return next(s for s in quick_run.samples() if s.label).key


@pytest.fixture(scope="module")
def finished():
    """A study with every task of the quick budget finished."""
    name = "dnfad-depth"
    place = spec.get(name).tasks("quick")[0].data
    test_tables.stored(study_folder(name, "quick"), name, "quick", place, image_auroc=0.9)
    return name


def test_labels_say_what_tells_runs_apart(runs):
    assert list(compare.labels(runs[:2]).values()) == ["dnfad · seed 0", "dnfad · seed 1"]
    assert "procedural/weave" in compare.labels(runs)[runs[2]]


def test_the_choice_begins_with_the_run_in_view(runs, home, runs_folder):
    alone = str(next(runs_folder.glob("*gear*")))
    choices, start = compare.offered(runs_folder, alone)
    assert start == [alone]
    assert {path for _, path in choices} == {str(p) for p in runs_folder.iterdir()}
    _, start = compare.offered(home, runs[1])
    assert start == [runs[1], start[1]]
    assert labkit.load_run(start[1]).config.data == "procedural/gear"


def test_what_is_chosen_stays_when_runs_are_added(runs, runs_folder):
    alone = str(next(runs_folder.glob("*gear*")))
    first, later = (compare_tab.offer(runs_folder, alone, state) for state in (None, runs[:2]))
    assert first["value"] == [alone]
    assert "value" not in later
    assert {path for _, path in later["choices"]} == {str(p) for p in runs_folder.iterdir()}


def test_a_run_of_another_folder_is_not_opened(runs, home, runs_folder):
    assert compare.listed(home, [runs[0], runs[1], runs[0]]) == runs[:2]
    foreign = str(next(path for path in runs_folder.iterdir()))
    for chosen in ([runs[0], foreign], [runs[0], "/etc"]):
        with pytest.raises(ValueError, match="not among those of this page"):
            compare.listed(home, chosen)
    with pytest.raises(ValueError, match="Choose two of the runs that are compared"):
        compare.pair(runs[:2], runs[0], runs[2])


def test_a_tab_begins_by_itself_but_once(runs, home, monkeypatch):
    first = compare_tab.begin(home, None, runs[:2])
    assert (first[0], "all defects" in first[1]) == (runs[:2], True)
    for nothing in ((first[0], runs), (None, runs[:1]), (None, None)):
        assert {str(part) for part in compare_tab.begin(home, *nothing)} == {str(gr.skip())}
    begun = microscope_tab.begin(runs[0], None, 0)
    assert len(begun[0]) == gallery.SPREAD
    assert begun[1].source == ("sample", gallery.spread(runs[0])[1][0])
    assert "Step 0 of" in begun[-1]
    again = microscope_tab.begin(runs[0], begun[1], 3)
    assert {str(part) for part in again} == {str(gr.skip())}
    assert microscope_tab.begin(runs[2], begun[1], 0)[1].run == runs[2]
    monkeypatch.setattr(microscope, "no_flow", lambda run: "It has no flow.")
    shown, specimen, *_, told = microscope_tab.begin(runs[0], None, 0)
    assert (len(shown), specimen, "It has no flow." in told) == (gallery.SPREAD, None, True)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_or_too_many_runs(home, count):
    with pytest.raises(ValueError, match=f"takes 2 to 6 runs; {count} are chosen"):
        compare.listed(home, [str(k) for k in range(count)])


def test_a_test_set_is_that_of_one_dataset(runs):
    drawn = compare.test_set(runs)
    assert "left out here: dnfad · procedural/weave" in drawn
    assert "all defects" in drawn
    with pytest.raises(ValueError, match="No other chosen run was tested on procedural/gear"):
        compare.test_set([runs[0], runs[2]])


def test_a_pair_shows_where_it_disagrees(runs):
    chart, shown, keys = compare.pair(runs[:2], *runs[:2])
    assert "Spearman" in chart
    assert len(shown) == len(keys) > 0
    assert shown[0][1].startswith("1. ")
    with pytest.raises(ValueError, match="tested on procedural/gear and procedural/weave"):
        compare.pair(runs, runs[0], runs[2])


def test_maps_of_one_image_have_one_scale(runs, key):
    ticks = []
    drawn = compare.maps(runs, ("sample", key), lambda *told: ticks.append(told))
    assert drawn.count("<svg") == 4
    assert drawn.count("lk-ramp") == 1
    assert drawn.count('"lk-shot"') - 1 == len(ticks) == 3
    with pytest.raises(ValueError, match="no test image 'nowhere'"):
        compare.maps(runs, ("sample", "nowhere"))


def test_pictures_are_spread_and_files_are_named(runs, tmp_path):
    offered, _ = gallery.spread(runs[0], 4)
    scores = [float(caption.rsplit(" ", 1)[1]) for _, caption in offered]
    assert scores == sorted(scores, reverse=True)
    path = tmp_path / "words.png"
    path.write_text("not an image")
    with pytest.raises(ValueError, match=r"words\.png") as told:
        read(runs[0], ("file", str(path)))
    assert str(tmp_path) not in str(told.value)


def test_each_step_of_the_microscope_is_another_page(runs, key):
    specimen = microscope.Specimen(runs[0], ("sample", key))
    known = microscope.names(specimen)
    assert list(known) == ["global", "local"]
    drawn = {microscope.draw(specimen, "global", step) for step in (0, known["global"])}
    assert len(drawn) == 2
    assert all("Invertible" in page and "nats per dimension" in page for page in drawn)
    assert microscope.draw(specimen, "global", 99) in drawn
    with pytest.raises(ValueError, match="no flow 'both'; choose one of global, local"):
        microscope.draw(specimen, "both", 0)


def test_a_run_that_is_trained_on_is_drawn_anew(runs, key):
    specimen, opened = microscope.Specimen(runs[0], ("sample", key)), microscope._opened_image
    microscope.draw(specimen, "global", 1)
    before = opened.cache_info().misses
    microscope.draw(specimen, "global", 2)
    assert opened.cache_info().misses == before
    os.utime(Path(runs[0]) / "run.json")
    microscope.draw(specimen, "global", 1)
    assert opened.cache_info().misses > before


def test_a_toys_flow_has_few_couplings():
    with pytest.raises(ValueError, match="2, 4, 8 couplings, not 3"):
        microscope.toy("two moons", 3)


def test_studies_say_how_far_they_are(finished):
    labels = {name: label for label, name in studies.offer(None)["choices"]}
    assert set(labels) == set(spec.names())
    count = len(studies.budgets(finished)["quick"].tasks)
    assert f"✓ {count} of {count} tasks at quick" in labels[finished]
    assert "○ 0 of" in labels[next(name for name in spec.names() if name != finished)]


def test_a_study_tells_published_from_measured_numbers(finished):
    head, report = studies.draw(finished, "quick")
    assert report.index("published: ") < report.index("measured: ")
    assert f"labkit study {finished} --budget quick" in head
    assert "notebooks/dnfad/04_depth.ipynb" in head


def test_nothing_is_run_for_a_study_that_is_not_finished():
    assert "Nothing of dnfad-lr is finished" in studies.draw("dnfad-lr", "quick")[1]
    assert not study_folder("dnfad-lr", "quick").exists()
    with pytest.raises(ValueError, match="dnfad-rl"):
        studies.budgets("dnfad-rl")


def test_endpoints(client, runs, key, finished, tmp_path):
    told = client.predict(runs[:2], api_name="/compare")
    assert "all defects" in told[0]
    drawn = client.predict(key=key, api_name="/compare_sample")
    assert drawn.count("<svg") == 3
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(path)
    page = client.predict(runs[0], handle_file(path), 1, api_name="/microscope_image")[-1]
    assert "grey.png" in page
    moved = client.predict("global", 0, api_name="/microscope")
    assert "Step 0" in moved
    assert "published: " in client.predict(finished, api_name="/study")[2]
