"""Training for visitors: what may be trained on, the queue, stopping, and what a page is told."""

import os
import shutil
import threading
import time
import zipfile

import pytest
from PIL import Image

from labkit import methods
from labkit_apps.web import forecast as forecasts
from labkit_apps.web import shelf
from labkit_apps.web import trainer as trainers
from labkit_apps.web.allowance import Allowance
from labkit_apps.web.forecast import Forecast
from labkit_apps.web.trainer import Order, Trainer
from labkit_apps.web.views import train as views
from labkit_apps.web.views import train_data

TINY = {"limit": 8, "image_size": 64, "grid": 4, "epochs": 3, "batch": 4}


def order(runs, data="procedural/gear", method="dnfad", budget="quick", seed=0, backbone="",
          text="limit=6"):  # fmt: skip
    trainer = runs if isinstance(runs, Trainer) else Trainer(runs)
    return views.order(trainer, data, method, budget, seed, backbone, text)


def wait(job, seconds=60):
    end = time.monotonic() + seconds
    while job.active:
        assert time.monotonic() < end, job.phase
        time.sleep(0.02)
    return job


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    for name in ("forecast", "read"):
        monkeypatch.setattr(trainers, name, lambda *given: None)
    one = Trainer(tmp_path)
    yield one
    one.close()


@pytest.fixture
def held(trainer, monkeypatch):
    """Trainings that wait for a signal instead of training, and note in which order they ran."""
    free, ran = threading.Event(), []

    def train(*told, stop, **more):
        ran.append(told[3])
        while not (free.wait(0.01) or stop()):
            pass
        raise ValueError("Enough.")

    monkeypatch.setattr(trainers, "train", train)
    yield free, ran
    free.set()


@pytest.fixture
def parts(quick_run, tmp_path):
    """A ZIP with twelve good images in one folder."""
    path = tmp_path / "my parts.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index, sample in enumerate([s for s in quick_run.samples() if not s.label][:6] * 2):
            Image.fromarray(sample.read()).save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", f"parts/{index}.png")
    return path


