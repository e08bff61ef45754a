"""The app's endpoints through gradio_client."""

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from labkit_apps.web import shelf
from labkit_apps.web.views.judged_image import NO_IMAGE


def test_every_answer_has_a_name(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert {"/predict", "/runs", "/choose", "/sample", "/image", "/maps", "/decide", "/several",
            "/about", "/regions", "/reload", "/gallery", "/allow", "/position", "/nearest",
            "/files"} <= set(named)  # fmt: skip


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
    (tmp_path / "words.png").write_text("not an image")
    with pytest.raises(AppError, match=r"words\.png"):
        client.predict(handle_file(tmp_path / "words.png"), api_name="/predict")
    with pytest.raises(AppError, match="no run 'nowhere'"):
        client.predict(handle_file(defective), "nowhere", api_name="/predict")


def test_a_session_keeps_its_image_to_itself(client, defective, run):
    look = ("all maps", 0.6, True, -1, -1)
    maps, verdict, histogram, *_ = client.predict(
        run, handle_file(defective), *look, api_name="/image"
    )
    assert 'data-map="fused"' in maps
    assert "gear.png" in verdict
    assert "data:image/png" in histogram
    moved = client.predict("fused", *look[1:], api_name="/maps")
    assert moved != maps
    fresh = Client(client.src, verbose=False)
    assert NO_IMAGE in fresh.predict(*look, api_name="/maps")
    key = shelf.opened(run).first
    sampled = client.predict(run, key, *look, api_name="/sample")
    assert "labelled" in sampled[1]
    *_, message = client.predict(run, "nothing", *look, api_name="/sample")[:7]
    assert "no test image" in message["value"]
    assert "mean z²" in client.predict(0.5, 0.5, api_name="/position")
    assert "Distance" in client.predict(0.5, 0.5, api_name="/nearest")
    assert "labkit-" in client.predict(*look, api_name="/files")


def test_both_thresholds_move_the_decision(client, defective, run):
    client.predict(run, handle_file(defective), "fused", 0.6, True, -1, -1, api_name="/image")
    score, verdict, *_ = client.predict(run, 30, 30, api_name="/allow")
    assert score == shelf.opened(run).threshold(30)
    assert f"a score of {score:.4g}" in verdict
    rate, verdict, _, message = client.predict(run, score, score, api_name="/decide")
    assert rate == pytest.approx(shelf.opened(run).rate(score), abs=0.1)
    assert not message["visible"]
