"""VisA in the 1-class protocol: as its authors pack it, or as their script rearranges it.

    candle/Data/Images/{Normal,Anomaly}/*.JPG    candle/Data/Masks/Anomaly/*.png
    split_csv/1cls.csv (object, split, label, image, mask; paths from the folder of the dataset)

The rearranged copy, `VisA_pytorch/1cls/candle`, has MVTec AD's layout with `test/bad`. A stem may
be in both `Normal` and `Anomaly`. A mask holds numbers of kinds of defects, or 255.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from labkit.core.records import GOOD
from labkit.data import images, layout
from labkit.data.benchmarks import mvtec
from labkit.data.layout import TEST, TRAIN, Fault, Picture, Scan

LABELS = {"normal": GOOD, "anomaly": "bad"}
COLUMNS = ("object", "split", "label", "image", "mask")
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
    named = {picture.path for picture in pictures} | {mask for (mask,) in masks.values()}
    parts = (*layout.folders(folder / "Data/Images"), *layout.folders(folder / "Data/Masks"))
    for file in (file for part in parts for file in images.image_files(part)):
        if file not in named:
            sentence = f"{file} is not in {LIST}; it is left out."
            faults.append(Fault(layout.SURPLUS, str(file), sentence, fatal=False))
    truth = folder / "Data" / "Masks" / "Anomaly"
    listed = layout.paired(pictures, masks, lambda p: truth / f"{p.path.stem}.png")
    return Scan(listed.pictures, (*faults, *listed.faults))


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of the split.

    Raises: ValueError if it is no such list.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); unpack the archive again.") from None
    for number, row in enumerate(rows or [{}], start=2):
        fits = all(isinstance(row.get(column), str) for column in COLUMNS)
        if not fits or row["split"] not in (TRAIN, TEST) or row["label"] not in LABELS:
            raise ValueError(
                f"{path} has no row {','.join(COLUMNS)} with split train or test and label "
                f"normal or anomaly in line {number}; unpack the archive again."
            )
    return rows
