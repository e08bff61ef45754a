"""The app's handlers on their own, then each of its endpoints through gradio_client."""

import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from apps import answers, app, shelf, views
from labkit.cli import main


@pytest.fixture(scope="module")
def run(quick_run, runs_folder):
    return str(runs_folder / quick_run.folder.name)


@pytest.fixture(scope="module")
def defective(quick_run, tmp_path_factory):
    """A defective test image as a file."""
    sample = next(s for s in quick_run.samples() if s.label)
    path = tmp_path_factory.mktemp("images") / "gear.png"
    Image.fromarray(sample.read()).save(path)
    return str(path)


@pytest.fixture(scope="module")
def client(runs_folder):
    demo, url = app.serve(runs_folder)
    yield Client(url, verbose=False)
    demo.close(verbose=False)


def _bad_files(folder, good):
    content = Path(good).read_bytes()
    (folder / "words.png").write_text("not an image")
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    return sorted(str(path) for path in folder.iterdir())


def _odd_files(folder):
    grid = np.linspace(0, 1, 64 * 48).reshape(64, 48)
    Image.fromarray((grid * 65535).astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray((grid * 255).astype(np.uint8)).save(folder / "grey.jpg")
    colours = np.repeat((grid * 255).astype(np.uint8)[..., None], 4, -1)
    Image.fromarray(colours, "RGBA").save(folder / "alpha.png")
    return sorted(str(path) for path in folder.iterdir())


def test_choices_have_distinct_labels_newest_first(runs_folder, run):
    labels, paths = zip(*shelf.choices(runs_folder), strict=True)
    assert paths[0] == run
    assert len(set(labels)) == len(labels) == 2
    assert "dnfad · procedural/gear · quick · seed 0" in labels[0]


def test_samples_are_spread_over_the_scores_with_the_highest_first(run):
    offered = shelf.opened(run).offered
    scores = [float(caption.rsplit(" ", 1)[1]) for _, caption, _ in offered]
    assert scores == sorted(scores, reverse=True)
    assert len(offered) == min(shelf.THUMBS, len(shelf.opened(run).test))


def test_a_sample_scores_as_in_its_evaluation(run):
    shown = shelf.opened(run)
    key = shown.first
    seen = views.see_sample(run, key)
    stored = shown.test.set_index("key").score[key]
    assert seen.answer.score == pytest.approx(stored, abs=1e-2)  # features are cached in float16
    assert seen.mask.any()


def test_opacity_and_threshold_change_the_maps_only(run):
    seen = views.see_sample(run, shelf.opened(run).first)
    low, high, start, _ = shelf.opened(run).slider
    assert low < start < high
    drawn = views.draw_maps(seen, 0.6, start)
    assert drawn == views.draw_maps(seen, 0.6, start)
    others = [views.draw_maps(seen, 0.2, start), views.draw_maps(seen, 0.6, (start + low) / 2),
              views.draw_maps(seen, 0.6, start, truth=False)]  # fmt: skip
    assert len({drawn, *others}) == 4
    for name in ("image", "global", "local", "fused"):
        assert f'data-map="{name}"' in drawn
    assert "nats per channel" in drawn


def test_the_verdict_follows_the_false_alarm_rate(run):
    seen = views.see_sample(run, shelf.opened(run).first)
    p = seen.answer.p_value * 100
    assert "Unusual" in views.draw_verdict(seen, p + 1)
    assert "Looks normal" in views.draw_verdict(seen, p - 1)
    assert "support no false-alarm rate" in views.draw_verdict(seen, 0.5)


def test_another_run_judges_the_image_in_view(runs_folder, run, defective):
    other = next(path for _, path in shelf.choices(runs_folder) if path != run)
    uploaded = views.see_file(run, defective)
    assert views.see_again(other, uploaded).answer.name == "gear.png"
    sample = views.see_sample(run, shelf.opened(run).first)
    assert views.see_again(run, sample).source == sample.source
    assert views.see_again(other, sample).source == ("sample", shelf.opened(other).first)


def test_odd_images_are_judged(run, tmp_path):
    for path in _odd_files(tmp_path):
        assert np.isfinite(views.see_file(run, path).answer.score), path


def test_bad_images_get_one_sentence_that_names_the_file(run, defective, tmp_path):
    for path in _bad_files(tmp_path, defective):
        with pytest.raises(ValueError, match=path.rsplit("/", 1)[1]) as told:
            views.see_file(run, path)
        assert str(tmp_path) not in str(told.value)
        assert "\n" not in str(told.value)


def test_several_keeps_a_row_for_a_bad_file(run, defective, tmp_path):
    files, ticks = [defective, *_bad_files(tmp_path, defective)], []
    table, shown = views.several(run, files, 50, lambda done, total: ticks.append((done, total)))
    assert table.file[0] == "gear.png"
    assert len(table) == len(files) == len(ticks)
    assert table.score.notna().sum() == len(shown) == 1
    assert table.decision.str.contains("not an image").sum() == 1


def test_report_and_regions_draw_figures(run):
    curves, defects, history = views.report(run)
    assert len(curves.axes) == 2
    assert None not in (defects, history)
    assert len(views.regions(run).axes) == 3
    assert "image AUROC" in views.metric_table(run)


@pytest.mark.parametrize("name", ["run.json", "scores.csv", "history.csv", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_broken_run_is_named(quick_run, tmp_path, name, damage):
    folder = shutil.copytree(quick_run.folder, tmp_path / "run")
    (folder / name).unlink() if damage == "missing" else (folder / name).write_bytes(b"\x00{")
    with pytest.raises(ValueError, match=name) as told:
        shelf.opened(str(folder))
    assert "train" in str(told.value)
    listed = answers.notice(tmp_path)["value"]
    if damage == "missing":
        assert "no run in" in listed
        assert name == "run.json" or name in listed


def test_an_empty_folder_says_what_to_do(tmp_path):
    assert answers.TRAIN in answers.notice(tmp_path)["value"]
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


def test_every_answer_has_a_name(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert {"/predict", "/runs", "/choose", "/sample", "/image", "/maps", "/decide", "/several",
            "/about", "/regions", "/reload"} <= set(named)  # fmt: skip


def test_predict_through_the_client(client, defective, run):
    answer, overlay = client.predict(handle_file(defective), api_name="/predict")
    assert set(answer) >= {"image", "run", "score", "quantile", "p_value", "sentence"}
    assert run.endswith(answer["run"])
    assert 0 < answer["p_value"] <= 1
    assert np.asarray(Image.open(overlay)).std() > 1
    other = next(name for name in client.predict(api_name="/runs") if name != answer["run"])
    again, _ = client.predict(handle_file(defective), other, api_name="/predict")
    assert again["score"] != answer["score"]


def test_bad_input_through_the_client(client, defective, tmp_path):
    for path in _bad_files(tmp_path, defective):
        with pytest.raises(AppError, match=path.rsplit("/", 1)[1]):
            client.predict(handle_file(path), api_name="/predict")
    with pytest.raises(AppError, match="no run 'nowhere'"):
        client.predict(handle_file(defective), "nowhere", api_name="/predict")


def test_a_session_keeps_its_image_to_itself(client, defective, run):
    look = {"run": run, "opacity": 0.6, "threshold": 2, "truth": True, "alarm": 10}
    maps, verdict, histogram, _ = client.predict(
        file=handle_file(defective), api_name="/image", **look
    )
    assert 'data-map="fused"' in maps
    assert "gear.png" in verdict
    assert "data:image/png" in histogram
    moved = client.predict(opacity=0.1, threshold=2, truth=True, api_name="/maps")
    assert moved != maps
    fresh = Client(client.src, verbose=False)
    assert views.NO_IMAGE in fresh.predict(opacity=0.1, threshold=2, truth=True, api_name="/maps")
    sampled = client.predict(index=1, api_name="/sample", **look)
    assert "labelled" in sampled[1]


def test_several_and_about_through_the_client(client, defective, run):
    words, table, shown = client.predict(run, [handle_file(defective)], 10, api_name="/several")
    assert "1 of 1 images judged" in words
    assert "download=" in words
    assert table["value"]["headers"][0] == "file"
    assert len(shown["value"]) == 1
    metrics, *_ = client.predict(run, api_name="/about")
    assert "image AUROC" in metrics
