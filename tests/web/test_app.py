"""The app's handlers on their own, and its server."""

import dataclasses
import io
import itertools
import json
import re
import shutil
import socket
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_runs import change

import labkit
from labkit_apps.cli.main import main
from labkit_apps.web import app, markup, shelf
from labkit_apps.web.desk import Desk
from labkit_apps.web.tabs import about
from labkit_apps.web.tabs import inspect as tab
from labkit_apps.web.views import batch, gallery, inspect, position
from labkit_apps.web.views.inspect import ViewOptions
from labkit_apps.web.views.judged_image import judge, judge_file, overlay

LOOK = (inspect.ALL, 0.6, True, -1, -1, 0)
Asked = namedtuple("Asked", "query_params", defaults=[{}])  # a page opened without a link


def test_choices_have_distinct_labels_newest_first(runs_folder, run):
    labels, paths = zip(*shelf.choices(runs_folder), strict=True)
    assert paths[0] == run
    assert len(set(labels)) == len(labels) == 2
    assert "dnfad · procedural/gear · quick · seed 0" in labels[0]


def test_a_method_without_maps_offers_none(run, defective, monkeypatch):
    def offered():
        *_, opacity, view, _, _ = tab.choose(Asked(), Desk(), run, *LOOK)
        return opacity["visible"], view["visible"]

    assert offered() == (True, True)
    monkeypatch.setitem(shelf.opened(run).__dict__, "limits", {})
    monkeypatch.setattr(shelf.OpenRun, "legend", {})
    monkeypatch.setattr(shelf.OpenRun, "main", None)
    assert offered() == (False, False)
    image = judge_file(run, defective)
    assert position.draw_position(image, None) == markup.message(position.WHOLE)
    assert "This position" not in position.draw_position(image, (0.5, 0.5))


def test_a_link_of_an_upload_is_to_the_run(run, defective):
    sample, file = judge(run, ("sample", shelf.opened(run).first)), judge_file(run, defective)
    assert "Copy link</button>" in inspect.draw_verdict(sample, 0.0)
    assert "Copy link to the run</button>" in inspect.draw_verdict(file, 0.0)
    assert inspect.draw_verdict(None, 0.0) == ""


def test_the_gallery_is_sorted_by_score_and_filtered(run):
    pictures, keys, *_ = gallery.browse(run, gallery.ALL, gallery.ALL, 0.0)
    scores = [float(caption.rsplit(" ", 1)[1]) for _, caption in pictures]
    assert scores == sorted(scores, reverse=True)
    assert len(keys) == min(gallery.EACH, len(shelf.opened(run).test))
    counts = {value: label for label, value in gallery.defects(run)}
    for kind in set(shelf.opened(run).test.defect):
        part = gallery.chosen(run, kind, gallery.ALL, 0.0)
        assert set(part.defect) == {kind}
        assert counts[kind].endswith(f"({len(part)})")
    with pytest.raises(ValueError, match="no defect type 'nothing'"):
        gallery.browse(run, "nothing", gallery.ALL, 0.0)


def test_wrong_decisions_are_those_of_the_threshold(run):
    table = shelf.opened(run).test
    high, low = table.score.max() + 1, table.score.min() - 1
    bad, good = (set(table["key"][table.label == label]) for label in (1, 0))
    for threshold, missed, alarms in ((high, bad, set()), (low, set(), good)):
        found = [set(gallery.chosen(run, gallery.ALL, which, threshold)["key"])
                 for which in (gallery.MISSED, gallery.ALARMS, gallery.WRONG)]  # fmt: skip
        assert found == [missed, alarms, missed | alarms]


def test_pages_of_the_gallery_hold_every_image_once(run, monkeypatch):
    monkeypatch.setattr(gallery, "EACH", 5)
    *_, last = gallery.browse(run, gallery.ALL, gallery.ALL, 0.0, 99)  # one beyond the last
    parts = [gallery.browse(run, gallery.ALL, gallery.ALL, 0.0, k) for k in range(last + 1)]
    keys = [key for _, keys, *_ in parts for key in keys]
    assert sorted(keys) == sorted(shelf.opened(run).test["key"])


