"""Run notebooks at a budget, several at once; what has run is kept and not run again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from tqdm.auto import tqdm

from labkit.core.config import BUDGETS, unknown
from labkit.core.files import write_whole

FORMAT = 4


def found(folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """The notebooks of a folder by their numbers, or those named (`10_dnfad`, or `10`).

    Raises: ValueError if the folder has none, or not one that is named.
    """
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"{folder} holds no notebooks; give --notebooks FOLDER.")
    for name in names or ():
        if not any(_is(path, name) for path in paths):
            raise ValueError(unknown("notebook", name, [path.stem for path in paths]))
    return [path for path in paths if not names or any(_is(path, name) for name in names)]


def execute(
    paths: Sequence[Path],
    budget: str,
    out: Path,
    workers: int | None = None,
    again: bool = False,
    progress: bool = True,
) -> Iterator[tuple[Path, Path | None, str]]:
    """Run each notebook in a kernel of its own, `workers` at once (two cores each if None).

    One that has run before with the same cells, budget and version of labkit is not run again
    (`again=True` does). A notebook that fails is told of and the others go on.

    Yields:  the notebook, the executed one or None, and what went wrong.
    Raises:  ValueError for an unknown budget.
    """
    if budget not in BUDGETS:
        raise ValueError(unknown("budget", budget, BUDGETS))
    kept = {path: out / "executed" / budget / f"{path.stem}-{_key(path)}.ipynb" for path in paths}
    missing = [path for path in paths if again or not kept[path].exists()]
    cores = os.cpu_count() or 1
    workers = min(workers or max(1, cores // 2), max(1, len(missing)))
    told = {
        "LABKIT_BUDGET": budget,
        "LABKIT_STATIC": "1",  # a picture in place of a live panel
        "OMP_NUM_THREADS": str(max(1, cores // workers)),
    }
    yield from ((path, kept[path], "") for path in paths if path not in missing)
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(missing), desc="executing", unit="notebook", disable=not progress) as bar,
    ):
        futures = {pool.submit(_run, path, kept[path], told): path for path in missing}
        try:
            for future in as_completed(futures):
                path, error = futures[future], future.result()
                bar.update()
                bar.set_postfix_str(path.stem)
                yield path, None if error else kept[path], error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _run(path: Path, kept: Path, settings: dict[str, str]) -> str:
    """Execute a notebook where it lies and keep the result; the error in one line if it fails."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    book = nbformat.read(path, as_version=FORMAT)
    client = NotebookClient(
        book,
        timeout=None,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        record_timing=False,
    )
    try:
        client.execute(env=os.environ | settings)
    except CellExecutionError as error:
        return f"cell {_cell(book)} raised {error.ename}: {error.evalue}".split("\n")[0]
    except DeadKernelError:
        return f"its kernel died in cell {_cell(book)}, perhaps for want of memory"
    write_whole(kept, lambda part: nbformat.write(book, part))
    return ""


def _cell(book: NotebookNode) -> int:
    """The number of the cell that was run last, counted from 1 among the code cells."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    return max([k for k, cell in enumerate(code, 1) if cell.get("execution_count")], default=1)


def _key(path: Path) -> str:
    """Eight hex digits of a notebook's cells and of labkit's version."""
    book = nbformat.read(path, as_version=FORMAT)
    cells = "\0".join(f"{cell.cell_type}:{cell.source}" for cell in book.cells)
    return hashlib.sha256(f"{version('labkit')}\0{cells}".encode()).hexdigest()[:8]


def _is(path: Path, name: str) -> bool:
    return path.stem == name or path.stem.split("_")[0] == name
