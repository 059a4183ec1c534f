"""Lint of override keys: MONAI accepts a misspelled ``--learning_rat 1e-3`` in silence and trains with the old value.

:func:`check_overrides` stands first in a config's ``run`` list. It finds on the call stack what ``monai.bundle run`` was given, reads
the config files as they lie on disk, and refuses every key that would change nothing.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from pydoc import locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle import scripts as monai_scripts
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS, MERGE_KEY, merge_kv
from monai.utils import ensure_tuple

from tools.bundle.errors import one_line_errors
from tools.bundle.locate import frames, workflow
from tools.bundle.options import check_device, check_folder, check_number, check_paths, check_range, check_seed
from tools.data.checks import DataError

__all__ = ["OverrideError", "check_overrides", "to_bool"]

# What makes a config file in a list a workflow of its own, which may define new entries, and not an overlay of values.
WORKFLOW_IDS = ("initialize", "run", "finalize")
TARGET_KEYS = ("_target_", "_desc_", "_disabled_", "_requires_", "_mode_")
COUNTS = ("epochs", "epoch_length", "validation_interval", "batch_size", "slices_per_domain", "slices")
SHARES = ("cache_rate", "foreground_share", "labelled_pairs", "prior_softness")
WEIGHTS = re.compile(r".*_weight|.*_decay|(?:.*_)?learning_rate")  # numbers from 0 on
CLOSE = 0.8  # similarity from which a keyword to a **kwargs callable counts as misspelled


class OverrideError(DataError):
    """A key on the command line, in an args file or in an overlay that changes nothing; the message names the nearest one."""


def to_bool(value: Any) -> bool:
    """A switch as the command line hands it over: ``true``, ``True``, ``1``, ``false``, ``False``, ``0``, or a bool.

    Raises:
        DataError: anything else (a ValueError).
    """
    switches = {"true": True, "1": True, "false": False, "0": False}
    text = str(value).strip().lower()
    if isinstance(value, (bool, int, str)) and text in switches:
        return switches[text]
    raise DataError(f"expected true or false, got {value!r}")


def check_overrides(
    config_file: str | Sequence[str] | None = None, overrides: Mapping[str, Any] | None = None, run_id: str | None = None
) -> None:
    """Refuse override keys that the config does not know, and values that cannot be (:mod:`tools.bundle.options`).

    A key is known if the config files hold it, part by part (``train#trainer#max_epochs``), or if its parent has a ``_target_`` that
    accepts the last part as an argument. In a list of config files the later ones are overlays under the same rule, unless they
    define ``initialize``, ``run``, ``finalize`` or the run id: a workflow of its own may define entries.

    Args:
        config_file: config files; by default, as the other arguments, what the ``monai.bundle`` call on the call stack was given,
            args file included. Without such a call (a workflow built by another program) nothing is checked.
        overrides: override keys and values.
        run_id: the run id.

    Raises:
        OverrideError: a key is unknown; the message names the nearest one.
        DataError: the files refer to an entry that none of them holds, such as a second one given without the first; a path is not what
            was typed; of a workflow that is running, nothing can be written to its ``output_dir``, its ``device`` is not there, or a
            number of steps, or of images a step, or a seed is none, or a weight or share is no number from 0 on, or to 1.
    """
    allowed = _arguments_of_run()
    if config_file is None:
        call = _call_on_stack()
        if call is None or not call.get("config_file"):
            return
        one_line_errors()
        config_file, run_id = call["config_file"], call.get("run_id")
        if call.get("tracking") is not None:
            allowed |= {key for settings in DEFAULT_EXP_MGMT_SETTINGS.values() for key in settings["configs"]} | {"run_name"}
        overrides = {key: value for key, value in call.items() if key not in allowed}
    files = _files(config_file)
    parser = _load(files, (*WORKFLOW_IDS, *([run_id] if run_id else [])))
    _check_references(parser.get(), files)
    for key, value in (overrides or {}).items():
        if key in allowed:
            continue
        _check(parser.get(), key, f"unknown override --{key}", allowed)
        parser[key] = value
    check_paths({key: value for key, value in (overrides or {}).items() if key not in allowed})
    running = workflow()
    if running is None:
        return
    checks = {"output_dir": check_folder, "device": check_device, "seed": check_seed}
    checks |= {name: partial(check_number, name) for name in COUNTS} | {name: partial(check_range, name, most=1) for name in SHARES}
    # What is no plain value may need the data, which are not looked at yet.
    plain = (name for name, value in running.parser.get().items() if not isinstance(value, dict) and str(value)[:1] not in ("$", "@", "%"))
    checks |= {name: partial(check_range, name) for name in plain if WEIGHTS.fullmatch(name)}
    for key, check in checks.items():
        if key in running.parser:
            check(running.parser.get_parsed_content(key))


def _call_on_stack() -> dict[str, Any] | None:
    """Everything that the innermost call of monai.bundle's run, run_workflow or create_workflow was given, args file included."""
    for frame in frames():
        name, given = frame.f_code.co_name, frame.f_locals
        if frame.f_globals.get("__name__") == monai_scripts.__name__ and name in ("run", "run_workflow", "create_workflow"):
            named = {key: given.get(key) for key in ("config_file", "run_id", "meta_file", "tracking")}
            others = given.get("override") or given.get("kwargs") or {}
            # update_kwargs writes into a dictionary it is given.
            return monai_scripts.update_kwargs(args=copy.deepcopy(given.get("args_file")), **{**named, **others})
    return None


def _arguments_of_run() -> set[str]:
    callables = (monai_scripts.run, monai_scripts.create_workflow, ConfigWorkflow.__init__)
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    names = {name for f in callables for name, p in inspect.signature(f).parameters.items() if p.kind not in kinds}
    return (names - {"self"}) | {"bundle_root", "workflow"}


def _files(config_file: str | Sequence[str]) -> list[str]:
    if isinstance(config_file, str) and not Path(config_file).is_file() and "," in config_file:
        return config_file.split(",")
    return [str(file) for file in ensure_tuple(config_file)]


def _load(files: Sequence[str], workflow_ids: Collection[str]) -> ConfigParser:
    """The merged config, every overlay checked against the files before it."""
    parser = ConfigParser(config={})
    for index, file in enumerate(files):
        content = ConfigParser.load_config_file(file)
        overlay = index > 0 and not any(key.removeprefix(MERGE_KEY) in workflow_ids for key in content)
        for key, value in content.items():
            if overlay and key != "_desc_":
                _check(parser.get(), key.removeprefix(MERGE_KEY), f"{file}: unknown key {key}", ())
            merge_kv(parser, key, value)
    metadata = Path(files[0]).parent / "metadata.json"
    if metadata.is_file():
        parser.read_meta(f=str(metadata))
    return parser


def _check_references(config: dict, files: Sequence[str]) -> None:
    """Refuse a reference to an entry that no file holds."""
    entries = {key: value for key, value in config.items() if key != "_meta_"}
    for reference in ReferenceResolver.find_refs_in_config(entries, id=""):
        name = ReferenceResolver.split_id(reference)[0]
        if name and name not in config:
            given = f"""--config_file "['.../train.json','{files[-1]}']\""""
            raise DataError(f"{files[-1]}: @{name} is in none of the config files; does this one belong behind another, as in {given}?")


def _check(config: dict, key: str, what: str, also: Collection[str]) -> None:
    """Follow ``key`` part by part into ``config``; ``also`` are further names at the top, for the suggestion."""
    node: Any = config
    parts = ReferenceResolver.split_id(key)
    for depth, part in enumerate(parts):
        parent = "#".join(parts[:depth])
        if isinstance(node, Mapping):
            if part in node:
                node = node[part]
                continue
            accepted, any_name = _accepted(node)
            names = [*node, *accepted]
            if depth == len(parts) - 1 and (part in accepted or (any_name and max(_likeness(part, n) for n in names) < CLOSE)):
                return
            if depth == 0:
                candidates = {**{path: path.rsplit("#", 1)[-1] for path in _paths(config)}, **{name: name for name in (*also, *config)}}
                near = _nearest(part, candidates)
            else:
                near = f"{parent}#{_nearest(part, {name: name for name in names})}"
            raise OverrideError(f"{what}: did you mean {near}?")
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise OverrideError(f"{what}: {parent} is a list of {len(node)} entries, 0 to {len(node) - 1}")
            node = node[int(part)]
            continue
        hint = f", override {node[1:]} instead" if isinstance(node, str) and re.fullmatch(r"[@%][\w#:]+", node) else ""
        raise OverrideError(f"{what}: {parent} is {node!r} and has no parts{hint}")


def _accepted(node: Mapping[str, Any]) -> tuple[set[str], bool]:
    """Arguments that the ``_target_`` of a node accepts, and whether it accepts any name (``**kwargs``)."""
    if "_target_" not in node:
        return set(), False
    target = ConfigComponent(config=dict(node)).resolve_module_name()
    function = locate(target) if isinstance(target, str) else target
    if not callable(function):
        return set(TARGET_KEYS), False
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in functions tell no signature
        return set(TARGET_KEYS), True
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    accepted = {p.name for p in parameters if p.kind in by_name} | set(TARGET_KEYS)
    return accepted, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if prefix and not key.startswith("_"):
                yield f"{prefix}#{key}"
            yield from _paths(value, f"{prefix}#{key}" if prefix else key)


def _nearest(name: str, candidates: Mapping[str, str]) -> str:
    """The candidate whose value is most like ``name``; among equals the shortest."""
    return max(candidates, key=lambda c: (_likeness(name, candidates[c]) - 0.05 * c.count("#"), -len(c)))


def _likeness(name: str, other: str) -> float:
    a, b = name.lower(), other.lower()
    # "lr" for learning_rate: no sequence matcher sees initials.
    if len(a) > 1 and a == "".join(word[0] for word in b.split("_") if word):
        return 0.9
    return difflib.SequenceMatcher(None, a, b).ratio()
