"""A bundle of the collection as its tests use it, and what every bundle promises."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow, ckpt_export, create_workflow, load, run, verify_metadata, verify_net_in_out
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from tools.bundle.checkpoint import load_weights
from tools.bundle.training_record import read_training
from tools.metrics.tables import versions
from tools.release.sizes import spatial_size, trial_values

__all__ = ["REPOSITORY", "BundleContract", "BundleRuns"]

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class BundleRuns:
    """Runs of the bundle of this name in this process; its package becomes importable."""

    name: str

    def __post_init__(self) -> None:
        if str(self.root) not in sys.path:
            sys.path.insert(0, str(self.root))

    @property
    def root(self) -> Path:
        """The bundle's folder."""
        return REPOSITORY / "bundles" / self.name

    def files(self, *names: str) -> list[str]:
        """Paths of config files: ``train``, ``experiments/joint``."""
        return [str(self.root / "configs" / f"{name}.json") for name in names]

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Content of ``metadata.json``."""
        return json.loads(Path(self.files("metadata")[0]).read_text())

    @property
    def overlays(self) -> list[str]:
        """Names of the overlays. A table of runs is none: it has runs in it."""
        files = sorted((self.root / "configs" / "experiments").glob("*.json"))
        return [path.stem for path in files if "runs" not in json.loads(path.read_text())]

    def call(self, run_id: str, *names: str, **overrides: Any) -> None:
        """``python -m monai.bundle run``; keys with ``#`` are given in a dictionary."""
        run(
            run_id=run_id,
            config_file=self.files(*names),
            meta_file=self.files("metadata")[0],
            logging_file=False,
            **{key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()},
        )

    def workflow(self, *names: str, kind: str | None = None, **overrides: Any) -> ConfigWorkflow:
        """The workflow of these configs, initialised."""
        made = create_workflow("ConfigWorkflow", config_file=self.files(*names), workflow_type=kind, logging_file=False, **overrides)
        assert isinstance(made, ConfigWorkflow)
        return made


