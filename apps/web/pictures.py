"""Pictures as files of the server's cache, each written whole and once.

Gradio writes a picture again for every visitor who is shown it, also while another is being sent
that very file, who then gets half of it. All its servers on a machine share one cache, where
equal pictures have one name, and each takes its pictures away when it stops: hence `own_folder`.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gradio.processing_utils import encode_pil_to_bytes, hash_bytes
from gradio.utils import get_upload_folder
from PIL import Image

from labkit.core.files import write_whole


@functools.cache
def own_folder() -> tempfile.TemporaryDirectory:
    """The folder of this process's uploads and pictures, gone with it; no other server's."""
    folder = tempfile.TemporaryDirectory(prefix="labkit-", dir=os.environ.get("GRADIO_TEMP_DIR"))
    os.environ["GRADIO_TEMP_DIR"] = folder.name
    return folder


def as_files(value: Any) -> Any:
    """What a handler returns, each picture (H, W, 3) uint8 in it as the path of its file."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3:
        return _written(value)
    if type(value) in (list, tuple):
        return type(value)(map(as_files, value))
    return {key: as_files(one) for key, one in value.items()} if type(value) is dict else value


def _written(picture: np.ndarray) -> str:
    content = encode_pil_to_bytes(Image.fromarray(picture), "webp")
    path = Path(get_upload_folder()).resolve() / hash_bytes(content) / "image.webp"
    if path.is_file():
        os.utime(path)  # its age, after which Gradio deletes it, counts from now
    else:
        write_whole(path, lambda whole: whole.write_bytes(content))
    return str(path)
