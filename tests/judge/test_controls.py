"""Claims about the table of controls."""

import pytest

from judge import controls, images, model
from judge.corruptions import FAMILIES, KINDS


def test_the_table_has_every_control_within_its_bounds(judge_file, sample_data, monkeypatch):
    judge, _ = model.load_judge(judge_file)
    dataset = images.find_dataset(str(sample_data))
    photos, paintings = (images.load_images(dataset.test[domain], 64).pixels
                         for domain in (images.PHOTOS, images.PAINTINGS))
    table = controls.controls_table(judge, photos[:4], paintings)
    assert list(table.index) == ["copy", "the same painting", *KINDS]
    assert table["default"].between(0, 1).all() and table["painting"].between(0, 1).all()
    assert set(table.index[table["shown"]]) == {kind for family in FAMILIES.values() for kind in family}
    assert table.loc["the same painting", "diversity"] == table["diversity"].min()
    assert table.loc["copy", "kept"] == 1 and table.loc["copy", "content"] == pytest.approx(1)
    assert table.loc[["inverted", "constant"], "content"].to_numpy() == pytest.approx(0)

    monkeypatch.setattr(controls, "KINDS", {kind: KINDS[kind] for kind in ("grid", "holed")})
    again = controls.controls_table(judge, photos[:4], paintings)
    assert again.equals(table.loc[again.index]), "a row depends on what was drawn before it"
