"""Proposals for tables of other countries: names of columns and words of diagnoses in their languages."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from melanoma_dist.data.sources.description import parse_description
from melanoma_dist.data.sources.proposal import propose
from melanoma_dist.errors import DataError

ROLES = ("id", "label", "patient", "lesion", "age", "sex", "site")
MEANINGS = ("MEL", "NV", "BCC", "SCC", "BKL")
TABLES = {
    "German": ("Bilddatei;Diagnose;Patientennummer;Läsion;Alter;Geschlecht;Lokalisation",
               "Malignes Melanom;Nävuszellnävus;Basalzellkarzinom;Plattenepithelkarzinom;Seborrhoische Keratose"),
    "French": ("fichier;diagnostic;patient;lésion;âge;sexe;localisation",
               "mélanome;nævus;carcinome basocellulaire;carcinome épidermoïde;kératose séborrhéique"),
    "Spanish": ("imagen;diagnóstico;paciente;lesión;edad;sexo;ubicación",
                "melanoma;nevo;carcinoma basocelular;carcinoma espinocelular;queratosis seborreica"),
    "Italian": ("immagine;diagnosi;paziente;lesione;età;sesso;sede",
                "melanoma;nevo;carcinoma basocellulare;carcinoma spinocellulare;cheratosi seborroica"),
}  # fmt: skip


@pytest.mark.parametrize("language", TABLES)
def test_columns_and_words_are_recognised(language: str, tmp_path: Path) -> None:
    header, words = (text.split(";") for text in TABLES[language])
    rows = [f"b{at}.jpg;{word};{at // 2};{at};40;x;x" for at, word in enumerate(words)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([";".join(header), *rows]) + "\n", encoding="utf-8")
    proposal = yaml.safe_load(propose(path))
    assert proposal["columns"] == dict(zip(ROLES, header, strict=True))
    assert proposal["labels"] == dict(zip(words, MEANINGS, strict=True))


@pytest.mark.parametrize(
    ("present", "meanings"),
    [
        ("w m", {"w": "female", "m": "male"}),
        ("männlich weiblich divers", {"männlich": "male", "weiblich": "female", "divers": "CHOOSE"}),
        ("H M", {"h": "CHOOSE", "m": "CHOOSE"}),  # hombre and mujer: m is no man here
        ("Female male", None),
    ],
)
def test_words_of_sex_are_translated_or_left_to_choose(
    present: str, meanings: dict[str, str] | None, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    rows = [f"b{at}.jpg;melanoma;{word}" for at, word in enumerate([*present.split(), ""])]
    path.write_text("\n".join(["photo;diagnosis;sex", *rows]) + "\n", encoding="utf-8")
    proposal = yaml.safe_load(propose(path))
    assert proposal.get("words") == (meanings and {"sex": meanings})
    if meanings and "CHOOSE" in meanings.values():
        with pytest.raises(DataError, match=r"words\.sex\.\w+ 'CHOOSE': must be one of .*Choose what the word means"):
            parse_description(proposal, str(path))


def test_a_repeated_file_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "a.jpg"]
    path.write_text("photo,diagnosis\n" + "".join(f"{name},nevus\n" for name in names))
    text = propose(path)
    assert yaml.safe_load(text)["columns"]["id"] == "photo"
    assert "# In several rows, which `data prepare` refuses: a.jpg\n" in text
