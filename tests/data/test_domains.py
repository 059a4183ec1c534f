from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan, SlicePlan, check_slices, make_domain_plan
from tools.data.domains import check_domains, chosen_names, read_domains
from tools.data.files import write_nifti

KNEE = {"0": "background", "1": "femur", "2": "tibia"}
FOOT = {"0": "background", "4": "talus"}


def write_domain(root: Path, cases: int = 2, values=(1, 2), shape=(10, 12, 4), affine=None, labelled: int | None = None, **content) -> Path:
    """A Decathlon-style folder of noise with the label values in a block; every case has all of them."""
    generator = np.random.default_rng(len(root.name))
    affine, entries = np.eye(4) if affine is None else affine, []
    for k in range(cases):
        label = np.zeros(shape, np.uint8)
        label[2:8, 3:9, 1:3] = generator.choice(values, (6, 6, 2))
        write_nifti(root / "imagesTr" / f"{k:02d}.nii.gz", generator.random(shape).astype(np.float32), affine)
        entries.append({"image": f"imagesTr/{k:02d}.nii.gz"})
        if labelled is None or k < labelled:
            write_nifti(root / "labelsTr" / f"{k:02d}.nii.gz", label, affine)
            entries[-1]["label"] = f"labelsTr/{k:02d}.nii.gz"
    describe(root, **{"labels": KNEE, "training": entries, "slice_axis": 2, **content})
    return root


def describe(root: Path, **content) -> None:
    """Write dataset.json, or change fields of the one that is there (None takes one away)."""
    path = root / "dataset.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({key: value for key, value in {**known, **content}.items() if value is not None}))


@pytest.fixture
def folder(tmp_path):
    """Two domains: knee of 3 cases with values 1 and 2, foot of 2 with 4."""
    write_domain(tmp_path / "all" / "knee", cases=3)
    write_domain(tmp_path / "all" / "foot", values=(4,), labels=FOOT, slice_axis=0)
    return tmp_path / "all"


@pytest.fixture
def single(tmp_path):
    """The same as one data set whose entries say the domain: cases 00 and 01 are the knee, 02 and 03 the foot."""
    root = write_domain(tmp_path / "single", cases=4, labels={"0": "background", "1": "x", "2": "y"})
    entries = json.loads((root / "dataset.json").read_text())["training"]
    describe(root, training=[{**entry, "domain": "knee" if k < 2 else "foot"} for k, entry in enumerate(entries)])
    return root


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ()),
        ("knee", ("knee",)),
        ("knee, foot,knee", ("knee", "foot")),
        (["knee", "foot"], ("knee", "foot")),
        (2019, ("2019",)),
        ((2019, "foot"), ("2019", "foot")),
        (unicodedata.normalize("NFD", "Füße"), ("Füße",)),
    ],
)
def test_names_of_domains_from_a_command_line(given, names):
    assert chosen_names(given) == names


def test_folder_of_data_sets(folder):
    (folder / "notes").mkdir()
    write_domain(folder / ".hidden")
    domains = read_domains(folder)
    assert list(domains) == ["foot", "knee"]
    assert domains["foot"].labels == {0: "background", 4: "talus"}
    assert domains["foot"].slice_axis == 0
    assert [case.name for case in domains["knee"].cases] == ["00", "01", "02"]
    assert {case.domain for case in domains["knee"].cases} == {"knee"}
    check_domains(domains, need_labels=2)


