from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tools.data.checks import DataError
from tools.release.page import page_with_table, table, write_page

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def test_the_page_is_current():
    page = (BUNDLES / "README.md").read_text()
    assert page == page_with_table(page, table(BUNDLES)), "run: python -m tools registry --page bundles"


def test_rows(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "deepatlas")
    shutil.copytree(bundle, tmp_path / "other", ignore=shutil.ignore_patterns("*.pt"))
    path = tmp_path / "other/configs/metadata.json"
    metadata = json.loads(path.read_text())
    metadata["eval_metrics"] = {}
    metadata["task"] = "a | b\nc"
    path.write_text(json.dumps(metadata))
    (tmp_path / "other/deepatlas").rename(tmp_path / "other/other")
    lines = table(tmp_path).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| [`deepatlas`](deepatlas/docs/README.md) | 0.1.0 | Joint semi-supervised registration")
    assert "segmentation dice 0.8805" in lines[2]
    assert " MB |" in lines[2]
    assert "| a / b c |" in lines[3]
    assert "| none yet | no weights yet |" in lines[3]


def test_only_the_table_changes(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "deepatlas")
    page = tmp_path / "README.md"
    marks = ("<!-- table: python -m tools registry --page bundles -->", "<!-- end of the table -->")
    page.write_text(f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n")
    assert write_page(tmp_path) == page
    assert page.read_text() == f"before\n{marks[0]}\n{table(tmp_path)}\n{marks[1]}\nafter\n"


@pytest.mark.parametrize("text", [None, "no marks"])
def test_a_page_without_place(tmp_path, text):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    with pytest.raises(DataError, match=r"README.md"):
        write_page(tmp_path)
