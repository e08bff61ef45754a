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
import resource
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from labkit.training.train import train
from labkit_apps.web import app, shelf
from labkit_apps.web.views.judged_image import judge_file

COUNT, SHORT = 300, 5  # seconds of load
USERS, PATIENCE = 8, 120.0  # visitors; seconds that an answer may take
OWN = {"stop", "train", "estimate"}  # endpoints that odd values may not set going
FILE = {"_type": "gradio.FileData"}
ODD = (
    None, True, -1, 1e308, -1e308, 1e-308, 2**63, 10**40, "", "x", "NaN", "../../etc/passwd", "\0",
    "<script>alert(1)</script>", "a" * 100_000, [], [[1]], {}, {"a": 1}, [None], float("nan"),
    float("inf"), {"path": "/etc/passwd", "meta": FILE}, {"path": "", "meta": FILE},
    {"path": "http://127.0.0.1:9/x.png", "meta": FILE}, {"__type__": "update", "value": 1},
)  # fmt: skip
Outcome = tuple[str, str]  # what was tried; accepted, refused or faulty


def report(count: int, seed: int) -> dict[str, Any]:
    """Serve two quick runs and try everything; `count` is the seconds of load."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="labkit-") as name:
        folder = Path(name)
        for data in ("gear", "weave"):
            train("dnfad", f"procedural/{data}", "quick", limit=4, progress=False, runs=folder)
        demo, url = app.serve(folder, root=folder / "data")
        logging.getLogger("labkit_apps.web").setLevel(logging.ERROR)
        try:
            outcomes = [*_strangers(url), *_archives(url, seed), *_odd(url, seed, 1 + count // 60)]
            load = _crowd(url, folder, count, seed)
        finally:
            demo.trainer.close()
            demo.close(verbose=False)
            logging.getLogger("labkit_apps.web").setLevel(logging.NOTSET)
    faults = [f"{words}: {end}" for words, end in outcomes if end not in ("accepted", "refused")]
    ends, mixed, failed = [end for _, end in outcomes], load.pop("mixed"), load.pop("failed")
    bad = len(mixed) + len(failed)
    return {
        "tried": len(ends) + load["calls"], "refused": ends.count("refused"),
        "accepted": ends.count("accepted") + load["calls"] - bad,
        "tracebacks": len(faults) + len(failed), "hangs": 0, "silent_other_scores": len(mixed),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "seconds": round(time.perf_counter() - started, 1), "faults": faults + failed + mixed,
        **load,
    }  # fmt: skip


def _strangers(url: str) -> Iterator[Outcome]:
    """Requests that only the page of another site, or a false name, would make."""
    port, picture = url.rstrip("/").rpartition(":")[2], {"files": ("x.png", _png(0))}
    evil = "http://evil.example"
    headers = [
        {"Host": "evil.example"}, {"Host": f"evil.example:{port}", "Origin": f"{evil}:{port}"},
        {"Host": "192.0.2.5"}, {"Host": "[::"}, {"Origin": evil}, {"Origin": "null"},
        {"Origin": "http://localhost:9"}, {"Origin": f"{evil}#{url}"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ]  # fmt: skip
    calls = {
        "gradio_api/call/runs": {"json": {"data": []}},
        "gradio_api/upload": {"files": picture},
    }
    calls |= {"login": {"data": {"username": "a", "password": "b"}}, "config": None, "": None}
    for asked, (path, body) in itertools.product(headers, calls.items()):
        how = {"headers": asked, "timeout": PATIENCE}
        answer = httpx.post(url + path, **body, **how) if body else httpx.get(url + path, **how)
        allowed = answer.headers.get("access-control-allow-origin")
        refused = answer.status_code in (400, 403) and not allowed
        yield f"{asked} /{path}", "refused" if refused else f"status {answer.status_code}"


def _archives(url: str, seed: int) -> Iterator[Outcome]:
    """ZIPs that hold no images, lie, leave their folder, or are damaged anywhere."""
    rng, pictures = random.Random(seed), {f"{k}.png": _png(k) for k in range(12)}
    text = {f"{k}.png": b"no picture" for k in range(12)}
    whole = _zip(pictures)
    contents = {"text": _zip(text), "outside": _zip({f"../{k}": v for k, v in pictures.items()}),
                "nested": _zip(pictures | {"a.zip": whole}), "bomb": _zip({"a.bmp": bytes(10**7)}),
                "empty": b"", "cut": whole[: len(whole) // 2]}  # fmt: skip
    for k in range(20):
        damaged = bytearray(whole)
        for _ in range(8):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        contents[f"damaged {k}"] = bytes(damaged)
    for name, content in contents.items():
        yield f"archive {name}", _asked(url, "upload", [_sent(url, "mine.zip", content)])


def _odd(url: str, seed: int, rounds: int) -> Iterator[Outcome]:
    """Values of other kinds, or too few of them, for each endpoint."""
    rng, picture = random.Random(seed), _sent(url, "x.png", _png(0))
    endpoints = httpx.get(f"{url}gradio_api/info").json()["named_endpoints"]
    for name, endpoint in endpoints.items():
        usual = [
            picture if one["component"] == "File" else one.get("parameter_default")
            for one in endpoint["parameters"]
        ]
        for k in range(rounds):
            values = [rng.choice(ODD) if rng.random() < 0.5 else value for value in usual]
            values = values[:-1] if k == 1 else values
            if name.strip("/") in OWN:
                values[:1] = ["nowhere"]
            yield f"{name} {str(values)[:120]}", _asked(url, name.strip("/"), values)


def _crowd(url: str, folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Visitors that judge, look and compare; each checks that what it sees is its own."""
    runs = [path for _, path in shelf.choices(folder)]
    places = [folder / f"visitor{k}.png" for k in range(USERS)]
    for k, place in enumerate(places):
        place.write_bytes(_png(seed + k, 64 + k))
    scores = [judge_file(runs[k % 2], str(place)).answer.score for k, place in enumerate(places)]
    end, before = time.monotonic() + count, _resident()

    def visit(k: int) -> tuple[list[float], list[str], list[str]]:
        seconds, mixed, faults, run = [], [], [], Path(runs[k % 2]).name
        picture = _sent(url, places[k].name, places[k].read_bytes())
        for turn in itertools.count():
            if time.monotonic() > end:
                return seconds, mixed, faults
            began = time.monotonic()
            status, answer = _called(url, "predict", [picture, run])
            seconds.append(time.monotonic() - began)
            row = answer[0] if status == "complete" else {"image": "", "score": np.nan}
            if row["image"] != places[k].name or not np.isclose(row["score"], scores[k], 1e-6, 0):
                mixed.append(f"visitor {k} was answered {str(answer)[:120]}")
            turns = [("several", [runs[k % 2], [picture], 10, 10]), ("runs", [])]
            turns += [("about", [runs[k % 2]]), ("compare", [runs])]
            name, values = turns[turn % len(turns)]
            if (end_of := _asked(url, name, values)) != "accepted":
                faults.append(f"/{name}: {end_of}")

    with ThreadPoolExecutor(USERS) as pool:
        visits = list(pool.map(visit, range(USERS)))
    seconds, mixed, faults = (list(itertools.chain(*part)) for part in zip(*visits, strict=True))
    return {
        "calls": 2 * len(seconds), "mixed": mixed, "failed": faults,
        "p95": float(np.quantile(seconds, 0.95)), "before_mib": before, "after_mib": _resident(),
    }  # fmt: skip


