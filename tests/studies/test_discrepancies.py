"""Where paper, code and labkit differ: every switch builds, every study measures just it."""

from pathlib import Path

import pandas as pd
import pytest

from labkit import methods
from labkit.core import config
from labkit.studies import cards, runner
from labkit.studies.cards import Discrepancy, Effect
from labkit.studies.results import Results

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ENTRIES = [one for name in cards.names() for one in cards.card(name)]
EFFECTS = [(one, effect) for one in ENTRIES for effect in one.effects]


def said(one):
    return f"{one.method}: {one.point}"


def test_the_papers_and_four_baselines_have_cards():
    baselines = ["cflow", "fastflow", "csflow", "differnet"]
    assert cards.names() == ["dnfad", "dadf", "sanf", "sanflow", "selfsup", *baselines]
    for name in cards.names():
        points = [one.point for one in cards.card(name)]
        assert len(points) == len(set(points)), name
    with pytest.raises(ValueError, match="Unknown card of discrepancies 'dnfd'; did you mean"):
        cards.card("dnfd")


@pytest.mark.parametrize("one", ENTRIES, ids=said)
def test_every_setting_builds(one):
    for side in ("paper", "code", "labkit"):
        for budget in config.BUDGETS:
            built = cards.build(one, side, budget)
            texts = methods.resolve(one.method, budget=budget, overrides=one.switch(side))
            assert built == texts, "a command line takes every switch"


@pytest.mark.parametrize("one", ENTRIES, ids=said)
def test_a_switch_is_measured_or_says_why_not(one):
    assert one.effects or one.unmeasured or not one.keys
    assert not (one.effects and one.unmeasured)
    assert not one.notebook or (NOTEBOOKS / f"{one.notebook}.ipynb").is_file()
    assert one.labkit or one.keys


@pytest.mark.parametrize(
    ("one", "effect"), EFFECTS, ids=lambda x: said(x) if isinstance(x, Discrepancy) else x.study
)
def test_the_two_cells_differ_in_the_switch_alone(one, effect):
    study = runner.get(effect.study)
    if study.measure == "oracle":
        assert not effect.before
        study.tasks("laptop", variants=[effect.after])
        return
    pair = (study.tasks("laptop", variants=[one])[0] for one in (effect.before, effect.after))
    before, after = (methods.resolve(t.method, t.data, "laptop", 0, t.set) for t in pair)
    keys = [*config.keys_of(type(before.flow)), *config.keys_of(config.TrainSpec)]
    apart = {key for key in keys if before.value(key) != after.value(key)}
    assert apart, "the two cells are one"
    whole = [other for other in ENTRIES if other.method == one.method] if one.variant else [one]
    assert apart <= {key for entry in whole for key in entry.keys}


def test_switches_are_told_as_a_command_line_takes_them():
    one = next(o for o in ENTRIES if o.as_code.get("betas"))
    assert one.switch("code")["betas"] == "0.8,0.8"
    made = Discrepancy(method="dnfad", point="p", paper="a", code="b",
                       as_paper={"clip": None}, as_code={"dsam": False, "lr": 1e-4})  # fmt: skip
    assert made.switch("paper") == {"clip": "none"}
    assert made.switch("code") == {"dsam": "false", "lr": "0.0001"}
    (row,) = cards.table([made], cards.measured([made])).to_dict("records")
    assert "default `clip=2, dsam=true, lr=0.001`" in row["labkit"]
    assert "as the code `--set dsam=false` `--set lr=0.0001`" in row["labkit"]


def test_a_wrong_setting_or_file_is_refused(tmp_path):
    made = Discrepancy(method="dnfad", point="p", paper="a", code="b", as_code={"gaet": "add"})
    with pytest.raises(ValueError, match="did you mean 'gate'"):
        cards.build(made, "code")
    path = tmp_path / "dnfad.yaml"
    path.write_text("- {point: p, paper: a, code: b, as_coed: {gate: add}}\n")
    with pytest.raises(ValueError, match=r"dnfad.yaml: 0.as_coed does not fit"):
        cards.read(path)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A study with two finished cells on four images, in which `after` ranks worse."""
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path))
    tasks = runner.get("dnfad-code").tasks("quick", variants=["gate adds", "two architectures"])
    folder = runner.folder("dnfad-code", "quick")
    results = Results(runner.get("dnfad-code"), "quick", folder, tasks)
    for task, scores in zip(tasks, ([0, 1, 2, 3], [1, 0, 3, 2]), strict=True):
        metrics = {"image_auroc": 1.0 if task.variant == "gate adds" else 0.5}
        table = pd.DataFrame({"split": "test", "label": [0, 0, 1, 1], "score": scores})
        results.write(task, {"metrics": metrics}, table)


def test_an_effect_is_after_minus_before_whatever_the_studys_base(finished):
    pair = Effect(study="dnfad-code", before="gate adds", after="two architectures")
    other = Effect(study="dnfad-code", before="paper", after="gate adds", of="labkit")
    made = Discrepancy(method="dnfad", point="p", paper="<a>", code="b",
                       as_code={"gate": "add"}, effects=(pair, other),
                       notebook="dnfad/09_code")  # fmt: skip
    told = cards.measured([made], "quick")
    assert list(told["data"]) == ["procedural/gear", ""], "the second is not finished"
    row = told.iloc[0]
    assert row["difference"] == -0.5
    assert row["low"] <= row["high"]
    (card,) = cards.table([made], told).to_dict("records")
    for text in ("-0.500 [", "not run yet: `labkit study dnfad-code`"):
        assert text in card["measured, image AUROC"], text
    assert "`--set gate=add`" in card["labkit"]
    assert card["read on"] == "dnfad/09_code"
