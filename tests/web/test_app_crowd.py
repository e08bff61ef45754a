"""Eight visitors at once, and how soon the first map follows an upload."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gradio import processing_utils
from gradio_client import Client, handle_file
from PIL import Image

from labkit_apps.bench import faults
from labkit_apps.web import shelf
from labkit_apps.web.pictures import as_files
from labkit_apps.web.views.judged_image import judge_file

USERS, WARM, COLD = 8, 40, 120  # visitors; the first map's time in that of judging its image
PATIENT = {"verbose": False, "httpx_kwargs": {"timeout": 120}}  # on a busy machine
LOOK = ("all maps", 0.6, True, -1, -1)


@pytest.fixture(scope="module")
def runs(runs_folder):
    """Folders of both runs, that of the gears first."""
    return [path for _, path in shelf.choices(runs_folder)]


@pytest.fixture(scope="module")
def pictures(quick_run, tmp_path_factory):
    """An image of its own for each visitor."""
    folder, samples = tmp_path_factory.mktemp("visitors"), quick_run.samples()
    paths = [folder / f"part{k}.png" for k in range(USERS)]
    for k, path in enumerate(paths):
        Image.fromarray(samples[k % len(samples)].read()[:, : 200 + k]).save(path)
    return [str(path) for path in paths]


def test_eight_users_at_once_see_their_own_images(url, runs, pictures):
    def visit(k):
        client, run = Client(url, **PATIENT), runs[k % 2]
        maps, verdict, *_ = client.predict(run, handle_file(pictures[k]), *LOOK, api_name="/image")
        muted = client.predict(LOOK[0], 0.1, *LOOK[2:], api_name="/maps")
        position = client.predict(0.5, 0.5, api_name="/position")
        more = [
            lambda: client.predict(handle_file(pictures[k]), api_name="/predict"),
            lambda: client.predict(run, [handle_file(pictures[k])], 5, 10, api_name="/several"),
            lambda: client.predict(run, handle_file(pictures[k]), 1, api_name="/microscope_image"),
            lambda: client.predict(runs, api_name="/compare"),
        ]
        return maps, muted, position, verdict, more[k % 4]()

    with ThreadPoolExecutor(USERS) as pool:
        answers = list(pool.map(visit, range(USERS)))
    for k, (maps, muted, position, verdict, _) in enumerate(answers):
        assert f"part{k}.png" in verdict
        assert f"{judge_file(runs[k % 2], pictures[k]).answer.score:.4g}" in verdict
        assert maps != muted
        assert "mean z²" in position
    assert len({answer[0] for answer in answers}) == USERS


def test_the_first_map_follows_an_upload_soon(url, runs, pictures):
    """Processor time of server and client, in that of judging the image by itself."""
    client, spent = Client(url, **PATIENT), []
    ask = partial(client.predict, runs[0], handle_file(pictures[0]), *LOOK, api_name="/image")
    shelf._opened.cache_clear()
    for call in (ask, ask, partial(judge_file, runs[0], pictures[0])):
        before = time.process_time()
        answer = call()
        spent.append(time.process_time() - before)
        assert call is not ask or 'data-map="fused"' in answer[0]
    assert spent[0] < COLD * spent[2]
    assert spent[1] < WARM * spent[2]


def test_hostile_requests_and_a_crowd_in_short():
    row = faults.report("app", seed=1, short=True)
    assert not faults.failed([row]), faults.verdict([row])
    assert row["refused"] > 80  # 50 of strangers, 20 archives, odd values of each endpoint
    assert row["answers"] >= USERS


def test_a_picture_stays_whole_while_others_are_shown_it():
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    page = lambda: as_files(([(picture, "a caption")], {"value": picture}, "a word"))  # noqa: E731
    ((path, caption),), update, word = page()
    assert (update["value"], caption, word) == (path, "a caption", "a word")
    whole = Path(path).read_bytes()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(lambda: [page() for _ in range(20)])
        while not work.done():
            assert Path(path).read_bytes() == whole
    assert {path} == {shown[0][0][0] for shown in work.result()}


def test_gradio_writes_no_picture_itself(url, runs, pictures, monkeypatch):
    monkeypatch.setattr(processing_utils, "save_pil_to_cache", lambda *_, **__: 1 / 0)
    client = Client(url, **PATIENT)
    answer, overlay = client.predict(handle_file(pictures[0]), api_name="/predict")
    thumbnails = client.predict(runs[0], "all", "all", 0.0, 0, api_name="/gallery")[0]
    assert answer["image"] == "part0.png"
    shown = thumbnails["value"][0]["image"]
    assert all(Image.open(path).size for path in (overlay, shown))


def test_two_servers_share_no_picture(url):
    """Else the one that stops takes away the pictures that the other still shows."""
    words = "from labkit_apps.web.pictures import own_folder; print(own_folder().name)"
    other = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True).stdout
    ours = Path(as_files(np.zeros((2, 2, 3), np.uint8)))
    assert ours.is_file()
    assert other.strip()
    assert not ours.is_relative_to(other.strip())
    assert not Path(other.strip()).exists()


def test_a_server_that_is_stopped_leaves_no_file(tmp_path):
    room = {"GRADIO_TEMP_DIR": str(tmp_path), "LABKIT_RUNS": str(tmp_path)}
    command = [sys.executable, "-m", "labkit", "app", "--port", "0"]
    server = subprocess.Popen(command, env=os.environ | room, stdout=subprocess.PIPE, text=True)
    assert "127.0.0.1" in server.stdout.readline()
    assert list(tmp_path.glob("labkit-*"))
    server.terminate()
    assert server.wait(60) == 0
    assert not list(tmp_path.glob("labkit-*"))
