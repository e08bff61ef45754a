"""The map of the notebooks: each notebook once, in reading order, in its first cell's words."""

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from labkit_apps.book import contents

FIRST = """# {title}

**Question.** See [`10_flow`](../course/10_flow.ipynb): is $a|b$ small?
And why?

**The paper's claim.** None.

**Run time** on two CPU cores at the `laptop` budget: about {time} (9 trainings), then less."""


def write(path, title, time="ten minutes"):
    path.parent.mkdir(parents=True, exist_ok=True)
    cell = new_markdown_cell(FIRST.format(title=title, time=time))
    nbformat.write(new_notebook(cells=[cell]), path)


@pytest.fixture
def folder(tmp_path):
    for name in ("dadf/20_dadf", "dnfad/11_depth", "dnfad/10_dnfad", "course/00_start", "own/x"):
        write(tmp_path / f"{name}.ipynb", name.split("/")[1].title())
    write(tmp_path / "dnfad" / ".ipynb_checkpoints" / "10_dnfad-checkpoint.ipynb", "No")
    return tmp_path


def test_folders_are_in_reading_order_and_files_by_name(folder):
    chapters = contents.chapters(folder)
    assert list(chapters) == ["Course", "DNFAD", "DADF", "own"]
    assert [path.stem for path in chapters["DNFAD"]] == ["10_dnfad", "11_depth"]


def test_a_row_has_link_title_question_and_time(folder):
    rows = [line for line in contents.contents(folder).splitlines() if "10_dnfad.ipynb" in line]
    assert rows == [
        "| [`10_dnfad`](dnfad/10_dnfad.ipynb): 10_Dnfad | See `10_flow`: is $a\\|b$ small? "
        "And why? | about ten minutes |"
    ]


def test_notebooks_without_folders_make_one_table(tmp_path):
    write(tmp_path / "02_b.ipynb", "B", "half an hour")
    write(tmp_path / "01_a.ipynb", "A")
    text = contents.contents(tmp_path)
    assert "## " not in text
    assert text.index("(01_a.ipynb)") < text.index("(02_b.ipynb): B") < text.index("half an hour")


@pytest.mark.parametrize(
    ("words", "time"),
    [
        ("on two CPU cores: hours at the `laptop` budget the first time, then less.", "hours"),
        (
            "on a laptop: nothing if `24_x` has run, whose trainings serve.",
            "nothing if `24_x` has run",
        ),
        ("half a minute; more at `paper`.", "half a minute"),
        ("on two cores: seconds.", "seconds"),
    ],
)
def test_the_time_is_the_first_one_that_is_given(words, time):
    assert contents.TIME.search(f"**Run time** {words}")[1] == time