def test_links_are_named_as_the_links(folder, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a").symlink_to(folder / "knee")
    (tmp_path / "links" / "b").symlink_to(folder / "knee")
    assert list(read_domains(tmp_path / "links")) == ["a", "b"]
    assert list(read_domains(tmp_path / "links" / "a")) == ["a"]


def test_domain_of_the_description_goes_before_the_name_of_the_folder(folder):
    describe(folder / "knee", domain="joint")
    assert list(read_domains(folder)) == ["foot", "joint"]
    assert list(read_domains(folder / "knee")) == ["joint"]


@pytest.mark.parametrize("place", ["folder", "data set", "entries"])
def test_names_are_composed(tmp_path, place):
    """A Mac's folders have decomposed names, which look alike and are not equal."""
    mac = unicodedata.normalize("NFD", "Hüfte")
    if place == "entries":
        entries = [{"image": f"imagesTr/0{k}.nii.gz", "label": f"labelsTr/0{k}.nii.gz", "domain": mac} for k in range(2)]
        write_domain(tmp_path / "joints", domains={mac: {"slice_axis": 1}}, training=entries)
    else:
        write_domain(tmp_path / mac if place == "folder" else tmp_path / "joints", domain=mac if place == "data set" else None)
    domains = read_domains(tmp_path)
    assert list(domains) == ["Hüfte"]
    assert len(domains["Hüfte"].cases) == 2
    assert make_domain_plan(domains, overrides={mac: {"slice_axis": 0}}).domains["Hüfte"].slice_axis == 0


def test_plain_data_set_is_one_domain(folder):
    domains = read_domains(folder / "knee")
    assert list(domains) == ["knee"]
    assert len(domains["knee"].cases) == 3


def test_entries_with_a_domain_share_what_is_not_given_for_one(single):
    describe(single, group_by="^.", domains={"foot": {"labels": {"0": "b", "1": "talus", "2": "c"}, "slice_axis": 1}, "knee": {}})
    domains = read_domains(single)
    assert {name: [case.name for case in dataset.cases] for name, dataset in domains.items()} == {
        "foot": ["02", "03"],
        "knee": ["00", "01"],
    }
    assert domains["knee"].labels == {0: "background", 1: "x", 2: "y"}
    assert domains["foot"].labels == {0: "b", 1: "talus", 2: "c"}
    assert (domains["knee"].slice_axis, domains["foot"].slice_axis) == (2, 1)
    assert domains["foot"].group_by == "^."


def test_entries_with_a_domain_and_no_description_of_domains(single):
    domains = read_domains(single)
    assert list(domains) == ["foot", "knee"]
    assert domains["foot"].labels == domains["knee"].labels


def test_labels_may_be_given_for_the_domains_alone(single):
    describe(single, labels=None, domains={"foot": {"labels": FOOT}, "knee": {"labels": KNEE}})
    assert read_domains(single)["foot"].labels == {0: "background", 4: "talus"}


def test_images_to_predict_on_need_no_domain(single):
    describe(single, test=["imagesTr/00.nii.gz", {"image": "imagesTr/01.nii.gz", "domain": "knee"}])
    assert [case.name for case in read_domains(single)["knee"].test] == ["01"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": []}, "the domain 'knee' has no training case"),
        ({"domain": "foot"}, "two domains are named 'foot'"),
        ({"domain": "auto"}, "'auto' cannot be the name of a domain"),
        ({"domain": "a/b"}, "'a/b' cannot be the name"),
        ({"domains": ["a", "b"]}, '"domains" must map each name to an object'),
        ({"domains": {"a": {"label": {}}}}, "'label', the nearest is 'labels'"),
        ({"domains": {"knee": {}}}, 'no "domain", but other entries have|has no training case'),
        ({"group_by": 3}, "group_by must be a regular expression"),
    ],
)
def test_description_that_does_not_serve(folder, content, message):
    describe(folder / "knee", **content)
    with pytest.raises(DataError, match=message):
        read_domains(folder)


def test_declared_domain_without_a_case(single):
    describe(single, domains={"foot": {}, "knee": {}, "hand": {}})
    with pytest.raises(DataError, match="the domain 'hand' has no training case"):
        read_domains(single)


def test_entry_of_an_unknown_domain(single):
    describe(single, domains={"knee": {}})
    with pytest.raises(DataError, match=r"02 has the domain 'foot', \"domains\" has only \['knee'\]"):
        read_domains(single)


def test_entry_without_a_domain(single):
    entries = json.loads((single / "dataset.json").read_text())["training"]
    del entries[1]["domain"]
    describe(single, training=entries)
    with pytest.raises(DataError, match='01 has no "domain"'):
        read_domains(single)


def test_one_key_twice_in_the_description(single):
    path = single / "dataset.json"
    path.write_text(path.read_text()[:-1] + ', "domains": {"knee": {}, "foot": {}, "knee": {}}}')
    with pytest.raises(DataError, match="'knee' stands twice"):
        read_domains(single)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_no_data_set(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"{name}: no"):
        read_domains(tmp_path / name)


def test_label_that_its_domain_does_not_declare(folder):
    # Known to the knee, but not to the foot.
    describe(folder / "foot", labels={"0": "background", "1": "x"})
    with pytest.raises(DataError, match=r"foot.*00\.nii\.gz: label value 4 not in .*\(domain 'foot'\)"):
        check_domains(read_domains(folder))


def test_too_few_labelled_cases(folder):
    with pytest.raises(DataError, match=r"too few labelled cases: 2, at least 3 are needed \(domain 'foot'\)"):
        check_domains(read_domains(folder), need_labels=3)


def test_plan(folder):
    plan = make_domain_plan(read_domains(folder), extra={"channels": [8, 16]})
    assert plan.domains == {
        "foot": SlicePlan(labels={0: "background", 4: "talus"}, slice_axis=0, spacing=(1, 1)),
        "knee": SlicePlan(labels={0: "background", 1: "femur", 2: "tibia"}, slice_axis=2, spacing=(1, 1)),
    }
    assert plan.names == ("foot", "knee")
    assert plan.num_classes == {"foot": 2, "knee": 3}
    assert plan.patch_size == (128, 128)
    assert plan.index("knee") == 1


