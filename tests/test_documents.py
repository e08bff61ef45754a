"""The documents: short, their links lead somewhere, their commands and examples run."""

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

import labkit
from labkit import methods, studies
from labkit.explore import microscope
from labkit_apps.book import contents, reproduce
from labkit_apps.cli.main import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "notebooks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
CODE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
UsageError = typer.BadParameter.__base__  # of click, or of the click that typer brings


def text_of(path):
    return path.read_text(encoding="utf-8")


def examples(path, language):
    return [body for _, name, body in CODE.findall(text_of(path)) if name == language]


def commands():
    """Every command line of labkit that a document quotes, in a block or in a sentence."""
    for path in DOCUMENTS:
        blocks = "\n".join(body for _, _, body in CODE.findall(text_of(path)))
        spans = [" ".join(span.split()) for span in SPAN.findall(CODE.sub("", text_of(path)))]
        for line in [*blocks.splitlines(), *spans]:
            words = shlex.split(line, comments=True) if re.search(r"\blabkit ", line) else []
            words = words[next((k for k, word in enumerate(words) if "=" not in word), 0) :]
            if words and words[0].split("/")[-1] == "labkit":
                yield pytest.param(words[1:], id=f"{path.name}: {line.strip()}")


def parse(words):
    """Let the command line read the words, as far as its options and arguments go."""
    command, name = typer.main.get_command(app), "labkit"
    while isinstance(command, TyperGroup):
        name, command, words = command.resolve_command(command.context_class(command), words)
    if words:  # a name alone stands for the command, it is not a call
        command.make_context(name, list(words))


@pytest.mark.parametrize("words", list(commands()))
def test_a_quoted_command_parses(words):
    parse(words)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian dnfad elpv/mono", "No such command"),
        ("study main --cells a", "No such option"),
        ("study main --workers two", "valid int"),
        ("predict runs/a", "Missing"),
    ],
)
def test_a_wrong_command_does_not_parse(line, message):
    with pytest.raises(UsageError, match=message):
        parse(line.split())


def test_the_readme_is_short_and_shows_the_app():
    readme = ROOT / "README.md"
    assert len(readme.read_bytes()) <= 9_000
    for word in ("make demo", "make test", "LABKIT_BUDGET", *methods.names()):
        assert word in text_of(readme), word


def test_the_readme_names_the_packages_in_their_order():
    packages = [path.parent.name for path in (ROOT / "labkit").glob("*/__init__.py")]
    flow = re.search(r"imports only from those before it: (.*?)\.", text_of(DOCUMENTS[0]), re.S)
    assert sorted(SPAN.findall(flow[1])) == sorted(packages)
    assert SPAN.findall(flow[1]) == re.findall(r"^\| `(\w+)` \|", text_of(DOCUMENTS[1]), re.M)[:10]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_links_lead_somewhere(path):
    for link in LINK.findall(CODE.sub("", text_of(path))):
        target, _, anchor = link.partition("#")
        if not target.startswith(("https:", "http:")):
            page = path.parent / target if target else path
            assert page.exists(), f"{path.name} links to {link}"
            assert not anchor or anchor in anchors(page), f"{path.name} links to {link}"


def anchors(page):
    """Names that a page's headings have on GitHub."""
    heads = re.findall(r"^#+ (.*)$", CODE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_pictures_of_the_documents_are_used():
    shown = "".join(map(text_of, DOCUMENTS))
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert f"pictures/{picture.name})" in shown, picture


def test_the_map_of_the_notebooks_is_what_its_generator_writes():
    folder = ROOT / "notebooks"
    assert text_of(folder / "README.md") == contents.contents(folder), "run `make notebooks-map`"


def test_the_page_of_the_presets_is_what_its_generator_writes():
    assert text_of(ROOT / "docs" / "reproduce.md") == reproduce.page(), "run `make reproduce`"


def test_the_page_of_results_is_what_its_generator_writes():
    written = CliRunner().invoke(app, ["studies", "--budget", "stored", "--markdown"])
    command = "run `labkit studies --budget stored --markdown > docs/results.md`"
    assert text_of(ROOT / "docs" / "results.md") == written.stdout, command


def test_every_study_is_named():
    shown = text_of(ROOT / "docs" / "ablations.md")
    assert [n for n in studies.names() if not re.search(rf"\b{n}\b(?!-)", shown)] == []


@pytest.fixture
def guide(monkeypatch):
    """The method of the guide, in the table as if a script had put it there."""
    module = ModuleType("labkit_guide")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look there
    exec(examples(ROOT / "CONTRIBUTING.md", "python")[0], module.__dict__)
    for part in (module.Mine, module.MineSpec):
        monkeypatch.setattr(part, "__module__", "__main__")
    monkeypatch.setitem(methods.TABLE, "mine", module.Mine)


def test_the_method_of_the_guide_trains_predicts_and_shows_its_steps(guide, tmp_path):
    options = {"out": tmp_path / "run", "epochs": 2, "progress": False}
    run = labkit.train("mine", "procedural/gear", "quick", **options)
    assert run.history["mine"].is_monotonic_decreasing
    assert 0 < run.summary()["image_auroc"] <= 1
    assert run.summary()["pixel_auroc"] > 0.5
    image = run.samples()[0].read()
    (prediction,) = run.predict(image)
    assert list(prediction.maps) == ["mine"]
    (view,) = microscope.views(run.detector, image).values()
    names = ["input", "whitening of each position", "coupling 1", "coupling 2"]
    assert [step.name for step in view.steps] == names


def test_a_study_of_it_runs_beside_the_script_that_has_it(guide, tmp_path):
    path = tmp_path / "mine-blocks.yaml"
    path.write_text(
        "{title: Mine, question: Which depth, paper: labkit, source: ours, method: mine,"
        " data: [procedural/gear], seeds: [0], vary: {blocks: [1, 2]}, base: blocks=2,"
        " set: {limit: 6, image_size: 64, epochs: 1}}"
    )
    options = {"budget": "quick", "workers": 2, "progress": False, "out": tmp_path / "out"}
    results = studies.run(path, **options)
    assert not results.failed
    assert set(results.table["variant"]) == {"blocks=1", "blocks=2"}


def test_the_study_of_the_guide_is_one(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(examples(ROOT / "CONTRIBUTING.md", "yaml")[0])
    assert len(studies.get(str(path)).tasks("quick")) == 3


def test_a_notebook_is_named_as_it_is_called():
    """`dnfad/09_code`, or its file name in the generated map; never a name of version 0.1."""
    stems = {path.stem for path in (ROOT / "notebooks").rglob("*.ipynb")}
    for path in DOCUMENTS:
        for name in re.findall(r"`(?:\w+/)?(\d\d_\w+)`", text_of(path)):
            assert name in stems, f"{path.name} names {name}"
