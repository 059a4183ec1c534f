"""``python -m tools COMMAND``: the command line of the shared package.

fire reads the arguments; the command itself runs only when all of them were understood. Paths and names reach it as typed, where
fire alone would turn ``1e3`` into a number and cut ``a#b`` short.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import keyword
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import fire
from fire.decorators import SetParseFns

__all__ = ["main"]

#: command -> (module, what in it fire runs, what it is for); modules are imported when their command is called
COMMANDS: dict[str, tuple[str, str, str]] = {
    "data": ("tools.commands.data", "COMMANDS", "make phantoms, get the hippocampus set, split a set, or say which images to label"),
    "apply-field": ("tools.commands.apply_field", "apply_field", "carry images, labels, points and meshes by a displacement field"),
    "correspondences": ("tools.commands.correspondences", "correspondences", "put corresponding points on shapes, and model them"),
    "benchmark": ("tools.commands.benchmark", "benchmark", "measure speed beside other packages"),
    "experiment": ("tools.commands.experiment", "experiment", "reproduce the tables of a bundle's documentation"),
    "pack": ("tools.commands.pack", "pack", "write a bundle as one archive that needs no repository"),
    "registry": ("tools.commands.registry", "registry", "list a folder of archives, and the bundles on their page"),
    "install": ("tools.commands.install", "install", "install a bundle from a registry"),
    "verify": ("tools.commands.verify", "verify", "check a bundle or an archive before it is released"),
    "export": ("tools.commands.export", "export", "write a bundle's network as an ONNX file"),
    "label": ("tools.commands.label", "label", "serve the bundles by MONAI Label, for 3D Slicer"),
    "demo": ("tools.commands.demo", "demo", "train on a small data set, run inference and draw the results"),
}


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"expected true or false, got {text!r}")
    return text.lower() == "true"


def _optional_text(text: str) -> str | None:
    return None if text == "None" else text


_PARSERS = {"str": str, "str | None": _optional_text, "bool": _truth}


def _nearest(word: str, known: Sequence[str], mark: str = "") -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {mark}{close[0]}?" if close else f"known: {', '.join(mark + name for name in known)}"


def _recorded(component: Any, calls: list[Callable[[], Any]]) -> Any:
    """The same functions with the same signatures that only note their call: fire would run one before it finds a stray argument."""
    if isinstance(component, Mapping):
        return {name: _recorded(value, calls) for name, value in component.items()}

    @functools.wraps(component)
    def record(*positional: Any, **named: Any) -> None:
        calls.append(functools.partial(component, *positional, **named))

    signature = inspect.signature(component)
    record.__signature__ = signature
    parsers = {name: _PARSERS[str(p.annotation)] for name, p in signature.parameters.items() if str(p.annotation) in _PARSERS}
    return SetParseFns(**parsers)(record) if parsers else record


def _spelled(word: str) -> str:
    """An option whose name is a word of Python's, as the parameter is spelled: ``--from`` is ``from_``."""
    option, equals, value = word.partition("=")
    return f"{option}_{equals}{value}" if option.startswith("--") and keyword.iskeyword(option[2:]) else word


def _check_options(command: str, component: Any, arguments: Sequence[str]) -> None:
    """Stop at a misspelled subcommand or option with the nearest right one.

    Raises:
        ValueError: one line naming the word.
    """
    words = list(arguments)
    while isinstance(component, Mapping):
        if not words or words[0].startswith("-"):
            return
        if words[0] not in component:
            raise ValueError(f"{command} has no {words[0]!r}; {_nearest(words[0], list(component))}")
        command, component = f"{command} {words[0]}", component[words.pop(0)]
    parameters = inspect.signature(component).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for word in words:
        if word == "--":
            return
        name = word[2:].split("=")[0].replace("-", "_")
        known = name in parameters or name == "help" or (name.startswith("no") and name[2:] in parameters)
        if word.startswith("--") and not known:
            raise ValueError(f"{command} has no option --{name}; {_nearest(name, list(parameters), '--')}")


def _help(command: str, component: Any, arguments: Sequence[str]) -> None:
    """fire's page on a command or subcommand, whatever else was typed, of which it would ask for help otherwise. Leaves by SystemExit."""
    for word in arguments:
        if isinstance(component, Mapping) and word in component:
            command, component = f"{command} {word}", component[word]
    fire.Fire(component, command=["--help"], name=f"python -m tools {command}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: as typed after ``python -m tools``; by default those of the process.

    Returns:
        exit status: 0, or 2 after one line on stderr for input that cannot be used. fire's own help and usage leave by SystemExit.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("usage: python -m tools COMMAND [ARGUMENTS]   (python -m tools COMMAND --help says more)\n")
        for name, (_, _, purpose) in COMMANDS.items():
            print(f"  {name:<15} {purpose}")
        return 0
    command, *rest = map(_spelled, arguments)
    try:
        if command not in COMMANDS:
            raise ValueError(f"no command {command!r}; {_nearest(command, list(COMMANDS))}")
        module, attribute, _ = COMMANDS[command]
        component = getattr(import_module(module), attribute)
        if {"-h", "--help"} & set(rest):
            _help(command, component, rest)
        _check_options(command, component, rest)
        calls: list[Callable[[], Any]] = []
        fire.Fire(_recorded(component, calls), command=rest, name=f"python -m tools {command}")
        for call in calls:
            call()
    except ValueError as error:  # DataError is one
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"{error.filename}: {(error.strerror or type(error).__name__).lower()}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
