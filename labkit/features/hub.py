"""Weights by timm's tag: fetched before, which takes no request, or of a hub that answers."""

import os
import time
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HfHubHTTPError

FILE = "model.safetensors"  # what timm asks the hub for
PATIENCE = 3.0  # seconds until a hub answers; `HF_HUB_ETAG_TIMEOUT` says otherwise


def fetched(name: str) -> Path | None:
    """The file of a tag's weights, if they were fetched before.

    Raises: RuntimeError if timm has no such tag.
    """
    source = timm.get_pretrained_cfg(name)
    if source is None or not (source.hf_hub_id or source.url):
        return None
    if source.hf_hub_id:
        path = try_to_load_from_cache(source.hf_hub_id, FILE)
        return Path(path) if isinstance(path, str) else None
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(source.url).path).name
    return path if path.is_file() else None


def options(name: str) -> dict[str, Any]:
    """How timm makes a model with the weights of a tag; it asks a hub only for what it lacks.

    Raises: OSError or what the transport raises, soon, if nothing answers there.
    """
    if path := fetched(name):
        # a file as the hub keeps it is read as one of the hub
        local = {"file": str(path), "custom_load": False}
        return {"pretrained": True, "pretrained_cfg_overlay": local}
    if source := timm.get_pretrained_cfg(name):
        url = hf_hub_url(source.hf_hub_id, FILE) if source.hf_hub_id else source.url
        limit = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", PATIENCE))
        if url and (error := _failure(url, limit, time.monotonic() // 60)):
            raise error
    return {"pretrained": True}


@lru_cache(maxsize=8)
def _failure(url: str, limit: float, minute: float) -> Exception | None:
    """Why nobody answers at an address, asked once a minute; None if somebody does.

    In a thread, since names are looked up, and addresses of a name tried, without a time limit.
    """
    failures: list[Exception | None] = []

    def ask() -> None:
        failure = None
        try:
            get_hf_file_metadata(url, token=False, timeout=limit)
        except HfHubHTTPError as error:  # an answer, if only that it takes a login
            failure = error if error.response.status_code >= 500 else None
        except Exception as error:  # whatever the transport raises
            failure = error
        failures.append(failure)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(limit)
    late = TimeoutError(f"no answer in {limit:g} s; HF_HUB_ETAG_TIMEOUT=30 waits longer")
    return failures[0] if failures else late
