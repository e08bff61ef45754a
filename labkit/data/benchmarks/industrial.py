"""Photographs of products with defects: what is known of each dataset, and which reader opens it.

Counts, sizes and checksums are of the published files (MVTec LOCO's and BTAD's differ from their
papers' tables). Each category is a dataset of its own: one model a category, then the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from labkit.core.records import GOOD
from labkit.data import layout
from labkit.data.benchmarks import dagm, loco, mvtec, visa
from labkit.data.entry import Archive, Entry, Samples, Source, data_root
from labkit.data.layout import Scan

BINARY = frozenset({0, 255})
MVTEC = "https://www.mydrive.ch/shares"
ZENODO = "https://zenodo.org/record/8086136"

# category: train, test good, test bad, width and height
MVTEC_AD = {
    "bottle": (209, 20, 63, 900),
    "cable": (224, 58, 92, 1024),
    "capsule": (219, 23, 109, 1000),
    "carpet": (280, 28, 89, 1024),
    "grid": (264, 21, 57, 1024),
    "hazelnut": (391, 40, 70, 1024),
    "leather": (245, 32, 92, 1024),
    "metal_nut": (220, 22, 93, 700),
    "pill": (267, 26, 141, 800),
    "screw": (320, 41, 119, 1024),
    "tile": (230, 33, 84, 840),
    "toothbrush": (60, 12, 30, 1024),
    "transistor": (213, 60, 40, 1024),
    "wood": (247, 19, 60, 1024),
    "zipper": (240, 32, 119, 1024),
}
# category: train, calibration, test good, logical, structural, (width, height)
MVTEC_LOCO = {
    "breakfast_box": (351, 62, 102, 83, 90, (1600, 1280)),
    "juice_bottle": (335, 54, 94, 142, 94, (800, 1600)),
    "pushpins": (372, 69, 138, 91, 81, (1700, 1000)),
    "screw_bag": (360, 60, 122, 137, 82, (1600, 1100)),
    "splicing_connectors": (360, 60, 119, 108, 85, (1700, 850)),
}
# category: train, test good, test bad, (width, height)
VISA = {
    "candle": (900, 100, 100, (1284, 1168)),
    "capsules": (542, 60, 100, (1500, 1000)),
    "cashew": (450, 50, 100, (1274, 1176)),
    "chewinggum": (453, 50, 100, (1342, 1118)),
    "fryum": (450, 50, 100, (1500, 1000)),
    "macaroni1": (900, 100, 100, (1500, 1000)),
    "macaroni2": (900, 100, 100, (1500, 1000)),
    "pcb1": (904, 100, 100, (1404, 1070)),
    "pcb2": (901, 100, 100, (1404, 1070)),
    "pcb3": (905, 101, 100, (1562, 960)),
    "pcb4": (904, 101, 100, (1358, 1104)),
    "pipe_fryum": (450, 50, 100, (1300, 1154)),
}
BTAD = {
    "01": (400, 21, 49, (1600, 1600)),
    "02": (399, 30, 200, (600, 600)),
    "03": (1000, 400, 41, (800, 600)),
}
# category: train, test good, defects
MPDD = {
    "bracket_black": (289, 32, {"hole": 12, "scratches": 35}),
    "bracket_brown": (185, 26, {"bend_and_parts_mismatch": 17, "parts_mismatch": 34}),
    "bracket_white": (110, 30, {"defective_painting": 13, "scratches": 17}),
    "connector": (128, 30, {"parts_mismatch": 14}),
    "metal_plate": (54, 26, {"major_rust": 14, "scratches": 34, "total_rust": 23}),
    "tubes": (122, 32, {"anomalous": 69}),
}
# defective Train and Test images of 575 each, from Class7 on of 1,150 each
DAGM = (*((79, 71), (66, 84), (66, 84), (82, 68), (70, 80), (83, 67)), *[(150, 150)] * 4)
DAGM_CLASSES = tuple(f"Class{k + 1}" for k in range(len(DAGM)))

SOURCES = {
    "mvtec_ad": Source(
        name="mvtec_ad",
        title="MVTec AD (Bergmann et al. 2019, 2021)",
        licence="CC BY-NC-SA 4.0",
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        folders=("mvtec_ad", "mvtec_anomaly_detection", "MVTecAD", "MVTec"),
        holds=tuple(MVTEC_AD),
        archives=(
            Archive(
                f"{MVTEC}/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/"
                "mvtec_anomaly_detection.tar.xz",
                5_264_982_680,
                "sha256:cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
            ),
        ),
        size=5_264_982_680,
    ),
    "mvtec_loco": Source(
        name="mvtec_loco",
        title="MVTec LOCO AD, logical and structural anomalies (Bergmann et al. 2022)",
        licence="CC BY-NC-SA 4.0",
        page="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        folders=("mvtec_loco", "mvtec_loco_anomaly_detection", "MVTecLOCO"),
        holds=tuple(MVTEC_LOCO),
        archives=(
            Archive(
                f"{MVTEC}/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/430647091-1646842701/"
                "mvtec_loco_anomaly_detection.tar.xz",
                6_126_996_224,
                "sha256:9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
            ),
        ),
        size=6_126_996_224,
    ),
    "visa": Source(
        name="visa",
        title="VisA, 1-class protocol (Zou et al. 2022)",
        licence="CC BY 4.0",
        page="https://github.com/amazon-science/spot-diff",
        folders=("visa", "VisA_20220922", "VisA_pytorch"),
        holds=(*VISA, "1cls"),
        archives=(
            Archive(
                "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
                1_929_840_640,
                "sha256:2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
            ),
        ),
        size=1_929_840_640,
    ),
    "btad": Source(
        name="btad",
        title="BTAD, beanTech (Mishra et al. 2021)",
        licence="CC BY-SA or CC BY-NC-SA (sources differ)",
        page="https://github.com/pankajmishra000/VT-ADL",
        folders=("btad", "BTech_Dataset_transformed"),
        holds=tuple(BTAD),
        archives=(
            Archive(
                "https://avires.dimi.uniud.it/papers/btad/btad.zip",
                1_229_193_337,
                "sha256:461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
            ),
        ),
        size=1_229_193_337,
    ),
    "mpdd": Source(
        name="mpdd",
        title="MPDD, painted metal parts (Jezek et al. 2021)",
        licence="CC BY-NC-SA 4.0",
        page="https://github.com/stepanje/MPDD",
        folders=("mpdd",),
        holds=tuple(MPDD),
        archives=(  # a mirror that is not the authors'; their own link asks for a login
            Archive(
                "https://huggingface.co/datasets/meksamiao/mpdd/resolve/main/MPDD.zip",
                1_825_041_283,
                "sha256:69f8da73eea4a31451a50251e5c261e83e0c53f2d1a39a7d4dfc78b5c434ddd6",
            ),
        ),
        size=1_825_041_283,
    ),
    "dagm": Source(
        name="dagm",
        title="DAGM 2007, synthetic textures (Wieler & Hahn 2007)",
        licence="CC BY 4.0",
        page=ZENODO,
        folders=("dagm", "DAGM_KaggleUpload", "DAGM2007"),
        holds=DAGM_CLASSES,
        archives=tuple(Archive(f"{ZENODO}/files/{name}.zip?download=1") for name in DAGM_CLASSES),
    ),
    "lbot": Source(
        name="lbot",
        title="LBOT (SAGAN, ICIP 2021), in no public place: published numbers not reproducible",
        licence="unknown",
        page="https://doi.org/10.1109/ICIP42928.2021.9506332",
        folders=("lbot",),
        holds=("train/0.normal", "train/normal"),
    ),
}


READERS: dict[str, Callable[[Path], Scan]] = {  # the folder of a category -> its files
    "mvtec_ad": mvtec.scan,
    "mvtec_loco": loco.scan,
    "visa": visa.scan,
    "btad": partial(mvtec.scan, names={"ok": GOOD, "ko": "ko", "defect": "ko", "bad": "ko"}),
    "mpdd": mvtec.scan,
    "dagm": dagm.scan,
    "lbot": partial(mvtec.scan, names={"0.normal": GOOD}, masks=False),
}


def entries() -> dict[str, Entry]:
    """The catalogue's rows."""
    rows = []
    for name, (train, good, bad, side) in MVTEC_AD.items():
        rows.append(_row("mvtec_ad", name, (train, 0, good, bad), (side, side)))
    for name, (train, held, good, logical, structural, size) in MVTEC_LOCO.items():
        kinds = {"logical_anomalies": logical, "structural_anomalies": structural}
        counts = (train, held, good, logical + structural)
        rows.append(_row("mvtec_loco", name, counts, size, kinds))
    for name, (train, good, bad, size) in VISA.items():
        rows.append(_row("visa", name, (train, 0, good, bad), size))
    for name, (train, good, bad, size) in BTAD.items():
        rows.append(_row("btad", name, (train, 0, good, bad), size))
    for name, (train, good, kinds) in MPDD.items():
        counts = (train, 0, good, sum(kinds.values()))
        rows.append(_row("mpdd", name, counts, (1024, 1024), kinds))
    for k, (name, (bad_train, bad_test)) in enumerate(zip(DAGM_CLASSES, DAGM, strict=True)):
        each = 575 if k < 6 else 1150
        counts = (each - bad_train, 0, each - bad_test, bad_test)
        rows.append(_row("dagm", name, counts, (512, 512)))
    rows.append(_row("lbot", "", (None, 0, None, None)))
    return dict(rows)


