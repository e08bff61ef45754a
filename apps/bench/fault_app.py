"""The app under hostile requests and under load, for `labkit bench faults`.

Foreign hosts and origins, files that were not uploaded, bad archives and odd values for every
endpoint: each must be refused or answered in words. Then eight visitors at once for `count`
seconds; each must see its own image only, judged as it is without the others.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import random
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from labkit.training.train import train
from labkit_apps.bench.damage import BYTES, ODD, encoded, noise
from labkit_apps.bench.faults import Case, Harm
from labkit_apps.web import app, shelf
from labkit_apps.web.views.judged_image import judge_file

COUNT, SHORT = 300, 5  # seconds of load
USERS = 8
DEADLINE, PATIENCE = 600.0, 20.0  # seconds; of a case, the load too, and of an answer
OWN = {"stop", "train", "estimate"}  # endpoints that odd values may not set going
FILE = {"_type": "gradio.FileData"}
VALUES = (
    *ODD, {"path": "/etc/passwd", "meta": FILE}, {"path": "", "meta": FILE},
    {"path": "http://127.0.0.1:9/x.png", "meta": FILE}, {"__type__": "update", "value": 1},
)  # fmt: skip
EVIL = "http://evil.example"


def cases(seed: int, folder: Path, count: int) -> Iterator[Case]:
    """Serve two quick runs; hostile requests of every kind, then `count` seconds of load."""
    for data in ("gear", "weave"):
        train("dnfad", f"procedural/{data}", "quick", limit=4, progress=False, runs=folder)
    demo, url = app.serve(folder, root=folder / "data")
    logging.getLogger("labkit_apps.web").setLevel(logging.ERROR)
    try:
        yield from _strangers(url)
        yield from _archives(url, random.Random(seed))
        yield from _odd(url, random.Random(seed), 1 + count // 60)
        yield f"{USERS} visitors", partial(_crowd, url, folder, count, seed)
    finally:
        demo.trainer.close()
        demo.close(verbose=False)


def _strangers(url: str) -> Iterator[Case]:
    """Requests that only the page of another site, or a false name, would make."""
    port = url.rstrip("/").rpartition(":")[2]
    headers = [
        {"Host": "evil.example"}, {"Host": f"evil.example:{port}", "Origin": f"{EVIL}:{port}"},
        {"Host": "192.0.2.5"}, {"Host": "[::"}, {"Origin": EVIL}, {"Origin": "null"},
        {"Origin": "http://localhost:9"}, {"Origin": f"{EVIL}#{url}"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ]  # fmt: skip
    calls = {
        "gradio_api/call/runs": {"json": {"data": []}},
        "gradio_api/upload": {"files": {"files": ("x.png", encoded(noise(0)))}},
        "login": {"data": {"username": "a", "password": "b"}}, "config": None, "": None,
    }  # fmt: skip
    for asked, (path, body) in itertools.product(headers, calls.items()):
        yield f"{asked} /{path}", partial(_stranger, url + path, asked, body)


def _stranger(url: str, headers: dict[str, str], body: dict[str, Any] | None) -> None:
    answer = _reply("POST" if body else "GET", url, headers=headers, **body or {})
    allowed = answer.headers.get("access-control-allow-origin")
    if answer.status_code not in (400, 403) or allowed:
        raise RuntimeError(f"answered with status {answer.status_code}")
    raise ValueError(f"status {answer.status_code}")


def _archives(url: str, rng: random.Random) -> Iterator[Case]:
    """ZIPs that hold no images, lie, leave their folder, or are damaged anywhere."""
    pictures = {f"{k}.png": encoded(noise(k)) for k in range(12)}
    whole = _zip(pictures)
    contents = {"text": _zip(dict.fromkeys(pictures, b"no picture")), "empty": b"",
                "outside": _zip({f"../{k}": v for k, v in pictures.items()}),
                "nested": _zip(pictures | {"a.zip": whole}), "cut": whole[: len(whole) // 2],
                "bomb": _zip({"a.bmp": bytes(10**7)})}  # fmt: skip
    contents |= {f"damaged {k}": rng.choice(BYTES)(whole, rng) for k in range(20)}
    for name, content in contents.items():
        yield f"archive {name}", partial(_upload, url, content)


def _upload(url: str, content: bytes) -> None:
    _ask(url, "upload", [_sent(url, "mine.zip", content)])


def _odd(url: str, rng: random.Random, rounds: int) -> Iterator[Case]:
    """Values of other kinds, or too few of them, for each endpoint."""
    picture = _sent(url, "x.png", encoded(noise(0)))
    endpoints = _reply("GET", f"{url}gradio_api/info").json()["named_endpoints"]
    for (path, endpoint), k in itertools.product(endpoints.items(), range(rounds)):
        usual = [picture if one["component"] == "File" else one.get("parameter_default")
                 for one in endpoint["parameters"]]  # fmt: skip
        values = [rng.choice(VALUES) if rng.random() < 0.5 else value for value in usual]
        values = values[:-1] if k == 1 else values
        name = path.strip("/")
        if name in OWN:
            values[:1] = ["nowhere"]
        yield f"{name} {str(values)[:120]}", partial(_ask, url, name, values)


def _crowd(url: str, folder: Path, count: int, seed: int) -> np.ndarray:
    """Visitors that judge, look and compare; the seconds until each image was judged.

    Raises: Harm if any is answered about another's image, or with another score.
    """
    runs = [path for _, path in shelf.choices(folder)]
    end = time.monotonic() + count

    def visit(k: int) -> list[float]:
        path, run, seconds = folder / f"visitor{k}.png", runs[k % 2], []
        path.write_bytes(encoded(noise(seed + k, (64 + k, 64 + k))))
        expected = judge_file(run, str(path)).answer.score
        picture = _sent(url, path.name, path.read_bytes())
        turns = itertools.cycle([("several", [run, [picture], 10, 10]), ("runs", []),
                                 ("about", [run]), ("compare", [runs])])  # fmt: skip
        while not seconds or time.monotonic() < end:
            began = time.monotonic()
            (row, *_) = _ask(url, "predict", [picture, Path(run).name])
            seconds.append(time.monotonic() - began)
            if row["image"] != path.name or not np.isclose(row["score"], expected, 1e-6, 0):
                raise Harm("silent_other_scores", f"visitor {k} was answered {row}"[:200])
            _ask(url, *next(turns))
        return seconds

    try:
        with ThreadPoolExecutor(USERS) as pool:
            return np.concatenate(list(pool.map(visit, range(USERS))))
    except ValueError as error:
        raise RuntimeError(f"a visitor was refused: {error}") from error


def _ask(url: str, name: str, values: list[Any]) -> list[Any]:
    """What an endpoint answers.

    Raises: ValueError for a refusal in words; RuntimeError for another, or one that tells paths.
    """
    content, json_type = json.dumps({"data": values}), {"content-type": "application/json"}
    path = f"{url}gradio_api/call/{name}"
    started = _reply("POST", path, content=content, headers=json_type)
    if started.status_code // 100 == 4:
        raise ValueError(f"status {started.status_code}")
    reply = _reply("GET", f"{path}/{started.json()['event_id']}").text
    event, _, data = reply.strip().rpartition("event: ")[2].partition("\ndata: ")
    answer = json.loads(data or "null")
    if event == "complete":
        return answer
    words = answer.get("error") if isinstance(answer, dict) else None
    if event == "error" and words and "its log says why" not in words and "/tmp" not in words:
        raise ValueError(words.replace("\n", " "))
    raise RuntimeError(f"{event}: {str(answer)[:200]}")


def _reply(method: str, url: str, **how: Any) -> httpx.Response:
    return httpx.request(method, url, timeout=PATIENCE, **how)


def _sent(url: str, name: str, content: bytes) -> dict[str, Any]:
    """An uploaded file, as an endpoint takes it."""
    answer = _reply("POST", f"{url}gradio_api/upload", files={"files": (name, content)})
    return {"path": answer.json()[0], "orig_name": name, "meta": FILE}


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()
