"""Every failure reaches the visitor as a sentence, without the folders of the server.

What does not fit is one line of the log; a fault of the app keeps its traceback there.
"""

import html
import logging
import math
import re
from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block, BlockFunction
from starlette.concurrency import run_in_threadpool

from labkit_apps.web.pictures import as_files

NOTICE = 20  # seconds an error stays on the page
FAULT = "The app failed at this; its log says why. Try something else, and tell the owner."
FILE = "A file came that was not uploaded; send the file itself, with handle_file(PATH)."
SCALAR = (str, int, float)
_FOLDERS = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:)?[\\/](?:[^\s'\"<>|:;,/\\]+[\\/])+")
log = logging.getLogger(__name__)


def names_only(text: object) -> str:
    """A sentence whose absolute paths have lost their folders.

    >>> names_only("There is no folder /srv/lab/runs/mine; check the path.")
    'There is no folder mine; check the path.'
    """
    return _FOLDERS.sub("", str(text))


class ExplainedBlocks(gr.Blocks):
    """Blocks that say what does not fit; a handler may raise a ValueError with the sentence."""

    async def preprocess_data(self, block_fn: BlockFunction, inputs: list, *rest: Any) -> list:
        """As Gradio does it, once each value is of the kind that its component takes."""
        try:
            _check(block_fn.inputs, inputs)
            return await super().preprocess_data(block_fn, inputs, *rest)
        except (gr.Error, ValueError, TypeError, LookupError, AttributeError) as error:
            own = isinstance(error, gr.Error | _Unfit)
            raise _refused(getattr(error, "message", error) if own else FILE) from None

    async def call_function(self, *values: Any, **more: Any) -> dict:
        """As Gradio does it; a ValueError is for the visitor."""
        try:
            return await super().call_function(*values, **more)
        except ValueError as error:
            raise _refused(error) from None

    async def postprocess_data(self, block_fn: BlockFunction, values: Any, *rest: Any) -> list:
        """As Gradio does it, once the pictures are files."""
        values = await run_in_threadpool(as_files, values)
        return await super().postprocess_data(block_fn, values, *rest)

    async def process_api(self, block_fn: BlockFunction | int, *values: Any, **more: Any) -> dict:
        """As Gradio does it, the log being told."""
        try:
            return await super().process_api(block_fn, *values, **more)
        except gr.Error as error:
            name = getattr(block_fn, "api_name", block_fn)
            error.message = names_only(error.message)
            log.warning("refused /%s: %s", name, " ".join(str(error.message).split())[:300])
            raise
        except Exception as error:
            raise gr.Error(FAULT, NOTICE) from error


class _Unfit(ValueError):
    """A value of another kind than its component takes."""


def _refused(sentence: object) -> gr.Error:
    words = html.escape(str(sentence), quote=False)
    return gr.Error(words, NOTICE, print_exception=False)


def _check(blocks: Sequence[Block], values: list) -> None:
    if len(values) < len(blocks):
        raise _Unfit(f"{len(values)} values came where {len(blocks)} belong; see /?view=api.")
    for block, value in zip(blocks, values, strict=False):
        words = _unfit(block, value)
        if words:
            name = getattr(block, "label", None) or block.get_block_name()
            raise _Unfit(f"{name}: {str(value)!r:.60} does not fit; give {words}.")


def _unfit(block: Block, value: Any) -> str:
    """What the component takes instead, or nothing."""
    if isinstance(block, gr.Number | gr.Slider):
        number = isinstance(value, int | float) and abs(value) < 1e15 and math.isfinite(value)
        empty = value is None and isinstance(block, gr.Number)
        return "" if number or empty else "a number"
    if isinstance(block, gr.Textbox) and not isinstance(value, str | None):
        return "text"
    if isinstance(block, gr.Dropdown | gr.Radio) and value is not None:
        several = isinstance(block, gr.Dropdown) and block.multiselect
        if not (isinstance(value, list) if several else isinstance(value, SCALAR)):
            return "names, in a list" if several else "a name"
        if several and not all(isinstance(one, str) for one in value):
            return "a list of names"
    return ""