def test_raw_score_and_false_alarm_rate_are_one_threshold(run):
    shown = shelf.opened(run)
    scores, count = shown.calibration.scores, shown.calibration.scores.size
    for k in range(1, count + 1):
        rate = 100 * k / (count + 1)
        threshold = shown.threshold(rate)
        assert shown.rate(threshold) <= rate + 1e-9
        assert (scores > threshold).sum() <= k - 1
    assert shown.rate(scores[0] - 1) == pytest.approx(100)
    assert shown.rate(scores[-1] + 1) == pytest.approx(100 * shown.calibration.smallest)
    low, high, step = shown.ruler
    assert low <= shown.threshold(shown.rates[1]) <= high
    assert step < (high - low) / 20


def test_a_sample_scores_as_in_its_evaluation(run):
    shown = shelf.opened(run)
    key = shown.first
    seen = judge(run, ("sample", key))
    stored = shown.test.set_index("key").score[key]
    assert seen.answer.score == pytest.approx(stored, abs=1e-2)  # features are cached in float16
    assert seen.mask.any()


def test_a_look_changes_the_maps_only(run):
    image = judge(run, ("sample", shelf.opened(run).first))
    look = ViewOptions()
    html = inspect.draw_maps(image, look)
    assert html == inspect.draw_maps(image, look)
    assert html == inspect.draw_maps(image, dataclasses.replace(look, threshold=99.0))
    assert html == inspect.draw_maps(image, dataclasses.replace(look, view="of another run"))
    others = [{"opacity": 0.2}, {"truth": False}, {"position": (0.2, 0.8)}, {"view": "local"}]
    looks = [dataclasses.replace(look, **other) for other in others]
    assert len({html, *(inspect.draw_maps(image, one) for one in looks)}) == 5
    maps = [re.findall('data-map="([^"]*)"', page)
            for page in (html, inspect.draw_maps(image, looks[-1]))]  # fmt: skip
    assert maps == [["image", "global", "local", "fused"], ["image", "local"]]
    assert "nats per channel" in html


def test_a_run_whose_data_is_gone_has_its_own_scales(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "moved")
    told = json.loads((folder / "run.json").read_text())
    told["config"]["data"] = str(tmp_path / "gone")
    change(folder, config=told["config"])
    answer = tab.choose(Asked(), Desk(), str(folder), *LOOK)
    assert len(answer) == tab.SHOWN
    maps, verdict, histogram, *_, message, _, threshold = answer[:9]
    assert "gone" in message["value"]
    own = shelf.opened(run)
    assert threshold["value"] == own.threshold(own.rates[1])
    assert (threshold["minimum"], threshold["maximum"]) == own.ruler[:2]
    assert inspect.NO_IMAGE in maps
    assert (verdict, "<img" in histogram) == ("", True)


def test_the_verdict_follows_the_threshold(run):
    seen = judge(run, ("sample", shelf.opened(run).first))
    score = seen.answer.score
    assert "Unusual" in inspect.draw_verdict(seen, score - 1e-3)
    assert "Looks normal" in inspect.draw_verdict(seen, score + 1e-3)
    assert "and none of them exceeds it" in inspect.draw_verdict(seen, 1e6)
    low, high, _ = shelf.opened(run).ruler
    assert "which about 100 % of good images exceed" in inspect.draw_verdict(seen, low - 1)
    for threshold in (low, score, high):
        drawn = inspect.draw_verdict(seen, threshold)
        assert "held-out good images scored as high (p" in drawn
        assert not re.search(r"\de[+-]\d", drawn.split("</dl>")[0].split("<dl>")[0])


