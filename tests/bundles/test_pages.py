"""Every option that a user may set stands on its bundle's page."""

from __future__ import annotations

import json
import re

import pytest
from bundle_runs import BundleRuns

BUNDLES = ("deepatlas", "multidomain_segmentation", "progressive_deepssm")
CONFIGS = ("train.json", "inference.json", "register.json", "evaluate.json")
# What every bundle is told, explained in the README of the repository; what MONAI and torchrun tell; and what overlays say.
ELSEWHERE = {"bundle_root", "dataset_dir", "output_dir", "progress_bar", "rank", "world_size", "val_interval"}
OF_OVERLAYS = {"need_labels", "single_domain", "add_domains"}
DERIVED = {"domain_name"}  # of --domain


def options(config: dict) -> set[str]:
    """Names of the plain values: no parts, lists or expressions of other values."""
    return {name for name, value in config.items() if not isinstance(value, (dict, list)) and not str(value).startswith(("$@", "@"))}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_option_is_explained(bundle):
    page = (BundleRuns(bundle).root / "docs/README.md").read_text()
    # Commands count as well: "--pairs pairs.csv" in a block, or `--spacing_unit voxel`.
    explained = set(re.findall(r"`(?:--)?(\w+)", page)) | set(re.findall(r"--(\w+)", page))
    configs = [path for path in (BundleRuns(bundle).root / "configs" / name for name in CONFIGS) if path.is_file()]
    assert len(configs) >= 3
    wanted = set().union(*(options(json.loads(path.read_text())) for path in configs)) - ELSEWHERE - OF_OVERLAYS - DERIVED
    assert len(wanted) > 30
    assert wanted - explained == set()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_overlay_is_named(bundle):
    page = (BundleRuns(bundle).root / "docs/README.md").read_text()
    overlays = BundleRuns(bundle).overlays
    assert overlays
    assert {name for name in overlays if f"`{name}`" not in page and f"{name}.json" not in page} == set()
