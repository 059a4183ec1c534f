"""The page ``docs/commands.md`` of an archive: how to install what the bundle needs, and every command that it knows."""

from __future__ import annotations

from collections.abc import Iterator

from tools.release.bundle import Bundle

__all__ = ["COMMANDS_PAGE", "commands_page", "requirements", "run_commands"]

COMMANDS_PAGE = "commands.md"


def requirements(bundle: Bundle) -> list[str]:
    """What a bundle needs, as pip reads it; NumPy in any version that the others accept, from 1.26 on."""
    metadata = bundle.metadata
    pinned = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"], **metadata["required_packages_version"]}
    return ["numpy>=1.26", *(f"{name}=={version}" for name, version in pinned.items() if name != "numpy")]


def run_commands(bundle: Bundle, folder: str) -> Iterator[tuple[str, str]]:
    """What a bundle's configs can do, and the command for it.

    Args:
        bundle: the bundle.
        folder: path of its folder in the commands.
    """
    configs = {path.stem for path in bundle.configs() if path.parent.name == "configs"}
    known = {
        "train": ("Train", "training", ["train"], "--dataset_dir DIR --output_dir MODEL"),
        "inference": ("Segment or predict", "", ["inference"], "--dataset_dir DIR --output_dir OUT"),
        "register": ("Register pairs (`pairs.csv` has the columns `fixed,moving`)", "", ["register"], "--pairs pairs.csv --output_dir OUT"),
        "evaluate": ("Evaluate", "evaluating", ["train", "evaluate"], "--dataset_dir DIR --output_dir OUT"),
    }
    for name, (title, run_id, files, options) in known.items():
        if name not in configs:
            continue
        paths = [f"{folder}/configs/{file}.json" for file in files]
        config_file = paths[0] if len(paths) == 1 else '"[' + ",".join(f"'{path}'" for path in paths) + ']"'
        common = f"--meta_file {folder}/configs/metadata.json --logging_file {folder}/configs/logging.conf"
        yield title, f"python -m monai.bundle run{' ' + run_id if run_id else ''} --config_file {config_file} {common} {options}"


def commands_page(bundle: Bundle) -> str:
    """Text of the page."""
    lines = [f"# {bundle.metadata.get('name', bundle.name)}: commands", ""]
    lines += ["With Python 3.11 or newer, in any folder; `" + bundle.name + "` is the unpacked archive:", "", "```"]
    lines += ["pip install " + " ".join(f'"{item}"' if ">" in item else item for item in requirements(bundle)), "```", ""]
    for title, command in run_commands(bundle, bundle.name):
        lines += [f"{title}:", "", "```", command, "```", ""]
    lines += [
        f"`DIR` is {bundle.metadata.get('dataset_folder', 'a folder')} as in the Medical Segmentation Decathlon",
        "(`dataset.json`, `imagesTr/`, `labelsTr/`); to predict, any folder of `*.nii.gz` will do. `--model_dir MODEL` takes a model",
        "that was trained here in the place of the shipped weights.",
        *([f"To train, `DIR` also holds {further}."] if (further := bundle.metadata.get("further_training_data")) else []),
        "",
        "Commands that begin with `python -m tools`, here and in `README.md`, need a clone of the repository.",
        "",
    ]
    return "\n".join(lines)