def test_files_hold_what_is_shown(run):
    seen = judge(run, ("sample", shelf.opened(run).first))
    parts = inspect.files(seen, ViewOptions(threshold=1.5))
    by_end = {name.rsplit(".", 1)[1]: content for name, content in parts.items()}
    arrays = np.load(io.BytesIO(by_end["npz"]), allow_pickle=False)
    assert {n: a.tolist() for n, a in arrays.items()} == {
        n: a.tolist() for n, a in seen.answer.maps.items()
    }
    alone = np.load(io.BytesIO(by_end["npy"]), allow_pickle=False)
    assert alone.tolist() == seen.answer.maps["fused"].tolist()
    told = json.loads(by_end["json"])
    assert told["score"] == seen.answer.score
    assert told["unusual"] == (told["score"] > 1.5)
    assert Image.open(io.BytesIO(by_end["png"])).size == seen.answer.image.shape[1::-1]
    with pytest.raises(ValueError, match="No image"):
        inspect.files(None, ViewOptions())


def test_a_position_says_what_each_map_and_latent_is_there(run):
    image = judge(run, ("sample", shelf.opened(run).first))
    html = position.draw_position(image, (0.5, 0.25))
    here = image.answer.maps["fused"]
    value = here[int(0.25 * here.shape[0]), int(0.5 * here.shape[1])]
    assert f"{value:.4g}" in html
    assert "mean z²" in html
    assert html != position.draw_position(image, (0.9, 0.9))
    assert position.ASK in position.draw_position(image, None)
    assert "Distance" in position.draw_nearest(image, (0.3, 0.6))
    with pytest.raises(ValueError, match="between 0 and 1"):
        position.draw_position(image, (3, 0.5))


def test_another_run_judges_the_image_in_view(runs_folder, run, defective):
    other = next(path for _, path in shelf.choices(runs_folder) if path != run)
    desk, shown = Desk(), shelf.opened(run)
    for source in (("file", defective), ("sample", shown.test["key"].iloc[-1])):
        for folder, expected in ((run, source), (other, source)):
            with desk.request(folder, source if folder == run else None):
                desk.open(folder)
                desk.judge()
            if source[0] == "sample" and folder == other:  # other data: its own first image
                expected = ("sample", shelf.opened(other).first)
            assert (desk.image.run, desk.image.source) == (folder, expected)
            assert desk.threshold == desk.threshold_of(folder)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_in_whatever_order_requests_arrive_the_newest_run_and_image_are_shown(
    runs_folder, run, defective, order
):
    """A page opens, an image is sent before it has its run, another one, another run is chosen."""
    other = next(path for _, path in shelf.choices(runs_folder) if path != run)
    early, late = ("sample", shelf.opened(run).first), ("file", defective)
    asked = [(run, None, 1), ("", early, 2), (run, late, 3), (other, None, 4)]
    desk = Desk()
    for k in order:
        with desk.request(*asked[k]) as shown:
            if shown:
                desk.open(shown)
                desk.judge()
    assert (desk.run, desk.image.run, desk.image.source) == (other, other, late)
    assert desk.threshold == desk.threshold_of(other)


def test_of_the_requests_that_wait_only_the_last_is_answered(run, defective):
    desk, begun, ended, answers = Desk(), threading.Event(), threading.Event(), {}

    def ask(name, source, time):
        with desk.request(run, source, time) as shown:
            answers[name] = shown
            if name == "first":
                begun.set()
                ended.wait()

    threads = [threading.Thread(target=ask, args=("first", None, 1))]
    threads[0].start()
    begun.wait()
    for time in (2, 3, 4):
        threads.append(threading.Thread(target=ask, args=(time, ("file", defective), time)))
        threads[-1].start()
        while desk._arrived < time:
            pass
    ended.set()
    for thread in threads:
        thread.join()
    assert answers == {"first": run, 2: "", 3: "", 4: run}


def test_an_image_that_cannot_be_read_leaves_the_one_in_view(run, defective, tmp_path):
    desk, broken = Desk(), tmp_path / "words.png"
    broken.write_text("no image")
    tab.image(desk, run, defective, *LOOK)
    maps, verdict, *_ = answer = tab.image(desk, run, str(broken), *LOOK)
    message = answer[len(answer) - tab.SCALES - 1]
    assert "words.png" in message["value"]
    assert "What is shown is gear.png" in message["value"]
    assert ("gear.png" in verdict, 'data-map="fused"' in maps) == (True, True)
    again = tab.image(desk, run, defective, *LOOK)
    assert not again[len(again) - tab.SCALES - 1]["visible"]


