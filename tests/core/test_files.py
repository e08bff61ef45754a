"""Files are whole whoever writes them, words stay words, and random starts are one's own."""

from threading import Barrier, Thread

import pandas as pd
import pytest
import torch

import labkit
from labkit import methods
from labkit.core.files import read_table, write_whole
from labkit.core.records import Shapes
from labkit.core.seeds import seeded


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    path, both, failed = tmp_path / "features", Barrier(2), []

    def write(text):
        def slowly(place):
            place.write_text(text)
            both.wait(10)

        try:
            write_whole(path, slowly)
        except ValueError as error:
            failed.append(error)

    threads = [Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert path.read_text() in ("one", "two")
    assert [file.name for file in tmp_path.iterdir()] == ["features"]


def test_a_folder_in_which_no_file_can_be_made_is_refused_at_once():
    with pytest.raises(ValueError, match=r"/proc/self cannot be used .*; give another --out"):
        labkit.train("padim", "procedural/gear", "quick", out="/proc/self", progress=False)


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan", "007"])
def test_a_kind_of_defect_may_have_any_name(tmp_path, name):
    table = pd.DataFrame({"key": [f"test/{name}/1"], "split": "test", "defect": name,
                          "label": 1, "score": 2.5, "p_value": 0.1})  # fmt: skip
    table.to_csv(tmp_path / "scores.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "scores.csv"), table)


def test_another_thread_waits_for_its_random_start():
    spec, shapes = methods.resolve("fastflow", budget="quick"), Shapes((64, 64), ((8, 8, 8),))

    def drawn():
        return torch.cat([p.flatten() for p in methods.build(spec, shapes).parameters()])

    alone, state = drawn(), torch.get_rng_state()
    other = Thread(target=drawn)
    with seeded(spec.seed):
        other.start()
        other.join(0.3)
        assert other.is_alive()
        here = drawn()
    other.join(10)
    assert torch.equal(alone, here)
    assert torch.equal(state, torch.get_rng_state())
