"""Our own schema accepts and rejects what MONAI's does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tools.release.check_files import schema_errors

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = sorted((REPOSITORY / "bundles").glob("*/configs/metadata.json"))
OTHERS: tuple[Any, ...] = (None, 2.5, "text", True, [3], {"a": 1})


def mutations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The document with each entry, at any depth, deleted, or replaced by values of all types."""
    for path in _paths(document):
        for value in ("delete", *OTHERS):
            changed = copy.deepcopy(document)
            node = changed
            for key in path[:-1]:
                node = node[key]
            if value == "delete":
                del node[path[-1]]
            else:
                node[path[-1]] = value
            yield changed


def _paths(node: Any, before: tuple = ()) -> Iterator[tuple]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*before, key)
        yield from _paths(value, (*before, key))


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.parents[1].name)
def test_the_bundles_fit(path):
    assert schema_errors(json.loads(path.read_text())) == []


def test_an_error_names_its_place():
    document = json.loads(BUNDLES[0].read_text())
    document["network_data_format"]["inputs"]["image"]["num_channels"] = "1"
    assert schema_errors(document) == ["network_data_format#inputs#image#num_channels: '1' is not of type 'integer'"]


def test_as_monais_schema_judges():
    shared = REPOSITORY.parent / "shared" / "meta_schema_20240725.json"
    if not shared.is_file():
        pytest.skip(f"no schema at {shared}")
    reference = jsonschema.Draft201909Validator(json.loads(shared.read_text()))
    document = json.loads((REPOSITORY / "bundles/deepatlas/configs/metadata.json").read_text())
    document["other_data_format"] = document["network_data_format"]
    document["network_data_format"]["post_processed_outputs"] = {"a": 1, "b": "text", "c": True}
    document["supported_apps"] = {"monai-label": "0.8.5"}
    judged = {True: 0, False: 0}
    for changed in mutations(document):
        accepted = reference.is_valid(changed)
        assert (not schema_errors(changed)) is accepted, changed
        judged[accepted] += 1
    assert min(judged.values()) > 100
