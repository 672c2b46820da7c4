"""Proposals for tables of other countries: names of columns and words of diagnoses in their languages."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from melanoma_dist.data.sources.proposal import propose

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
