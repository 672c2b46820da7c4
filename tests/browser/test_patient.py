"""The page of a model that takes metadata: fields for the patient, which stay with their image."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import start_service
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.inference.ensemble import Ensemble, one_process
from melanoma_dist.inference.trained_run import open_trained_run

from ..unit.app.server.conftest import data, lesion
from ..unit.app.test_metadata import told_data, told_run
from .conftest import Serve
from .test_page import DESK, Visit, chrome, jpeg

__all__ = ["chrome", "data", "told_data", "told_run"]


def test_fields_tell_the_model_of_the_patient_and_stay_with_the_image(
    chrome: Browser, serve: Serve, told_run: Path
) -> None:
    trained = open_trained_run(told_run)
    settings = ServeConfig(told_run, decode_threads=1, max_files=8, max_megabytes=8, queue=16)
    service = start_service(trained, settings)
    opened = Visit(chrome, serve(build_app(service, settings, None)), viewport=DESK)
    page = opened.page
    opened.drop(jpeg(0), jpeg(1))
    opened.answered(2)
    note = page.locator("#patient")
    expect(note).to_contain_text("The model was told: age unknown, sex unknown, site unknown.")
    age, sex, site = (page.get_by_label(name) for name in ("Age in years", "Sex", "Site"))
    expect(age).to_have_attribute("placeholder", "unknown")
    assert sex.locator("option").all_inner_texts() == ["unknown", "female", "male"]
    assert site.locator("option").count() == 9

    sex.select_option("female")
    expect(note).to_contain_text("age unknown, sex female, site unknown.")
    age.fill("150")
    age.blur()
    expect(age).to_have_js_property("validity.valid", False)
    expect(note).to_contain_text("age unknown")  # a wrong age is not sent
    age.fill("71")
    age.blur()
    site.select_option("palms/soles")
    expect(note).to_contain_text("age 71, sex female, site palms/soles.")
    about = {"age": 71, "sex": "female", "site": "palms/soles"}
    predicted = Ensemble.of(trained, one_process(0, 1)).predict([lesion(0)], about=[about])
    expected = predicted.probability[0, predicted.labels.index("MEL")]
    assert float(page.locator(".headline .big").inner_text().rstrip("%")) == pytest.approx(100 * expected, abs=0.06)

    page.locator(".thumb", has_text="1.jpg").click()
    expect(note).to_contain_text("age unknown, sex unknown, site unknown.")
    page.locator(".thumb", has_text="0.jpg").click()
    expect(age).to_have_value("71")
    sex.select_option("unknown")
    expect(note).to_contain_text("age 71, sex unknown, site palms/soles.")
    opened.context.close()
    service.close()
    assert opened.wrong == []
