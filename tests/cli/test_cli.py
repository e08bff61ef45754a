"""The commands as a user types them; bad input is one line and exit code 2."""

import json
import os
from functools import partial

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture(tmp_path, quick_run):
    path = tmp_path / "part.png"
    Image.fromarray(quick_run.samples()[-1].read()).save(path)
    return path


def test_data_list_knows_every_dataset(labkit):
    code, out, _ = labkit("data", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["elpv/mono"]["n_train"] == 412
    assert sum(name.startswith("procedural/") for name in rows) >= 6
    assert {"licence", "found", "how_to_get"} <= set(rows["elpv/mono"])


def test_train_prints_the_stored_run(labkit, quick_run):
    code, out, _ = labkit(
        "train", "dnfad", "procedural/gear", "--budget", "quick", "--set", "limit=6", "--json"
    )
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(quick_run.summary()))


def test_evaluate_and_predict(labkit, quick_run, picture, tmp_path):
    code, out, _ = labkit("evaluate", quick_run.folder, "--json")
    assert code == 0
    assert json.loads(out)["image_auroc"] == quick_run.info["metrics"]["image_auroc"]
    code, out, _ = labkit("predict", quick_run.folder, picture, "--out", tmp_path / "o", "--json")
    (row,) = json.loads(out)
    assert row["score"] == quick_run.predict(picture)[0].score
    assert Image.open(row["overlay"]).size[0] > 300
    assert set(np.load(row["maps"])) == {"global", "local", "fused"}
    assert json.loads((tmp_path / "o" / "predictions.json").read_text()) == [row]
    assert row["image"] == str(picture)
    code, out, _ = labkit("predict", quick_run.folder, picture)
    assert "p = " in out


