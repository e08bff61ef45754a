"""The map of the notebooks, from their first cells.

python -m labkit_apps.book.contents notebooks      writes notebooks/README.md
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

PARTS = {  # folder of notebooks -> its heading; parents come before their children
    "course": "Course", "baselines": "Baselines", "dnfad": "DNFAD", "dadf": "DADF", "sanf": "SANF",
    "sanflow": "SANFlow", "selfsup": "Self-supervised flows", "compare": "All methods",
}  # fmt: skip
INTRO = """# The notebooks

Each notebook asks one question. It shows the equation, makes one call, draws what the equation
does, and ends with exercises and with what it does not show.

    LABKIT_BUDGET=laptop .venv/bin/jupyter lab notebooks

`LABKIT_BUDGET` is the training effort. `quick`, the default, takes less than half a minute per
notebook; its numbers mean nothing. `laptop` computes the stored outputs on two CPU cores. `paper`
takes the paper's size and epochs; it wants a GPU. The last column is the time of the first run at
`laptop`; a second run reads stored results and takes one or two minutes."""
QUESTION = re.compile(r"\*\*Question\.?\*\*\s*(.+?)(?:\n\s*\n|\Z)", re.DOTALL)
TIME = re.compile(
    r"\*\*Run time\*\*(?:[^.:]*:)?\s*(.+?)(?: at the `laptop`| the first time|,|;| \(|\.(?:\s|\Z))"
)
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")  # relative to the notebook, not to the map


def chapters(folder: Path) -> dict[str, list[Path]]:
    """Headings with their notebooks by name, in reading order; "" heads what is in no folder."""
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_" not in str(path)]
    homes = {path.parent.relative_to(folder).as_posix() for path in paths}
    order = sorted(homes, key=lambda home: ([".", *PARTS, home].index(home), home))
    headings = {home: "" if home == "." else PARTS.get(home, home) for home in order}
    return {headings[home]: [p for p in paths if p.parent == folder / home] for home in order}


def contents(folder: Path) -> str:
    """The map as Markdown: a table per folder, with title, question and run time."""
    lines = [INTRO]
    for heading, paths in chapters(folder).items():
        rows = ["| notebook | question | first run |", "|---|---|---|"]
        table = "\n".join([*rows, *(_row(path, folder) for path in paths)])
        lines.append(f"## {heading}\n\n{table}" if heading else table)
    return "\n\n".join(lines) + "\n"


def _row(path: Path, folder: Path) -> str:
    source = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
    first = LINK.sub(r"\1", "".join(source)).replace("|", r"\|")
    parts = [match[1] if match else "" for match in (QUESTION.search(first), TIME.search(first))]
    name = f"[`{path.stem}`]({path.relative_to(folder).as_posix()})"
    cells = [f"{name}: {first.splitlines()[0].lstrip('# ')}", *parts]
    return f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |"


if __name__ == "__main__":
    (Path(sys.argv[1]) / "README.md").write_text(contents(Path(sys.argv[1])), encoding="utf-8")