def _row(
    source: str,
    category: str,
    counts: tuple[int | None, ...],
    image_size: tuple[int, int] | None = None,
    defects: Mapping[str, int] | None = None,
) -> tuple[str, Entry]:
    """Name and entry of a category; counts are those of `Entry.counts`, in their order."""
    origin = SOURCES[source]
    entry = Entry(
        title=f"{category.replace('_', ' ')} of {origin.title}" if category else origin.title,
        licence=origin.licence,
        n_train=counts[0],
        n_calibration=counts[1],
        n_test_good=counts[2],
        n_test_bad=counts[3],
        masks=source != "lbot",
        how_to_get=origin.how_to_get,
        samples=partial(_samples, origin, category),
        found=partial(_found, origin, category),
        source=origin,
        scan=partial(_scan, origin, category),
        defects=defects or {},
        image_size=image_size,
        mask_values=None if source in ("mvtec_loco", "visa") else BINARY,
    )
    return f"{source}/{category}".rstrip("/"), entry


def _home(place: Path, category: str) -> Path:
    """The folder of a category in its dataset's; VisA's other copy has it one deeper."""
    outer = place / category
    return layout.entered(outer if outer.is_dir() else place / "1cls" / category)


def _found(source: Source, category: str, root: Path | None) -> bool:
    place = source.place(root)
    return place is not None and _home(place, category).is_dir()


def _scan(source: Source, category: str, root: Path | None) -> Scan:
    """The files of a category.

    Raises: ValueError if its folder is not there.
    """
    place, base = source.place(root), data_root(root)
    if place is None or not _home(place, category).is_dir():
        wanted, where = (category, place) if place else (source.folders[0], base)
        looked = f"has no folder {wanted}" if where.is_dir() else "is no folder"
        raise ValueError(f"{where} {looked}; to have {source.name}: {source.how_to_get}.")
    return READERS[source.name](_home(place, category))


def _samples(source: Source, category: str, root: Path | None) -> Samples:
    return _scan(source, category, root).samples()
