"""Hostile uploads, foreign paths, names with markup: one sentence or a right answer, no more."""

import io
import socket
import zlib

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from labkit_apps.web import app, guard, markup, programs, shelf
from labkit_apps.web.views import inspect
from labkit_apps.web.views.inspect import ViewOptions
from labkit_apps.web.views.judged_image import judge_file

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def photo():
    """A picture of random values, (96, 64, 3)."""
    return np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)


def _saved(photo, kind, **how):
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, kind, **how)
    return buffer.getvalue()


def _bomb(photo):
    """A PNG that claims 60,000 x 60,000 pixels."""
    content = bytearray(_saved(photo, "png"))
    content[16:24] = 2 * (60_000).to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


REFUSED = {  # what tests/data/test_images.py damages otherwise, the app refuses by the same reader
    "bomb.png": (_bomb, "far larger than the limit"),
    "cut.jpg": (lambda p: _saved(p, "jpeg")[:700], "cannot be decoded"),
    "drawing.svg": (lambda p: f"<svg xmlns='a'>{SCRIPT}</svg>".encode(), "not an image"),
    "page.png": (lambda p: f"<html>{SCRIPT}</html>".encode(), "not an image"),
    "print.eps": (lambda p: _saved(p, "eps"), "not an image"),  # Pillow would start Ghostscript
    "archive.png": (lambda p: b"PK\x03\x04" + bytes(200), "not an image"),
}
JUDGED = {
    "tail.jpg": lambda p: _saved(p, "jpeg") + f"<html>{SCRIPT}</html>PK\x03\x04".encode(),
    "really-a-jpeg.png": lambda p: _saved(p, "jpeg"),
    "no-suffix": lambda p: _saved(p, "png"),
    "sixteen\nlines;$(touch x).png": lambda p: _saved(p, "png"),
    "..%2f..%2fescape.png": lambda p: _saved(p, "png"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_gets_one_sentence(run, photo, tmp_path, name):
    make, reason = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(make(photo))
    with pytest.raises(ValueError, match=name) as told:
        judge_file(run, str(path))
    sentence = str(told.value)
    assert reason in sentence
    assert "\n" not in sentence
    assert str(tmp_path) not in sentence


@pytest.mark.parametrize("name", JUDGED)
def test_an_odd_file_is_judged_and_nothing_else_is_done(run, photo, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(JUDGED[name](photo))
    answer = judge_file(run, str(path)).answer
    assert np.isfinite(answer.score)
    assert answer.image.shape[0] > answer.image.shape[1]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_names_are_text_in_the_page(run, photo, tmp_path):
    path = tmp_path / '"><img src=x onerror=alert(1)>.png'
    path.write_bytes(_saved(photo, "png"))
    seen = judge_file(run, str(path))
    drawn = inspect.draw_verdict(seen, 0.0)
    parts = inspect.files(seen, ViewOptions()).items()
    drawn += "".join(markup.download(content, name, "x") for name, content in parts)
    assert "<img" not in drawn
    assert "&lt;img" in drawn


def test_names_of_runs_and_folders_are_text(tmp_path):
    odd = tmp_path / f"a{SCRIPT.replace('/', '')}"
    odd.mkdir()
    (odd / "run.json").write_text("{")
    assert "<script" not in app.notice(tmp_path)
    assert "<script" not in app.reload(tmp_path, SCRIPT)[1]["value"]
    assert "&lt;script" in app.notice(tmp_path)


def test_a_refused_name_is_text_in_the_banner(client, run, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    path.write_text("no image")
    with pytest.raises(AppError) as told:
        client.predict(handle_file(path), api_name="/predict")
    assert "<img" not in str(told.value)


@pytest.mark.parametrize("name", ["pyproject.toml", "labkit/cli.py", "../secret", ""])
def test_no_file_of_the_server_is_served(client, runs_folder, name):
    asked = {"": str(next(runs_folder.glob("*/run.json")))}.get(name, name)
    for place in ("gradio_api/file=", "file="):
        answer = httpx.get(f"{client.src}{place}{asked}")
        assert answer.status_code in (403, 404), asked


def test_only_runs_of_the_folder_are_opened(client, quick_run, runs_folder):
    outside = str(quick_run.folder)
    assert outside not in {path for _, path in shelf.choices(runs_folder)}
    with pytest.raises(AppError):
        client.predict(outside, api_name="/about")
    with pytest.raises(ValueError, match="no run"):
        programs.named(runs_folder, "../" + quick_run.folder.name)


def test_an_upload_above_the_limit_is_refused(runs_folder, monkeypatch):
    monkeypatch.setattr(app, "LARGEST", "1mb")
    demo, url = app.serve(runs_folder)
    answers = [
        httpx.post(f"{url}gradio_api/upload", files={"files": ("large.png", bytes(size))})
        for size in (2**19, 2**21)
    ]
    demo.close(verbose=False)
    assert [answer.status_code for answer in answers] == [200, 413]


def test_a_password_is_asked_for(runs_folder):
    demo, url = app.serve(runs_folder, auth="teacher:a:b")
    try:
        assert httpx.get(f"{url}config").status_code == 401
        assert httpx.post(f"{url}gradio_api/call/runs", json={"data": []}).status_code == 401
        known = Client(url, auth=("teacher", "a:b"), verbose=False)
        assert known.predict(api_name="/runs")
    finally:
        demo.close(verbose=False)


def guarded(host="127.0.0.1", names=(), status=200):
    """A server of nothing but the guard, and what it is asked by a browser."""

    async def inner(scope, receive, send):
        answer = PlainTextResponse("inside", status)
        answer.set_cookie("token", "x", samesite="none", secure=True)
        await answer(scope, receive, send)

    return TestClient(guard.Guard(inner, host, guard.checked(names)), "http://127.0.0.1:7860")


OWN = [
    {}, {"host": "localhost:7860"}, {"host": "[::1]:7860"}, {"host": "LOCALHOST."},
    {"origin": "http://127.0.0.1:7860"}, {"sec-fetch-site": "same-origin"},
    {"host": "localhost:8888", "origin": "http://localhost:8888"},  # JupyterLab's proxy
    {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"},  # a link that was followed
]  # fmt: skip
FOREIGN = [
    {"host": "evil.example"}, {"host": "evil.example", "origin": "http://evil.example"},
    {"host": "192.168.0.5:7860"}, {"host": "[::"}, {"host": ""}, {"host": "localhost.evil.com"},
    {"host": "0.0.0.0:7860"}, {"origin": "http://evil.example"}, {"origin": "null"},
    {"origin": "http://localhost:9999"}, {"origin": "http://127.0.0.1:9999"}, {"origin": ""},
    {"origin": "http://127.0.0.1:7860.evil.example"}, {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "cross-site", "sec-fetch-dest": "iframe"},
]  # fmt: skip


@pytest.mark.parametrize("headers", OWN)
def test_the_own_page_and_programs_are_answered(headers):
    assert guarded().get("/", headers=headers).text == "inside"


@pytest.mark.parametrize("headers", FOREIGN)
def test_other_hosts_and_pages_are_refused_in_one_line(headers, caplog):
    for method in ("GET", "POST", "OPTIONS"):
        answer = guarded().request(method, "/", headers=headers)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert len(caplog.messages) == 3


def test_a_server_for_all_answers_to_its_machine_and_the_names_it_was_given():
    own, proxy = socket.gethostname(), {"origin": "https://app.example.org"}
    shared = guarded("0.0.0.0", ["app.example.org"])
    for host in (own, f"{own.lower()}:7860", "app.example.org", "127.0.0.1:7860"):
        assert shared.get("/", headers={"host": host}).status_code == 200
    for host in ("evil.example", "10.9.8.7"):
        assert shared.get("/", headers={"host": host}).status_code == 403
    assert shared.get("/", headers=proxy | {"host": "app.example.org"}).status_code == 200
    assert shared.get("/", headers=proxy | {"host": "localhost:7860"}).status_code == 200
    assert shared.get("/", headers={"origin": "https://evil.example"}).status_code == 403
    with pytest.raises(ValueError, match="host name; give one such as"):
        guard.GuardedApp("127.0.0.1", ["https://app.example.org/"])


def test_cookies_stay_with_the_own_page():
    assert "samesite=lax" in guarded().get("/").headers["set-cookie"].lower()


def test_wrong_passwords_wait(monkeypatch):
    wrong, right = guarded(status=400), guarded(status=200)
    codes = [wrong.post("/login").status_code for _ in range(guard.TRIES + 2)]
    assert codes == [400] * guard.TRIES + [429] * 2
    assert [right.post("/login").status_code for _ in range(20)] == [200] * 20
    later = guard.time.monotonic() + guard.LOCK + 1
    monkeypatch.setattr(guard.time, "monotonic", lambda: later)
    assert wrong.post("/login").status_code == 400


FILE = {"meta": {"_type": "gradio.FileData"}}
UNFIT = [
    ("predict", [{"path": "/etc/passwd", **FILE}, ""], "was not uploaded"),
    ("predict", [{"path": "http://127.0.0.1:9/x.png", **FILE}, ""], "was not uploaded"),
    ("predict", [{"path": None, **FILE}, ""], "was not uploaded"),
    ("predict", ["/etc/passwd", ""], "was not uploaded"),
    ("predict", [None, 5], "give text"),
    ("compare", [1e308], "names, in a list"),
    ("compare", [[None]], "a list of names"),
    ("microscope_sample", ["", 1e308, 0], "give a number"),
    ("microscope_sample", ["", None, 0], "choose"),
    ("toy_train", ["two moons", 4, None], "give a number"),
    ("study", [None], "Choose a study"),
    ("study", [{}], "give a name"),
    ("estimate", ["/srv/lab/secret/parts", "dnfad", "quick", 0, "", ""], "neither"),
    ("about", [], "belong"),
]


@pytest.mark.parametrize(("name", "values", "words"), UNFIT)
def test_what_does_not_fit_is_a_sentence_and_a_line(url, run, name, values, words, capfd, caplog):
    values = [run if value == "" and name == "microscope_sample" else value for value in values]
    started = httpx.post(f"{url}gradio_api/call/{name}", json={"data": values})
    answer = httpx.get(
        f"{url}gradio_api/call/{name}/{started.json()['event_id']}", timeout=60
    ).text
    assert "event: error" in answer
    assert words in answer
    assert "/srv/lab/secret" not in answer.partition("neither")[2]
    assert str(run) not in answer
    assert len([line for line in caplog.messages if line.startswith("refused")]) == 1
    assert "Traceback" not in capfd.readouterr().err


def test_a_fault_keeps_its_traceback(url, monkeypatch, capfd):
    monkeypatch.setattr(shelf, "choices", lambda folder: 1 / 0)
    started = httpx.post(f"{url}gradio_api/call/runs", json={"data": []})
    answer = httpx.get(f"{url}gradio_api/call/runs/{started.json()['event_id']}").text
    assert "its log says why" in answer
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_nameless_upload_is_refused(url):
    answer = httpx.post(f"{url}gradio_api/upload", files={"files": ("", b"x")})
    assert answer.status_code == 400


@pytest.mark.parametrize("auth", ["", "teacher", "teacher:", ":secret"])
def test_a_login_that_cannot_be(runs_folder, auth):
    with pytest.raises(ValueError, match="USER:PASSWORD"):
        app.serve(runs_folder, auth=auth)