def test_a_threshold_of_another_run_is_not_taken(runs_folder, run, defective):
    other = next(path for _, path in shelf.choices(runs_folder) if path != run)
    desk = Desk()
    tab.image(desk, run, defective, *LOOK)
    start = desk.threshold
    tab.decide(desk, other, 0.0, 0.0)
    tab.allow(desk, other, 50.0, 50.0)
    assert desk.threshold == start
    high = shelf.opened(run).ruler[1]
    *_, message = tab.decide(desk, run, high, 1e9)
    assert (desk.threshold, message["visible"]) == (high, True)
    assert "1e+09 counts as" in message["value"]


def test_a_run_has_metrics_curves_and_regions(run):
    table, curves, rest, masked = about.about(run)
    assert "image AUROC" in table
    assert ("all defects" in rest, rest.count("<img")) == (True, 1)
    assert masked["visible"]
    assert about.regions(run) != curves


@pytest.mark.parametrize("name", ["run.json", "scores.csv", "history.csv", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_broken_run_is_named(quick_run, tmp_path, name, damage):
    folder = shutil.copytree(quick_run.folder, tmp_path / "run")
    (folder / name).unlink() if damage == "missing" else (folder / name).write_bytes(b"\x00{")
    with pytest.raises(ValueError, match=name) as told:
        shelf.opened(str(folder))
    assert "train" in str(told.value)
    listed = app.notice(tmp_path)
    if damage == "missing":
        assert "no run in" in listed
        assert name == "run.json" or name in listed


def test_a_run_is_listed_without_being_read_again(runs_folder, monkeypatch):
    first = shelf.choices(runs_folder)
    monkeypatch.setattr(shelf.Run, "load", lambda folder: pytest.fail(f"{folder} is read again"))
    assert shelf.choices(runs_folder) == first
    assert shelf.problems(runs_folder) == []


def test_no_folder_of_the_server_is_told(run):
    told = shelf.summary(run)
    assert told["name"] == told["data"] == shelf.data_name("procedural/gear")
    assert shelf.data_name(str(Path(run).parent / "uploads" / "mine-1a2b")) == "mine-1a2b"


@pytest.mark.parametrize(("score", "told"), [(9158.4, "9160"), (0.01234, "0.0123"), (-2.5, "-2.5"),
                                             (1.7e8, "1.7e+08")])  # fmt: skip
def test_captions_are_short(score, told):
    assert shelf.brief(score) == told


def test_an_empty_folder_says_what_to_do(tmp_path):
    assert shelf.TRAIN in app.notice(tmp_path)
    assert shelf.choices(tmp_path) == shelf.problems(tmp_path) == []


def test_a_port_in_use_is_one_line_and_exit_code_2(runs_folder, monkeypatch, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setattr("sys.argv", ["labkit", "app", "--port", port])
        with pytest.raises(SystemExit) as left:
            main()
    told = capsys.readouterr().err.strip()
    assert left.value.code == 2
    assert told.count("\n") == 0
    assert f"Port {port}" in told
    assert "--port" in told


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_that_cannot_be(port):
    with pytest.raises(ValueError, match="--port"):
        app.free_port("127.0.0.1", port)


def test_a_score_of_the_whole_image_beside_a_map_has_units_of_its_own(tmp_path):
    """`fused` scores in deviations and maps in normal ranges; each is shown in its own."""
    trained = labkit.train(
        "fused", "procedural/weave", "quick", limit=8, progress=False, runs=tmp_path
    )
    shown = shelf.opened(str(trained.folder))
    assert shown.unit != shown.map_unit == shown.legend["fused"][1]
    assert not shown.detector.map_scores
    image = judge(str(trained.folder), ("sample", shown.first))
    page = inspect.draw_maps(image, ViewOptions())
    assert "localises" in page
    assert "gives the score" not in page
    assert shown.unit in inspect.draw_verdict(image, shown.threshold(5.0))
    assert shown.map_unit in batch.draw_scale(str(trained.folder))
    assert overlay(image).shape == (*image.answer.image.shape[:2], 3)
    low, high, _ = shown.ruler
    assert low < shown.threshold(20.0) <= high
