"""Folders in the layouts in which collections are published, with real photographs under their names."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ..conftest import write_table

_ISIC = os.environ.get("MELANOMA_DIST_ISIC")
needs_isic = pytest.mark.skipif(not _ISIC, reason="MELANOMA_DIST_ISIC names no folder with real ISIC images")
ARCHIVE = "isic_id,attribution,copyright_license,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,diagnosis_3,"


def photographs(label: str, count: int) -> Iterator[tuple[str, Image.Image]]:
    """Real photographs of different lesions of HAM10000 with a label of 2019, by their ids."""
    folder = Path(_ISIC or "")
    truth = pd.read_csv(folder / "2019/ISIC_2019_Training_GroundTruth.csv", index_col="image")
    lesions = pd.read_csv(folder / "2019/ISIC_2019_Training_Metadata.csv", index_col="image")["lesion_id"]
    ids = truth.index[(truth[label] == 1) & lesions.reindex(truth.index).str.startswith("HAM_", na=False)]
    for name in lesions.loc[ids].drop_duplicates().index:
        path = folder / f"2018/ISIC2018_Task3_Training_Input/{name}.jpg"
        if count and path.is_file():
            count -= 1
            yield name, Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


def save(picture: Image.Image, path: Path) -> None:
    """Write a photograph in the format of its suffix, small: a test reads dozens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((80, 60)).save(path)


def ph2(raw: Path) -> None:
    """Folders of BMP with masks, and the text with bars and a legend."""
    head = "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Colors ||"
    rows = []
    for at, (label, code) in enumerate([("NV", 0), ("NV", 1), ("MEL", 2)]):
        for number, (_, picture) in enumerate(photographs(label, 16 - 8 * (code == 0))):
            if code == 1 and number < 8:
                continue  # the photographs of code 0
            name = f"IMD{100 * at + number:03d}"
            place = raw / "PH2Dataset/PH2 Dataset images" / name
            save(picture, place / f"{name}_Dermoscopic_Image/{name}.bmp")
            save(
                picture.resize((80, 60)).convert("L").point(lambda value: 255 * (value < 120)),
                place / f"{name}_lesion/{name}_lesion.bmp",
            )
            rows.append(f"|| {name} ||                        ||                  {code} ||         0 |   1  3 ||")
    write_table(
        raw / "PH2Dataset/PH2_dataset.txt", head, *rows, "", "Legends:", "Clinical Diagnosis:  0 - Common Nevus"
    )


def derm7pt(raw: Path) -> None:
    """meta/meta.csv, lists of rows, and pairs of photographs; one in four cases is tested."""
    rows, case = [], 0
    for label, words in {
        "MEL": ("melanoma (in situ)", "melanoma metastasis"),
        "NV": ("clark nevus", "blue nevus"),
    }.items():
        for _, picture in photographs(label, 16):
            word, sex = words[case % 2], ("female", "male")[case % 2]
            rows.append(f"{case + 1},{word},3,back,{sex},AAA/Aal{case:03d}.jpg,BBB/Abl{case:03d}.jpg")
            save(picture, raw / f"release_v0/images/BBB/Abl{case:03d}.jpg")
            save(picture.rotate(90), raw / f"release_v0/images/AAA/Aal{case:03d}.jpg")
            case += 1
    meta = raw / "release_v0/meta"
    write_table(meta / "meta.csv", "case_num,diagnosis,seven_point_score,location,sex,clinic,derm", *rows)
    write_table(meta / "train_indexes.csv", "indexes", *(str(row) for row in range(case) if row % 4 > 1))
    write_table(meta / "valid_indexes.csv", "indexes", *(str(row) for row in range(case) if row % 4 == 1))
    write_table(meta / "test_indexes.csv", "indexes", *(str(row) for row in range(case) if row % 4 == 0))


def padufes20(raw: Path) -> None:
    """metadata.csv and three folders of PNG; the second lesion of a patient is in the list too."""
    rows, number = [], 0
    for label, word in {"MEL": "MEL", "NV": "NEV", "BCC": "BCC"}.items():
        for _, picture in photographs(label, 12):
            name = f"PAT_{number // 2}_{number}_{number + 500}.png"
            rows.append(f"PAT_{number // 2},{number},False,{40 + number},FEMALE,NECK,{word},{name},True")
            save(picture, raw / f"images/imgs_part_{number % 3 + 1}/{name}")
            number += 1
    write_table(raw / "metadata.csv", "patient_id,lesion_id,smoke,age,gender,region,diagnostic,img_id,biopsed", *rows)


def _archive(raw: Path, words: dict[str, tuple[str, str]], count: int) -> None:
    """What `isic image download` leaves: photographs, metadata.csv and the attributions."""
    rows = []
    for label, (group, word) in words.items():
        for name, picture in photographs(label, count):
            rows.append(
                f'{name},Someone,CC-BY-NC,45.0,lower extremity,X,{group},"{word}",L_{name[5:]},dermoscopic,male'
            )
            save(picture, raw / f"{name}.jpg")
    write_table(raw / "metadata.csv", f"{ARCHIVE}lesion_id,image_type,sex", *rows)
    write_table(raw / "attribution.txt", "Someone")


_PROLIFERATIONS = {
    "MEL": ("Malignant melanocytic proliferations (Melanoma)", "Melanoma, NOS"),
    "NV": ("Benign melanocytic proliferations", "Nevus"),
    "VASC": ("Benign soft tissue proliferations - Vascular", ""),
}


def bcn20000(raw: Path) -> None:
    """The export of BCN20000, whose vascular lesions have no third diagnosis."""
    _archive(raw, _PROLIFERATIONS, 12)


def ham10000(raw: Path) -> None:
    """The export of HAM10000, with two images that 2018 tests on."""
    _archive(raw, _PROLIFERATIONS, 12)
    table = raw / "metadata.csv"
    extra = 'ISIC_0036000,Someone,CC-BY-NC,45.0,,X,Benign melanocytic proliferations,"Nevus",L_T1,dermoscopic,male'
    table.write_text(table.read_text() + f"{extra}\n{extra.replace('6000', '6001').replace('T1', 'T2')}\n")
    for at, (_, picture) in enumerate(photographs("BKL", 2)):
        save(picture, raw / f"ISIC_003600{at}.jpg")


def isic2020(raw: Path) -> None:
    """The table of the training set, its list of copies, and a folder of JPEG; two images of each patient."""
    rows = []
    for label, word in {"MEL": "melanoma", "NV": "nevus", "BKL": "seborrheic keratosis"}.items():
        for number, (name, picture) in enumerate(photographs(label, 12)):
            malignant = int(label == "MEL")
            kind = ("benign", "malignant")[malignant]
            rows.append(f"{name},IP_{word[:3]}{number // 2},female,45.0,torso,{word},{kind},{malignant}")
            save(picture, raw / f"train/{name}.jpg")
    header = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
    write_table(raw / "ISIC_2020_Training_GroundTruth.csv", header, *rows)
    copies = f"{rows[0][:12]},{rows[2][:12]}"
    write_table(raw / "ISIC_2020_Training_Duplicates.csv", "image_name_1,image_name_2", copies)


LAYOUTS = {each.__name__: each for each in (ph2, derm7pt, padufes20, bcn20000, ham10000, isic2020)}
"""A function that fills a raw folder, by the name of the built-in description."""
