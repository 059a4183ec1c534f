"""``python -m tools install``: a bundle from a registry, checked and in place as a whole or not at all."""

from __future__ import annotations

import sys

from tools.release.install import install as install_bundle

__all__ = ["install"]


def install(name: str, from_: str, to: str, version: str | None = None, trust: bool = False, force: bool = False) -> None:
    """Install NAME as TO/NAME. An older version there is replaced as a whole or not at all.

    A bundle is its author's program: before one that is not from this collection is installed, everything that its configs execute is
    printed and a yes is asked for.

    Args:
        name: name of the bundle.
        from_: the registry (typed --from): a folder with index.json, or its http, https or file address.
        to: folder for bundles.
        version: by default the newest release.
        trust: the answer to that question is yes.
        force: also an older version over a newer one, and over a folder that holds other files than were installed.

    Raises:
        DataError: the archive is damaged, unsafe or not trusted, or must not replace what is there; nothing has changed then.
    """

    def agree(lines: list[str]) -> bool:
        print(f"{name} is not from this collection. Whoever uses it runs its code and, by its configs:")
        print("\n".join(f"  {line}" for line in lines), flush=True)
        if trust:
            return True
        if not sys.stdin.isatty():
            print("No terminal to ask at: --trust true says yes.")
            return False
        return input("Trust it? Only yes installs it: ").strip().lower() == "yes"

    print(install_bundle(name, from_, to, version, force, agree))