@pytest.mark.parametrize(
    ("diagonal", "declared", "axis"),
    [
        ((1, 1, 3, 1), None, 2),
        ((3, 1, 1, 1), None, 0),
        ((1, 1, 1, 1), None, 2),  # isotropic: the last axis, by convention
        ((2, 2, 1, 1), None, 2),  # two axes alike are no slices
        ((1, 3, 1, 1), 2, 2),  # anisotropic in the plane: what is declared holds
    ],
)
def test_slice_axis(tmp_path, diagonal, declared, axis):
    write_domain(tmp_path / "knee", affine=np.diag(np.float64(diagonal)), slice_axis=declared)
    plan = make_domain_plan(read_domains(tmp_path)).domains["knee"]
    assert (plan.orientation, plan.slice_axis) == ("RAS", axis)
    assert plan.spacing == tuple(np.delete(diagonal[:3], axis))


def test_declared_axis_is_one_of_the_file(tmp_path):
    # stored as (z, x, y)
    write_domain(tmp_path / "knee", affine=np.array([[0, -1, 0, 0], [0, 0, 2, 0], [5, 0, 0, 0], [0, 0, 0, 1.0]]), slice_axis=0)
    plan = make_domain_plan(read_domains(tmp_path)).domains["knee"]
    assert (plan.orientation, plan.slice_axis, plan.spacing) == ("RAS", 2, (1, 2))
    assert plan.axcodes(np.eye(4)) == "SRA"


def test_files_whose_slices_lie_differently_count_as_stored(tmp_path):
    root = write_domain(tmp_path / "knee", cases=3, slice_axis=2)
    turned = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    write_nifti(root / "imagesTr" / "00.nii.gz", nib.load(root / "imagesTr" / "00.nii.gz").get_fdata(), turned)
    plan = make_domain_plan(read_domains(tmp_path)).domains["knee"]
    assert (plan.orientation, plan.slice_axis) == (None, 2)
    assert plan.axcodes(np.eye(4)) == "SRA"
    assert plan.axcodes(turned) == "RSA"


def test_spacing_is_the_median_in_the_plane(tmp_path):
    root = write_domain(tmp_path / "knee", cases=3)
    for k, spacing in enumerate((1.0, 2.0, 4.0)):
        path = root / "imagesTr" / f"{k:02d}.nii.gz"
        write_nifti(path, nib.load(path).get_fdata(), np.diag([spacing, 0.5, 1, 1]))
    plan = make_domain_plan(read_domains(tmp_path)).domains["knee"]
    assert plan.spacing == (2.0, 0.5)


def test_plan_overrides(folder):
    plan = make_domain_plan(
        read_domains(folder),
        patch_size=64,
        intensity={"lower_percentile": 1},
        overrides={"knee": {"spacing": 0.5, "slice_axis": 1, "orientation": None}},
    )
    assert plan.patch_size == (64, 64)
    assert {value.intensity["lower_percentile"] for value in plan.domains.values()} == {1.0}
    assert (plan.domains["knee"].spacing, plan.domains["knee"].slice_axis) == ((0.5, 0.5), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 40}, "patch_size must hold multiples of 16"),
        ({"patch_size": (32, 32, 32)}, "patch_size must be one number or two"),
        ({"intensity": {"lower": 1}}, "'lower', the nearest is 'lower_percentile'"),
        ({"overrides": {"kne": {}}}, "unknown domain in slice_plans: 'kne', the nearest is 'knee'"),
        ({"overrides": "knee=2"}, "slice_plans must map names of domains to fields of their plans, .* not 'knee=2'"),
        ({"overrides": 0}, "slice_plans must map names of domains"),
        ({"overrides": {"knee": 0}}, "slice_plans must map names of domains"),
        ({"overrides": {"knee": 2}}, "slice_plans must map names of domains to fields of their plans, .* not {'knee': 2}"),
        ({"overrides": {"knee": {"spacin": 1}}}, "'knee': 'spacin', the nearest is 'spacing'"),
        ({"overrides": {"knee": {"size": 16}}}, "override of the domain 'knee': 'size'"),
        ({"overrides": {"knee": {"slice_axis": 3}}}, "domain 'knee': slice_axis must be 0, 1 or 2"),
        ({"overrides": {"knee": {"orientation": "RAS"}}}, "an orientation needs a slice_axis"),
        ({"overrides": {"knee": {"orientation": "RAR", "slice_axis": 0}}}, "orientation must name each axis once"),
    ],
)
def test_invalid_override(folder, options, message):
    with pytest.raises(DataError, match=message):
        make_domain_plan(read_domains(folder), **options)