def _asked(url: str, name: str, values: list[Any]) -> str:
    """How a call ended: accepted, refused in words, or what was wrong with the answer."""
    status, answer = _called(url, name, values)
    if status == "complete" or status.startswith("4"):
        return "accepted" if status == "complete" else "refused"
    words = (answer or {}).get("error") if isinstance(answer, dict) else None
    spoken = status == "error" and words and "its log says why" not in words
    return "refused" if spoken and "/" + "tmp" not in words else f"{status}: {str(answer)[:200]}"


def _called(url: str, name: str, values: list[Any]) -> tuple[str, Any]:
    """The last event of a call, and its data; the status where there is none."""
    started = httpx.post(
        f"{url}gradio_api/call/{name}", content=json.dumps({"data": values}), timeout=PATIENCE,
        headers={"content-type": "application/json"},
    )  # fmt: skip
    if started.status_code != 200:
        return str(started.status_code), started.text
    number = started.json()["event_id"]
    reply = httpx.get(f"{url}gradio_api/call/{name}/{number}", timeout=PATIENCE).text
    event, _, data = reply.strip().rpartition("event: ")[2].partition("\ndata: ")
    return event, json.loads(data or "null")


def _sent(url: str, name: str, content: bytes) -> dict[str, Any]:
    """An uploaded file, as an endpoint takes it."""
    answer = httpx.post(
        f"{url}gradio_api/upload", files={"files": (name, content)}, timeout=PATIENCE
    )
    return {"path": answer.json()[0], "orig_name": name, "meta": FILE}


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _png(seed: int, side: int = 64) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def _resident() -> float:
    """Memory of this process now, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