def test_equal_names_stay_apart_and_a_bad_file_keeps_its_row(labkit, quick_run, tmp_path):
    image = Image.fromarray(quick_run.samples()[-1].read())
    names = ["a/000.png", "b/000.png", f"b/{'ö' * 120}.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    (tmp_path / "a" / "bad.png").write_text("no image")
    names.insert(1, "a/bad.png")
    code, out, err = labkit(
        "predict", quick_run.folder, tmp_path, "--out", tmp_path / "o", "--json"
    )
    rows = json.loads(out)
    assert code == 1
    assert err.count("\n") == 1
    assert "bad.png" in err
    assert [row["image"] for row in rows] == [str(tmp_path / name) for name in names]
    assert [row["score"] is None for row in rows] == [False, True, False, False]
    assert "bad.png" in rows[1]["fault"]
    files = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert len(files) == 7
    assert files[:3] == ["000-a-000.npz", "000-a-000.png", "002-b-000.npz"]
    assert json.loads((tmp_path / "o" / "predictions.json").read_text()) == rows
    code, out, _ = labkit("predict", quick_run.folder, tmp_path / "a", "--csv")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "image,score,quantile,p_value,fault"
    assert lines[1].startswith(f"{tmp_path / 'a' / '000.png'},{rows[0]['score']},")
    assert len(lines) == 3
    code, out, _ = labkit("predict", quick_run.folder, tmp_path / "a" / "000.png")
    assert code == 0
    assert out.startswith(str(tmp_path / "a" / "000.png"))


BAD = {
    "truncated.png": lambda path: path.write_bytes(_png()[:200]),
    "text.png": lambda path: path.write_text("not an image"),
    "empty.png": lambda path: path.write_bytes(b""),
    "tiny.png": lambda path: Image.new("RGB", (1, 1)).save(path),
    "huge.png": lambda path: Image.new("1", (20_000, 20_000)).save(path),
    "missing.png": lambda path: None,
}


def _png():
    from io import BytesIO

    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_one_sentence_that_names_it(labkit, quick_run, tmp_path, name):
    path = tmp_path / name
    BAD[name](path)
    code, out, err = labkit("predict", quick_run.folder, path, "--out", tmp_path / "out")
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert name in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "CMYK"])
def test_unusual_but_whole_images_just_work(labkit, quick_run, tmp_path, mode):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    grey = Image.fromarray(noise)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        Image.fromarray(noise.astype(np.uint16) * 257).save(path)
    else:
        grey.convert("RGB").convert(mode).save(path)
    code, out, _ = labkit("predict", quick_run.folder, path, "--json")
    assert code == 0
    assert np.isfinite(json.loads(out)[0]["score"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "dnfda", "elpv/mono"], "did you mean 'dnfad'"),
        (["train", "dnfad", "elpv/mon"], "elpv/mono"),
        (["train", "dnfad", "elpv/mono", "--backbone", "resnet81"], "did you mean 'resnet18'"),
        (["train", "dnfad", "elpv/mono", "--set", "blcks=4"], "did you mean 'blocks'"),
        (["train", "dnfad", "elpv/mono", "--set", "blocks"], "has no '='"),
        (["train", "dnfad", "elpv/mono", "--set", "seed=3"], "Unknown key 'seed'; use --seed 3."),
        (["train", "dnfad", "elpv/mono", "--set", "root=/"], "use --root FOLDER"),
        (["train", "dnfad", "elpv/mono", "--set", "stop=1"], "use labkit.train in Python"),
        (["train", "dnfad", "elpv/mono", "--set", "lr=10"], "less than or equal to 1"),
        (["train", "dnfad", "elpv/mono", "--set", "blocks=1000000"], "equal to 512"),
        (["train", "knn", "elpv/mono", "--set", "preset=x"], "there is none to choose from"),
        (["train", "dnfad", "elpv/mono", "--seed", "-1"], "seed=-1 does not fit"),
        (["train", "dnfad", "elpv/mono", "--seed", "9" * 19], "does not fit"),
        (["train", "dnfad", "elpv/mono", "--seed", "x"], "'--seed'"),
        (["train", "dnfad"], "give a dataset, a folder, or --good GLOB"),
        (["train", "x" * 50_000, "elpv/mono"], "Unknown method"),
        (["study", "dnfad-depth", "--seeds", "²"], "seed='²' does not fit"),
        (["bench", "flows", "--data", "nope"], "There is no dataset or folder 'nope'"),
        (["bench", "scaling", "--data", "nope"], "There is no dataset or folder 'nope'"),
        (["bench", "faults", "--only", "imgs"], "did you mean 'images'"),
        (["train", "dnfad", "elpv/mono", "--budget", "huge"], "quick, laptop, paper"),
        (["evaluate", "nowhere"], "There is no run folder nowhere"),
        (["data", "check", "elpv/quarto"], "elpv/"),
    ],
)
def test_unknown_names_are_one_sentence(labkit, arguments, said):
    code, out, err = labkit(*arguments)
    assert code == 2
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_a_name_that_is_no_utf_8_is_one_sentence(labkit, tmp_path):
    for k in range(20):
        Image.new("L", (32, 32), k).save(tmp_path / f"{k}.png")
    os.rename(tmp_path / "3.png", os.fsencode(tmp_path) + b"/odd\xff.png")
    code, _, err = labkit("train", "knn", tmp_path, "--budget", "quick", "--set", "image_size=32")
    assert code in (0, 2)
    assert code == 0 or ("odd\\udcff" in err and err.count("\n") == 1)


def test_a_group_without_a_command_shows_its_help(labkit):
    code, out, err = labkit("data")
    assert code == 2
    assert "labkit data [OPTIONS]" in out + err


def test_what_does_not_fit_into_memory_is_one_sentence(labkit, monkeypatch):
    fault = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
    monkeypatch.setattr("labkit.training.train.train", partial(_fails, RuntimeError(fault)))
    code, _, err = labkit("train", "knn", "elpv/mono")
    assert (code, err.count("\n")) == (2, 1)
    assert "there is not enough memory" in err
    monkeypatch.setattr("labkit.training.train.train", partial(_fails, RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        labkit("train", "knn", "elpv/mono")
    monkeypatch.setattr("labkit.training.train.train", partial(_fails, KeyboardInterrupt()))
    code, _, err = labkit("train", "knn", "elpv/mono")
    assert (code, err) == (130, "labkit: stopped; the same command goes on from the last epoch.\n")


def _fails(error, *arguments, **settings):
    raise error