def monai_bundle(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """``python -m monai.bundle`` in a process that finds nothing by PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


class BundleContract:
    """Tests that every bundle passes, of its fixtures.

    ``bundle`` is a :class:`BundleRuns`; ``random_model`` a model folder as a training leaves it, for the shapes the metadata names, with
    random weights; ``dataset`` a small data set, ``model`` a model folder trained on it, and ``tiny`` overrides that keep training short.
    """

    @pytest.mark.parametrize("kind", ["train", "inference"])
    def test_monai_loads_the_network(self, bundle, random_model, monkeypatch, tmp_path, kind):
        """``monai.bundle.load`` passes no bundle_root and never runs the workflow."""
        shutil.copytree(bundle.root / "configs", tmp_path / bundle.name / "configs")
        shutil.copytree(random_model, tmp_path / bundle.name / "models")
        monkeypatch.chdir(tmp_path)
        network = load(bundle.name, bundle_dir=str(tmp_path), workflow_type=kind, source="github")
        expected = torch.load(random_model / "model.pt", weights_only=True)
        assert network.state_dict().keys() == expected.keys()
        assert all(torch.equal(value.cpu(), expected[key]) for key, value in network.state_dict().items())

    def test_what_the_training_was_lies_beside_the_weights(self, model):
        record = read_training(model)
        steps = torch.load(model / "checkpoints" / "last.pt", weights_only=True)["iteration"]
        assert sum(record.pop("steps").values()) == steps
        assert record == {"seed": 0, "early_stopping_patience": 0, "precision": "float32", "versions": versions()}

    def test_initialise_twice_touches_no_data(self, bundle, tmp_path):
        options = {"workflow_type": "train", "logging_file": False, "dataset_dir": str(tmp_path / "none")}
        made = ConfigWorkflow(config_file=bundle.files("train"), **options)
        made.initialize()
        made.initialize()
        assert not list(tmp_path.iterdir())

    def test_metadata_fits_the_schema(self, bundle):
        pytest.importorskip("jsonschema")
        schema = REPOSITORY.parent / "shared" / "meta_schema_20240725.json"
        if not schema.is_file():
            pytest.skip(f"no schema at {schema}")
        verify_metadata(meta_file=bundle.files("metadata")[0], filepath=str(schema))
        assert bundle.metadata["version"] in bundle.metadata["changelog"]

    def test_network_answers_as_the_metadata_says(self, bundle, random_model, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        arguments = {"meta_file": bundle.files("metadata")[0], "config_file": bundle.files("inference")[0], "device": "cpu"}
        verify_net_in_out("network_def", **arguments, bundle_root=str(bundle.root), model_dir=str(random_model))

    def test_network_is_verified_from_the_folder_of_bundles(self, bundle, random_model):
        """There, a folder without ``__init__.py`` has the name of the bundle's package."""
        configs = f"{bundle.name}/configs"
        files = ["--meta_file", f"{configs}/metadata.json", "--config_file", f"{configs}/inference.json"]
        options = ["--device", "cpu", "--bundle_root", bundle.name, "--model_dir", str(random_model)]
        result = monai_bundle("verify_net_in_out", "network_def", *files, *options, cwd=bundle.root.parent)
        assert result.returncode == 0, result.stderr[-3000:]
        assert "data shape of network is verified with no error" in result.stdout + result.stderr

    def test_torchscript_answers_as_the_network(self, bundle, random_model, tmp_path):
        """``ckpt_export`` by tracing; without it TorchScript would have to read the networks' Python, which is more than it knows."""
        files = {"config_file": bundle.files("inference")[0], "meta_file": bundle.files("metadata")[0]}
        common = {"bundle_root": str(bundle.root), "model_dir": str(random_model), "precision": "float32"}
        ckpt_export("network_def", str(tmp_path / "model.ts"), str(random_model / "model.pt"), use_trace=True, **files, **common)
        script = torch.jit.load(tmp_path / "model.ts")
        made = bundle.workflow("inference", kind="infer", **common)
        network = load_weights(random_model / "model.pt", made.network_def)
        shape = bundle.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
        for step, values in enumerate(trial_values(shape, rounds=2)):
            image = torch.rand(1 + step, 1, *spatial_size(shape, values))
            with torch.no_grad():
                torch.testing.assert_close(script(image), network(image), rtol=1e-4, atol=1e-4)

    def test_other_packages_of_these_names_are_passed_over(self, bundle, random_model, tmp_path):
        """A folder ``tools`` in the current folder is common, and Python looks there first."""
        for name in ("tools", bundle.name):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')")
        (tmp_path / "images").mkdir()
        options = ["--dataset_dir", "images", "--model_dir", str(random_model)]
        result = monai_bundle("run", "--config_file", bundle.files("inference")[0], *options, cwd=tmp_path)
        assert result.returncode == 1
        assert result.stderr.splitlines()[-1].startswith("error: images: ")

    def test_a_federated_client_trains_rounds_and_evaluates(self, bundle, dataset, model, tiny, tmp_path):
        """MONAI's client never calls ``run``; its configs for evaluation are ``train`` and ``evaluate`` together."""
        common = {**tiny, "dataset_dir": str(dataset), "model_dir": str(model), "finetune": True}
        client = MonaiAlgo(
            bundle_root=str(bundle.root),
            local_epochs=1,
            send_weight_diff=False,
            train_kwargs={**common, "output_dir": str(tmp_path / "out"), "epoch_length": 2, "schedule#total_steps": 6},
            eval_kwargs={**common, "output_dir": str(tmp_path / "evaluation")},
            best_model_filepath=str(model / "model.pt"),
            final_model_filepath=None,
        )

        def score(weights: dict[str, np.ndarray]) -> float:
            metrics = client.evaluate(ExchangeObject(weights=weights)).metrics
            return metrics[client.evaluator.state.key_metric_name]

        def to_send(weights: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
            return {key: torch.as_tensor(value).numpy().copy() for key, value in weights.items()}

        client.initialize(extra={ExtraItems.CLIENT_NAME: "here"})
        shipped = client.get_weights(extra={ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
        sent = to_send(client.get_weights().weights)
        assert sent.keys() == shipped.keys()
        assert all(np.array_equal(value, shipped[key]) for key, value in sent.items())
        assert score(sent) > score({key: np.zeros_like(value) for key, value in sent.items()})

        rates: list[float] = []
        client.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: rates.append(engine.optimizer.param_groups[0]["lr"]))
        for iterations in (2, 4, 6):
            client.train(ExchangeObject(weights=sent))
            assert client.trainer.state.iteration == iterations
            answer = client.get_weights()
            assert answer.weight_type == WeightType.WEIGHTS
            assert answer.weights.keys() == sent.keys()
            sent = to_send(answer.weights)
        assert rates[2] > 0.1 * max(rates)  # one schedule over all rounds: the second does not begin where the rate has come down
        assert np.isfinite(score(sent))
        assert [path.name for path in (tmp_path / "evaluation").iterdir()] == ["tensorboard"]
        client.finalize()