TURNED = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # first and last axis change places


@pytest.mark.parametrize(
    ("affine", "declared", "overrides"),
    [
        (np.eye(4), 2, None),
        (np.eye(4), None, None),
        (np.eye(4), 2, {"knee": {"slice_axis": None, "spacing": [1, 1]}}),
        (np.eye(4), 0, {"knee": {"slice_axis": 2}}),
        (np.eye(4), 2, {"knee": {"slice_axis": 2, "orientation": "ras"}}),
        (TURNED, 0, None),  # the same axis of the world
    ],
)
def test_slices_that_are_the_models(folder, tmp_path, affine, declared, overrides):
    plan = make_domain_plan(read_domains(folder))  # the knee's last axis
    write_domain(tmp_path / "new" / "knee", affine=affine, slice_axis=declared)
    check_slices(plan, read_domains(tmp_path / "new"), overrides)


@pytest.mark.parametrize(
    ("affine", "declared", "overrides", "message"),
    [
        (np.eye(4), 0, None, r"knee.dataset.json: slice_axis 0 of the domain 'knee', but the model goes on with 2, as 00.nii.gz lies"),
        (TURNED, 2, None, "slice_axis 2 of the domain 'knee', but the model goes on with 0"),
        (np.eye(4), 2, {"knee": {"slice_axis": 1}}, "slice_plans: slice_axis 1 of the domain 'knee', but the model goes on with 2"),
        (
            np.eye(4),
            2,
            {"knee": {"spacing": 2}},
            r"slice_plans: spacing 2 of the domain 'knee', but the model goes on with its \(1.0, 1.0\)",
        ),
        (np.eye(4), 2, {"knee": {"spacing": -2}}, "slice_plans: domain 'knee': spacing must hold positive numbers"),
        (np.eye(4), 2, {"knee": {"spacin": 2}}, "'knee': 'spacin', the nearest is 'spacing'"),
    ],
)
def test_slices_that_are_not_the_models(folder, tmp_path, affine, declared, overrides, message):
    plan = make_domain_plan(read_domains(folder))
    write_domain(tmp_path / "new" / "knee", affine=affine, slice_axis=declared)
    with pytest.raises(DataError, match=message):
        check_slices(plan, read_domains(tmp_path / "new"), overrides)


def test_plan_round_trip(folder, tmp_path):
    plan = make_domain_plan(read_domains(folder), extra={"channels": [8, 16]})
    plan.save(tmp_path / "plan.json")
    again = DomainPlan.load(tmp_path / "plan.json")
    assert again == plan
    assert again.names == plan.names
    assert again.domains["foot"].label_values == (0, 4)


def test_plan_of_before_with_sizes(folder, tmp_path):
    plan = make_domain_plan(read_domains(folder))
    plan.save(tmp_path / "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    for domain in content["domains"].values():
        domain["size"] = [16, 32]
    (tmp_path / "plan.json").write_text(json.dumps(content))
    assert DomainPlan.load(tmp_path / "plan.json") == plan


def test_new_domain_is_numbered_last(folder):
    domains = read_domains(folder)
    plan = make_domain_plan({"knee": domains["knee"]})
    extended = plan.extended(make_domain_plan({"foot": domains["foot"]}).domains)
    assert extended.names == ("knee", "foot")
    assert extended.domains["knee"] == plan.domains["knee"]
    with pytest.raises(DataError, match="has a domain 'knee' already"):
        extended.extended(plan.domains)


def test_plan_against_a_data_set(folder):
    domains = read_domains(folder)
    plan = make_domain_plan(domains)
    plan.check({"knee": domains["knee"]})
    with pytest.raises(DataError, match="'kneee', the nearest is 'knee'"):
        plan.check({"kneee": domains["knee"]})
    with pytest.raises(DataError, match=r"labels .* of the domain 'foot' are not the model's"):
        plan.check({"foot": domains["knee"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"labels": {"0": "b", "1": "x"}}', "not a plan of several domains"),
        ('{"domains": {}}', "at least one name"),
        ('{"domains": {"a": {}}}', "domain 'a': .*labels"),
        ('{"domains": {"a": {"labels": {"0": "b", "1": "x"}}}, "version": 9}', "version 9"),
        ('{"domains": {"a": {"labels": {"0": "b", "1": "x"}}}, "patch": 9}', "'patch', the nearest is 'patch_size'"),
    ],
)
def test_unreadable_plan(tmp_path, text, message):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(DataError, match=message):
        DomainPlan.load(tmp_path / "plan.json")