def test_an_order_is_checked_before_it_is_taken(tmp_path):
    found = order(tmp_path, seed=3.0, text="limit=6  --set blocks=1\nlr=1e-4")
    assert (found.seed, found.settings) == (3, {"limit": "6", "blocks": "1", "lr": "1e-4"})
    assert found.config.train.lr == 1e-4
    for wrong, words in (
        ({"text": "blocks"}, "no setting"),
        ({"text": "blokcs=4"}, "blocks"),
        ({"text": "epochs=-1"}, "epochs"),
        ({"text": "backbone=/etc/x.safetensors"}, "backbone cannot be set here"),
        ({"text": "devices=8"}, "devices cannot be set here"),
        ({"method": "dnfda"}, "dnfad"),
        ({"budget": "free"}, "budget"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
    ):
        with pytest.raises(ValueError, match=words):
            order(tmp_path, **wrong)


@pytest.mark.parametrize(
    ("text", "key"),
    [("image_size=2048", "image_size"), ("batch=100000", "batch"), ("epochs=100000", "epochs"),
     ("blocks=500", "blocks"), ("hidden=1e9", "hidden"),
     ("image_size=1024 batch=64", "batch x")],
)  # fmt: skip
def test_an_order_is_bounded(tmp_path, text, key):
    reasons = "is more than this app trains|less than or equal"
    with pytest.raises(ValueError, match=f"{key}.* ({reasons})"):
        order(tmp_path, text=text)


def test_the_usual_settings_of_every_method_are_allowed(tmp_path):
    owner = Trainer(tmp_path, allowance=Allowance(paper=True))
    for method in methods.names():
        for budget in ("quick", "laptop", "paper"):
            order(owner, method=method, budget=budget, text="")
    with pytest.raises(ValueError, match="budget paper is closed"):
        order(tmp_path, budget="paper")


def test_a_forecast_has_a_deadline_and_counts_the_images(tmp_path, monkeypatch):
    monkeypatch.setattr(forecasts, "DEADLINE", -1.0)
    with pytest.raises(forecasts.TooLong, match="No estimate within"):
        Trainer(tmp_path).forecast(order(tmp_path))
    with pytest.raises(ValueError, match="more than 3; set limit"):
        Trainer(tmp_path, allowance=Allowance(images=3)).forecast(order(tmp_path))


@pytest.mark.parametrize("step", ["forecast", "read"])
def test_a_stop_ends_measuring_and_reading(trainer, monkeypatch, step):
    def work(config, root, check, *more):
        while True:
            check()
            time.sleep(0.01)

    monkeypatch.setattr(trainers, step, work)
    job = trainer.add(Order("dnfad", "procedural/gear", "quick", 0))
    while job.phase != {"forecast": "measuring", "read": "reading"}[step]:
        time.sleep(0.01)
    trainer.stop(job)
    assert "there is no run" in wait(job, 5).words


def test_reading_stores_every_image(tmp_path):
    asked = []
    spec = order(tmp_path).config
    forecasts.read(spec, None, lambda: asked.append(True))
    assert asked
    assert forecasts.forecast(spec).new == 0


def test_a_typed_folder_must_lie_in_the_data_root(tmp_path, monkeypatch, quick_run):
    root = tmp_path / "data"
    images = [s.read() for s in quick_run.samples()[:2]] * 5
    for place in (root / "mine", tmp_path / "private"):
        place.mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(place / f"{index}.png")
    monkeypatch.setenv("LABKIT_DATA", str(root))
    assert train_data.allowed("mine", tmp_path) == str(root / "mine")
    assert train_data.allowed(str(root / "mine"), tmp_path) == str(root / "mine")
    assert ("folder mine", "mine") in train_data.choices(tmp_path)
    outside = ("", ".", "..", "/", "/etc", "../private", str(tmp_path / "private"),
               "mine/../../private", str(root), "nowhere/../../private")  # fmt: skip
    for asked in outside:
        with pytest.raises(ValueError, match="neither a dataset of this machine nor a folder"):
            train_data.allowed(asked, tmp_path / "runs")
    with pytest.raises(ValueError, match="no folder"):
        train_data.allowed("missing", tmp_path)
    other = tmp_path / "other"  # as with --root
    shutil.copytree(root / "mine", other / "mine")
    assert train_data.allowed("mine", tmp_path, other) == str(other / "mine")
    assert ("folder mine", "mine") in train_data.choices(tmp_path, other)
    for asked in (*outside, str(root / "mine")):
        with pytest.raises(ValueError, match="neither a dataset of this machine nor a folder"):
            train_data.allowed(asked, tmp_path / "runs", other)


def test_a_zip_of_good_images_becomes_data(parts, tmp_path):
    runs = Trainer(tmp_path / "runs")
    place = train_data.upload(parts, runs)
    assert place.startswith("uploads/my-parts-")
    assert train_data.upload(parts, runs) == place
    assert train_data.allowed(place, runs.folder) == str(runs.folder / place)
    assert train_data.choices(tmp_path / "runs")[0][1] == place
    few = tmp_path / "few.zip"
    with zipfile.ZipFile(few, "w") as archive:
        archive.write(tmp_path / "one.png", "a.png")
    with pytest.raises(ValueError, match=r"few.zip holds 1 good") as told:
        train_data.upload(few, runs)
    assert str(tmp_path) not in str(told.value)
    assert len(list((tmp_path / "runs" / "uploads").iterdir())) == 1


def test_text_files_are_no_images(tmp_path):
    path = tmp_path / "words.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(12):
            archive.writestr(f"{index}.png", "no picture")
    with pytest.raises(ValueError, match=r"words.zip.* not an image") as refusal:
        train_data.upload(path, Trainer(tmp_path / "runs"))
    assert str(tmp_path) not in str(refusal.value)
    assert not list((tmp_path / "runs" / "uploads").iterdir())


def test_uploads_have_a_quota_and_an_age(parts, tmp_path, trainer, held):
    full = Trainer(tmp_path, allowance=Allowance(uploads=1000))
    with pytest.raises(ValueError, match=r"my parts.zip: the uploads here are full"):
        train_data.upload(parts, full)
    place = tmp_path / train_data.upload(parts, trainer)
    assert train_data.sweep(trainer) > parts.stat().st_size / 2
    old = time.time() - 86_400 * 31
    os.utime(place, (old, old))
    job = trainer.add(order(trainer, f"uploads/{place.name}"))
    train_data.sweep(trainer)
    assert place.is_dir()  # a training waits for it
    held[0].set()
    wait(job)
    train_data.sweep(trainer)
    assert not place.exists()


def test_an_upload_that_a_run_needs_is_not_swept(trainer, parts, tmp_path):
    place = tmp_path / train_data.upload(parts, trainer)
    job = wait(trainer.add(order(trainer, f"uploads/{place.name}", text="limit=4 epochs=1")))
    assert job.phase == "done", job.words
    os.utime(place, (0, 0))
    train_data.sweep(trainer)
    assert place.is_dir()
    shutil.rmtree(job.run.folder)
    train_data.sweep(trainer)
    assert not place.exists()


def test_a_training_becomes_a_run_of_the_folder(trainer, parts, tmp_path):
    place = train_data.upload(parts, trainer)
    job = wait(trainer.add(order(tmp_path, place, text="limit=4 epochs=2 blocks=1")))
    assert job.phase == "done", job.words
    assert job.run.folder.parent == tmp_path
    assert len(job.history) == 2
    state = views.draw_state(job, 0)
    assert f'href="?run={job.run.folder.name}"' in state
    assert len(views.draw_curve(job).axes) == 2
    assert "nats per dimension of held-out good images" in state
    assert views.facts(job)["run"] == job.run.folder.name
    bad = wait(trainer.add(order(tmp_path, text="limit=6 taps=99")))
    assert (bad.phase, "tap 99" in bad.words) == ("failed", True)


def test_a_stop_keeps_the_last_whole_epoch(trainer, tmp_path):
    job = trainer.add(order(tmp_path, text="limit=6 epochs=500 blocks=1"))
    end = time.monotonic() + 60
    while not job.history and time.monotonic() < end:
        time.sleep(0.01)
    trainer.stop(job)
    state = views.draw_state(job, 0)
    assert state.count("Stopping") == 1
    assert "held-out good images" in state
    assert "first step alone" in state
    wait(job)
    assert job.phase == "done", job.words
    told = job.run.summary()["stopped"]
    assert told == f"stopped after {len(job.run.history)} of 500 epochs"
    assert told in views.draw_state(job, 0)
    assert told in shelf.opened(str(job.run.folder)).caption
    assert told in shelf.choices(tmp_path)[0][0]


def test_one_at_a_time_in_order(trainer, held):
    free, ran = held
    jobs = [trainer.add(Order("dnfad", "procedural/gear", "quick", seed)) for seed in range(4)]
    assert [trainer.ahead(job) for job in jobs] == [0, 1, 2, 3]
    assert "number 3 in the queue" in views.draw_state(jobs[2], trainer.ahead(jobs[2]))
    assert trainer.get(None) is jobs[0]
    assert trainer.add(jobs[1].order) is jobs[1]  # asked twice, trained once
    trainer.stop(jobs[2])
    assert not jobs[2].active
    free.set()
    for job in jobs:
        wait(job)
    assert ran == [0, 1, 3]
    assert [job.phase for job in jobs] == ["failed"] * 4
    assert "out of the queue" in jobs[2].words
    assert trainer.get(None) is jobs[3]
    again = wait(trainer.add(jobs[0].order))  # the worker begins anew
    assert again.number == 5


def test_too_many_may_not_wait(trainer, held):
    for seed in range(trainers.MOST + 1):
        trainer.add(Order("dnfad", "procedural/gear", "quick", seed))
    with pytest.raises(ValueError, match="wait already"):
        trainer.add(Order("dnfad", "procedural/gear", "quick", 99))


def test_the_end_of_the_server_ends_the_worker(trainer, held):
    job = trainer.add(Order("dnfad", "procedural/gear", "quick", 0))
    while not held[1]:
        time.sleep(0.01)
    trainer.close()
    assert not trainer._workers
    assert job.phase == "failed"
    assert "goes on from its last epoch" in job.words


def test_a_failure_of_any_kind_is_told(trainer, monkeypatch, caplog):
    monkeypatch.setattr(trainers, "train", lambda *told, **more: 1 / 0)
    job = wait(trainer.add(Order("dnfad", "procedural/gear", "quick", 0)))
    assert "ZeroDivisionError" in job.words
    assert "lk-bad" in views.draw_state(job, 0)
    assert "ZeroDivisionError" in caplog.text


def test_time_left_follows_what_the_epochs_took():
    job = trainers.Training(1, Order("dnfad", "procedural/gear", "laptop", 0))
    assert job.left() is None
    images = {"train": 8, "calibration": 2, "test": 4}
    job.forecast = Forecast(images, 14, 10.0, (5.0,) * job.epochs, 3.0, 99)
    job.enter("reading")
    assert job.left() == pytest.approx(10 + 5 * job.epochs + 3, abs=0.2)
    job.enter("fitting")
    job.epoch([{"epoch": 1, "seconds": 10.0}])  # twice as slow as it looked
    assert job.left() == pytest.approx(2 * 5 * (job.epochs - 1) + 3, abs=0.2)


def test_choices_are_what_this_machine_has():
    assert [name for _, name in views.method_choices()] == methods.names()
    assert {name for _, name in views.backbone_choices()} >= {"", "efficientnet_lite0"}
    assert views.draw_curve(None) is None
    assert "Nothing is being trained" in views.draw_state(None, 0)


def test_the_cost_is_told_before(tmp_path):
    told = views.draw_cost(Trainer(tmp_path), order(tmp_path))
    assert "all together" in told
    assert "images are new to the backbone" in told
    with pytest.raises(ValueError, match="procedural"):
        views.draw_cost(Trainer(tmp_path), Order("dnfad", "procedural/geer", "quick", 0))


def test_a_forecast_counts_what_one_run_has_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    spec = methods.resolve("dnfad", "procedural/gear", "quick", overrides=TINY)
    first, again = forecasts.forecast(spec), forecasts.forecast(spec)
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
    expected = forecasts.forecast(spec)
    assert expected.epochs == ()
    assert expected.scoring > 0
