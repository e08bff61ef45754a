"""Cards against the papers' own lists: every row is answered, and the preset says its numbers."""

import re

import pandas as pd
import pytest

from labkit import methods
from labkit.methods import cards
from labkit.studies import published

TABLE = pd.read_csv(published.FOLDER / "hyperparameters.csv", dtype=str)
PAPERS = sorted(set(TABLE.paper))
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")


def numbers(value):
    """The numbers in a setting."""
    values = value if isinstance(value, list | tuple) else [value]
    return [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]


@pytest.mark.parametrize("paper", PAPERS)
def test_every_row_of_a_paper_is_answered(paper):
    answered = {row for entry in cards.read(cards.FOLDER / f"{paper}.yaml") for row in entry.rows}
    assert answered == set(TABLE[TABLE.paper == paper].name)


@pytest.mark.parametrize("paper", PAPERS)
def test_a_preset_says_the_numbers_of_its_rows(paper):
    values = TABLE[TABLE.paper == paper].set_index("name").value
    checked = 0
    for entry in cards.read(cards.FOLDER / f"{paper}.yaml"):
        printed = [float(n) for row in entry.rows for n in NUMBER.findall(values[row])]
        of_rows = entry.rows and not entry.variant
        for key, value in entry.as_paper.items() if of_rows else ():
            for number in numbers(value) if key != "taps" else ():  # printed in words
                share = number * 100  # a share is printed in percent
                assert {number, share} & set(printed) or number == 0, (entry.point, key, value)
                checked += 1
    assert checked > 1


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("preset", list(cards.PRESETS))
def test_the_paper_budget_is_the_card(paper, preset):
    given = cards.preset(paper, preset, "mvtec_ad/bottle")
    config = methods.resolve(paper, "mvtec_ad/bottle", "paper", overrides={"preset": preset})
    written = methods.resolve(paper, "mvtec_ad/bottle", "quick", overrides=given)
    assert all(config.value(key) == written.value(key) for key in given)
    assert set(cards.origin(paper, preset, "mvtec_ad/bottle")) == set(given)
    if preset == "paper":
        assert config == methods.resolve(paper, "mvtec_ad/bottle", "paper")


def test_a_card_that_contradicts_itself_is_refused(tmp_path, monkeypatch):
    text = "- {point: a, paper: x, code: y, as_paper: {lr: 1}}\n"
    (tmp_path / "two.yaml").write_text(text + text.replace("a,", "b,").replace("1", "2"))
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="says lr=1 under 'a' and lr=2 under 'b'"):
        cards.preset("two", "paper")


def test_sizes_count_at_the_paper_budget_and_datasets_have_their_own(tmp_path, monkeypatch):
    entries = ["{point: a, paper: x, code: y, size: true, as_paper: {lr: 1}}",
               "{point: b, paper: x, code: y, as_paper: {clamp: 3}, as_code: {clamp: 2, eps: 4}}",
               "{point: c, paper: x, code: y, as_paper: {clamp: 9}, data: [stc]}",
               "{point: d, paper: x, code: y, as_paper: {clamp: 7}, variant: true}"]  # fmt: skip
    (tmp_path / "m.yaml").write_text("".join(f"- {entry}\n" for entry in entries))
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    assert cards.preset("m", "paper", "gear") == {"clamp": 3, "eps": 4, "lr": 1}
    assert cards.preset("m", "paper", "gear", large=False) == {"clamp": 3, "eps": 4}
    assert cards.preset("m", "paper", "stc/01", large=False) == {"clamp": 9, "eps": 4}
    assert cards.preset("m", "official", "gear") == {"clamp": 2, "eps": 4, "lr": 1}
    assert cards.origin("m", "official")["lr"] == "paper"
