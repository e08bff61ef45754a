"""VisA in the 1-class protocol: as its authors pack it, or as their script rearranges it.

    candle/Data/Images/{Normal,Anomaly}/*.JPG    candle/Data/Masks/Anomaly/*.png
    split_csv/1cls.csv (object, split, label, image, mask; paths from the folder of the dataset)

The rearranged copy, `VisA_pytorch/1cls/candle`, has MVTec AD's layout with `test/bad`. A stem may
be in both `Normal` and `Anomaly`. A mask holds numbers of kinds of defects, or 255.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from labkit.core.records import GOOD
from labkit.data import layout
from labkit.data.benchmarks import mvtec
from labkit.data.decode import first_line
from labkit.data.layout import TEST, TRAIN, Picture, Scan

LABELS = {"normal": GOOD, "anomaly": "bad"}
COLUMNS = ["object", "split", "label", "image", "mask"]
LIST = "split_csv/1cls.csv"


def scan(folder: Path) -> Scan:
    """The files of one category; the list of its split lies beside its folder.

    Raises: ValueError if the list of the split cannot be read.
    """
    place, category = folder.parent, folder.name
    if (folder / "train").is_dir() or not (folder / "Data").is_dir():
        return mvtec.scan(folder)
    if not (place / LIST).is_file():
        return Scan((), (layout.absent(place, LIST),))
    rows = [row for row in read_rows(place / LIST) if row["object"] == category]
    pictures, masks, faults = [], {}, []
    for row in rows:
        picture = Picture(row["split"], LABELS[row["label"]], place / row["image"])
        if not picture.path.is_file():
            fault = layout.absent(place, row["image"])
            faults.append(replace(fault, key=picture.key))
            continue
        pictures.append(picture)
        if row["mask"] and (place / row["mask"]).is_file():
            masks[picture.key] = (place / row["mask"],)
    truth = folder / "Data" / "Masks" / "Anomaly"
    listed = layout.paired(pictures, masks, lambda p: truth / f"{p.path.stem}.png")
    return Scan(listed.pictures, (*faults, *listed.faults))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the split.

    Raises: ValueError if it is no such list.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)[COLUMNS]
    except (ValueError, KeyError) as error:
        reason = f"{path} cannot be read ({first_line(error)}); unpack the archive again."
        raise ValueError(reason) from None
    if not (table["split"].isin([TRAIN, TEST]) & table["label"].isin(LABELS)).all():
        raise ValueError(
            f"{path} has other values than split train or test and label normal or anomaly; "
            "unpack the archive again."
        )
    return table.to_dict("records")
