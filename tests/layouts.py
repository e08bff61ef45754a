"""Small datasets written in the exact layouts of the published ones."""

import csv
import json

import numpy as np
from PIL import Image

SIZE = (40, 24)  # width, height: not square
BOX = (5, 3, 12, 9)  # left, top, right, bottom of a marked region


def picture(path, size=SIZE, grey=False):
    """An image that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list("/".join(path.parts[-4:]).encode()))
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    kind = {".jpg": "JPEG", ".bmp": "BMP"}.get(path.suffix.lower(), "PNG")
    Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path, format=kind)
    return path


def mask(path, value=255, box=BOX, size=SIZE):
    """A mask with one value in a box."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left, top, right, bottom = box
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[top:bottom, left:right] = value
    Image.fromarray(pixels).save(path)
    return path


def clutter(folder):
    """What lies around in real folders and is no image of the dataset."""
    for name in (".DS_Store", ".000.png", "Thumbs.db", "readme.txt"):
        (folder / name).write_bytes(b"no image")


def mvtec_category(
    folder, defects=("bent", "broken"), good="good", suffix=".png", ending="_mask.png", grey=False
):
    """3 good images to train on (the last with an upper-case suffix), 2 good and 2 bad to test.

    The two bad ones lie in different folders and have the same name.
    """
    for k in range(3):
        name = f"{k:03d}{suffix.upper() if k == 2 else suffix}"
        picture(folder / "train" / good / name, grey=grey)
    for k in range(2):
        picture(folder / "test" / good / f"{k:03d}{suffix}", grey=grey)
    for defect in defects:
        picture(folder / "test" / defect / f"000{suffix}", grey=grey)
        if ending:
            mask(folder / "ground_truth" / defect / f"000{ending}")
    clutter(folder / "train" / good)
    clutter(folder / "test" / good)
    return folder


def mvtec_ad(root, name="mvtec_ad"):
    """Two categories, one grey."""
    mvtec_category(root / name / "bottle")
    mvtec_category(root / name / "grid", grey=True)
    (root / name / "license.txt").touch()
    return root / name


def mpdd(root):
    """As its archive unpacks: in a folder `MPDD`."""
    mvtec_category(root / "MPDD" / "tubes", ("anomalous",))
    mvtec_category(root / "MPDD" / "connector", ("parts_mismatch",))
    return root / "MPDD"


def btad(root, good="ok", bad="ko"):
    """01 has bmp images with png masks, 03 bmp masks."""
    place = root / "BTech_Dataset_transformed"
    mvtec_category(place / "01", (bad,), good, ".bmp", ".png")
    mvtec_category(place / "03", (bad,), good, ".bmp", ".bmp")
    return place


def lbot(root, good="0.normal", bad="1.abnormal"):
    """Normal and abnormal images without masks."""
    return mvtec_category(root / "lbot", (bad,), good, ending=None)


LOCO_CONFIG = [
    {"defect_name": "1_extra", "pixel_value": 255, "saturation_threshold": 20,
     "relative_saturation": False},
    {"defect_name": "missing", "pixel_value": 254, "saturation_threshold": 0.5,
     "relative_saturation": True},
    {"defect_name": "2_extra", "pixel_value": 253, "saturation_threshold": 6300,
     "relative_saturation": False},
]  # fmt: skip


def mvtec_loco(root):
    """One logical defect of two overlapping regions, a structural one of a single pixel."""
    for category in ("pushpins", "screw_bag"):
        folder = root / "mvtec_loco_anomaly_detection" / category
        mvtec_category(folder, ("logical_anomalies", "structural_anomalies"), ending=None)
        for k in range(2):
            picture(folder / f"validation/good/{k:03d}.png")
        truth = folder / "ground_truth"
        mask(truth / "logical_anomalies/000/000.png", 254)
        mask(truth / "logical_anomalies/000/001.png", 255, (8, 5, 20, 15))
        mask(truth / "structural_anomalies/000/000.png", 254, (30, 20, 31, 21))
        (folder / "defects_config.json").write_text(json.dumps(LOCO_CONFIG))
    return root / "mvtec_loco_anomaly_detection"


def visa(root):
    """Two categories as packed; the stem 000 is both normal and an anomaly; masks hold 0 and 3."""
    place, rows = root / "VisA", []
    for category in ("candle", "pcb1"):
        data = f"{category}/Data"
        for k in range(5):
            name = f"{data}/Images/Normal/{k:03d}.JPG"
            picture(place / name)
            rows.append((category, "train" if k < 3 else "test", "normal", name, ""))
        for k in (0, 4):
            name, truth = f"{data}/Images/Anomaly/{k:03d}.JPG", f"{data}/Masks/Anomaly/{k:03d}.png"
            picture(place / name)
            mask(place / truth, 3)
            rows.append((category, "test", "anomaly", name, truth))
        clutter(place / data / "Images/Normal")
        (place / category / "image_anno.csv").write_text("image,label,mask\n")
    (place / "split_csv").mkdir()
    with (place / "split_csv/1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])
    return place


def visa_pytorch(root):
    """The same data as `visa` as the authors' script rearranges them."""
    place = root / "VisA_pytorch"
    for category in ("candle", "pcb1"):
        folder = place / "1cls" / category
        for k in range(5):
            picture(folder / ("train" if k < 3 else "test") / "good" / f"{k:03d}.JPG")
        for k in (0, 4):
            picture(folder / f"test/bad/{k:03d}.JPG")
            mask(folder / f"ground_truth/bad/{k:03d}.png")
    return place


def dagm(root, nested=False):
    """Two classes; in each part of four images the last is defective."""
    place = root / "DAGM_KaggleUpload"
    for name in ("Class1", "Class10"):
        folder = place / name / name if nested else place / name
        for part, first in (("Train", 5), ("Test", 1)):
            lines = ["1"]
            for number in range(first, first + 4):
                bad = number == first + 3
                picture(folder / part / f"{number:04d}.PNG", grey=True)
                label = f"{number:04d}_label.PNG" if bad else "0"
                lines.append(f"{number}\t{int(bad)}\t{number:04d}.PNG\t{int(bad)}\t{label}")
                if bad:
                    mask(folder / part / "Label" / label)
            (folder / part / "Label" / "Labels.txt").write_text("\r\n".join(lines) + "\r\n")
            clutter(folder / part)
    return place


def stc(root):
    """Of each of the twelve scenes a clip of six frames to train on, and one of three to test."""
    place, labels = root / "shanghaitech", np.uint8([0, 0, 1])
    for scene in range(1, 13):
        for k in range(6):
            picture(place / f"training/frames/{scene:02d}_001/{k:03d}.jpg")
        for k in range(len(labels)):
            picture(place / f"testing/frames/{scene:02d}_0014/{k:03d}.jpg")
        pixels = np.zeros((len(labels), SIZE[1], SIZE[0]), np.uint8)
        pixels[-1, BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
        for part, values in (("frame", labels), ("pixel", pixels)):
            (place / f"testing/test_{part}_mask").mkdir(parents=True, exist_ok=True)
            np.save(place / f"testing/test_{part}_mask/{scene:02d}_0014.npy", values)
    return place
