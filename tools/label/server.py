"""MONAI Label's server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

__all__ = ["serve"]


def serve(environment: Path, app: Path, studies: Path, models: Sequence[str], host: str, port: int) -> NoReturn:
    """Become the server: this process goes on as MONAI Label.

    Args:
        environment: folder of MONAI Label's environment.
        app: folder of the app.
        studies: folder of the images; labels are kept in ``labels/`` below it.
        models: names of the app's models.
        host, port: address to listen at.
    """
    command = [str(environment / "bin" / "python"), "-m", "monailabel.main", "start_server"]
    command += ["--app", str(app), "--studies", str(studies), "--host", host, "--port", str(port)]
    # Nothing is to be looked for in the Model Zoo, which needs the internet.
    for key, value in (("models", ",".join(models)), ("zoo_source", "local"), ("sam2", "false")):
        command += ["--conf", key, value]
    # Nothing of the repository is to be found there, nor an app in the current folder that is named as MONAI Label is; torchrun is.
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONSAFEPATH": "1"}
    variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{variables.get('PATH', '')}"
    os.execve(command[0], command, variables)
