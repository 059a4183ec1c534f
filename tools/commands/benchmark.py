"""``python -m tools benchmark BUNDLE``: speed, side by side with MONAI's parts and ANTs' SyN where they do the same, in one process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import BendingEnergyLoss, LocalNormalizedCrossCorrelationLoss
from monai.networks.nets import LocalNet, VoxelMorph
from torch import nn

import tools
from tools.benchmarks.formats import measure_formats
from tools.benchmarks.modules import bundle_modules
from tools.benchmarks.sizes import measure_size
from tools.benchmarks.slicewise import slicewise_tasks
from tools.bundle.checkpoint import load_weights
from tools.bundle.precision import autocast_dtype
from tools.data.checks import DataError, check_dataset
from tools.data.decathlon import Case, Dataset, read_dataset
from tools.data.files import write_json
from tools.data.geometry import load_volume, to_plan
from tools.data.phantoms import write_phantoms
from tools.data.plan import Plan, make_plan
from tools.data.splits import report_pairs, report_split
from tools.losses.ncc import LocalNCCLoss
from tools.metrics.structures import dice, foreground, mean_of
from tools.registration.displacement import warp
from tools.release.bundle import Bundle
from tools.release.export import export, read_export

__all__ = ["benchmark"]

BUNDLES = Path(tools.__file__).resolve().parents[1] / "bundles"
SIZE = (48, 64, 48)
KERNEL = 7


def benchmark(
    bundle: str = "deepatlas",
    to: str | None = None,
    threads: int = 2,
    repeats: int = 10,
    dataset_dir: str | None = None,
    model_dir: str | None = None,
    report: int = 40,
    seed: int = 0,
    sizes: str | None = None,
    segmentation_architecture: str | None = None,
    segmentation_channels: Sequence[int] | None = None,
    symmetric: bool = False,
    formats: bool = False,
    domain: str | None = None,
) -> None:
    """Measure the parts of a bundle against their peers and print (and write) the result as JSON.

    Every figure is a median in seconds over repeats, after two rounds to warm up. Of deepatlas they take turns with the peer's: the local
    correlation against MONAI's, a training step against MONAI's VoxelMorph and LocalNet on the same batch and losses, and one pair from
    loaded arrays to the warped image against ANTs SyN (``make peers``; said and recorded as skipped where that is missing). Of
    multidomain_segmentation: one volume of 38 slices of 112 x 112, from its file to the label map on its grid, and finding its domain.

    Args:
        bundle: "deepatlas" or "multidomain_segmentation"; of the latter only ``to``, ``threads``, ``repeats``, ``model_dir``, ``seed`` and
            ``domain`` count.
        to: JSON file to write.
        threads: CPU threads of everybody.
        repeats: measurements of each kind.
        dataset_dir: a labelled data set; its report pairs (moving k, fixed (7 k + 13) mod n) are then registered by both and the Dice of
            nearest-neighbour labels is recorded. Without it phantoms give the pair, and no Dice is taken.
        model_dir: folder of plan.json and registration.pt, by default the bundle's models.
        report: number of cases held out for the report, as the split was written.
        seed: seed of that split.
        sizes: grids such as "64,64,64;160,192,160": training steps and peak memory are then measured at each, and nothing else.
        segmentation_architecture, segmentation_channels, symmetric: networks of these steps, as in the training; by default a pyramid
            with the bundle's channels, and a registration that is not symmetric.
        formats: measure the segmentation network in float32, bf16 and int8, by PyTorch and onnxruntime, on the report cases of
            ``dataset_dir``, and nothing else.
        domain: domain of the volume, by default the model's first.

    Raises:
        DataError: another bundle is asked for, networks are named without ``sizes`` or are none, or the data cannot be used.
    """
    if bundle not in ("deepatlas", "multidomain_segmentation"):
        raise DataError(f"benchmark: there is none for {bundle!r}, only for 'deepatlas' and 'multidomain_segmentation'")
    segmentation = {"architecture": segmentation_architecture, "channels": segmentation_channels}
    segmentation = {name: value for name, value in segmentation.items() if value is not None}
    if (segmentation or symmetric) and not sizes:
        raise DataError("benchmark: --segmentation_architecture, --segmentation_channels and --symmetric are of the networks of --sizes")
    threads, repeats = int(threads), int(repeats)
    # ITK reads this once, when it is first loaded
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    torch.manual_seed(int(seed))
    folder = Path(model_dir) if model_dir else BUNDLES / bundle / "models"

    result: dict[str, Any] = {"bundle": bundle, "threads": threads, "repeats": repeats, "seed": int(seed), "machine": _machine()}
    if bundle == "multidomain_segmentation":
        result["volume"] = _measure_volume(bundle, folder, domain, repeats, int(seed))
        _write(to, result)
        return
    if sizes:
        result["sizes"] = _measure_sizes(bundle, sizes, threads, {"segmentation": segmentation, "registration": {"symmetric": symmetric}})
    if formats:
        result["formats"] = _measure_formats(bundle, dataset_dir, folder, int(report), int(seed), threads)
    if sizes or formats:
        _write(to, result)
        return
    _say("local normalised cross-correlation")
    result["lncc"] = compare_lncc(repeats)
    _say("training step")
    result["training_step"] = compare_training_step(lambda: registration_network(bundle, _plan_for(SIZE)), repeats)
    _say("one pair against ANTs SyN")
    with tempfile.TemporaryDirectory() as scratch:
        if dataset_dir:
            dataset = read_dataset(dataset_dir)
            check_dataset(dataset)
        else:
            write_phantoms(scratch, joint="knee", cases=2, seed=int(seed))
            dataset = read_dataset(scratch)
        weights = folder / "registration.pt"
        plan = Plan.load(folder / "plan.json") if (folder / "plan.json").is_file() else make_plan(dataset)
        network = registration_network(bundle, plan, weights if weights.is_file() else None)
        pairs = _pairs(dataset, int(report), int(seed)) if dataset_dir else [(dataset.cases[0], dataset.cases[1])]
        result["pair"] = {
            "data": dataset.name if dataset_dir else "phantoms",
            "weights": str(weights) if weights.is_file() else "none (random)",
            "grid": plan.size,
            **compare_pairs(network, plan, pairs, repeats, score=bool(dataset_dir) and weights.is_file()),
        }
    _report(result)
    _write(to, result)


def _write(to: str | None, result: Mapping[str, Any]) -> None:
    if to:
        write_json(to, result)
        print(f"written: {to}")


def _measure_volume(bundle: str, folder: Path, domain: str | None, repeats: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        functions, about = slicewise_tasks(BUNDLES / bundle, folder, Path(scratch), domain, seed=seed)
        seconds = measure(functions, repeats)
    print(f"a volume of {' x '.join(map(str, about['size']))} as {about['domain']!r}, levels of {about['channels']} channels")
    print(f"  segmented in {seconds['segmentation']:.3f} s, its domain found in {seconds['domain']:.3f} s (median of {repeats})")
    return {**about, "seconds": seconds}


def _measure_sizes(bundle: str, sizes: str, threads: int, networks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a size; printed as it comes."""
    try:
        grids = [tuple(int(n) for n in part.split(",")) for part in str(sizes).split(";")]
    except ValueError:
        grids = []
    if not grids or any(len(grid) != 3 or any(n < 16 or n % 16 for n in grid) for grid in grids):
        raise DataError(f'benchmark: sizes must be like "64,64,64;160,192,160", in multiples of 16, not {sizes!r}')
    rows = []
    for grid in grids:
        row = measure_size(BUNDLES / bundle, _plan_for(grid, networks), threads=threads)
        steps = f"registration step {row['registration_step']:.2f} s, segmentation step {row['segmentation_step']:.2f} s"
        print(f"{grid}: {steps}, a pair {row['registration_pair']:.2f} s, peak {row['peak_gib']:.1f} GiB", flush=True)
        rows.append(row)
    return rows


def _measure_formats(bundle: str, dataset_dir: str | None, folder: Path, report: int, seed: int, threads: int) -> list[dict[str, Any]]:
    """One row a format."""
    if dataset_dir is None:
        raise DataError("benchmark: formats are measured on labelled cases, give --dataset_dir")
    dataset = read_dataset(dataset_dir)
    check_dataset(dataset)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "segmentation.onnx"
        export(BUNDLES / bundle, file, model_dir=folder)
        network, plan = read_export(Bundle.read(BUNDLES / bundle), "segmentation", folder).network, Plan.load(folder / "plan.json")
        rows = measure_formats(network, file, plan, _report_cases(dataset, report, seed), threads)
    for row in rows:
        size = f", {row['megabytes']:.1f} MB" if "megabytes" in row else ""
        print(f"{row['format']:<26} {row['cpu_seconds']:.3f} s, Dice {row['dice']:.4f}{size}")
    return rows


def registration_network(bundle: str, plan: Plan, weights: Path | None = None) -> nn.Module:
    """F_R as the bundle builds it from a plan, in evaluation mode on the CPU; random weights without a file.

    Args:
        bundle: name of the bundle and of its package.
        plan: its ``extra["registration"]`` holds the network's sizes, the bundle's defaults standing in for what it lacks.
        weights: state dict to load.
    """
    (networks,) = bundle_modules(BUNDLES / bundle, "networks")
    network = networks.registration_from_plan(plan)
    return network.eval() if weights is None else load_weights(weights, network)


def measure(functions: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 2) -> dict[str, float]:
    """Median seconds of each function. They take turns, so that a slow moment of the machine meets all of them.

    Raises:
        ValueError: when ``repeats`` is not positive.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be positive, got {repeats}")
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warm_up + repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare_lncc(repeats: int, size: tuple[int, int, int] = SIZE) -> dict[str, Any]:
    """LNCC forward and backward, ours against MONAI's: seconds, ratio (theirs over ours), difference of value and gradient."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand((2, 1, *size), generator=generator)
    pred = (target + 0.3 * torch.rand((2, 1, *size), generator=generator)).requires_grad_()
    losses = {
        "ours": LocalNCCLoss(kernel_size=KERNEL),
        "monai": LocalNormalizedCrossCorrelationLoss(kernel_size=KERNEL, kernel_type="rectangular", smooth_nr=0.0, smooth_dr=1e-5),
    }

    def step(loss: nn.Module) -> tuple[float, torch.Tensor]:
        value = loss(pred, target)
        (gradient,) = torch.autograd.grad(value, pred)
        return float(value.detach()), gradient

    (value, gradient), (their_value, their_gradient) = step(losses["ours"]), step(losses["monai"])
    seconds = measure({name: lambda loss=loss: step(loss) for name, loss in losses.items()}, repeats)
    return {
        "input": [2, 1, *size],
        "kernel_size": KERNEL,
        "seconds": seconds,
        "ratio": seconds["monai"] / seconds["ours"],
        "value_difference": abs(value - their_value),
        "gradient_difference": float((gradient - their_gradient).abs().max() / their_gradient.abs().max()),
    }


def compare_training_step(
    build: Callable[[], nn.Module], repeats: int, size: tuple[int, int, int] = SIZE, batch: int = 2
) -> dict[str, Any]:
    """One step (forward, LNCC and bending energy, backward, Adam) of our network and of MONAI's VoxelMorph and LocalNet.

    Args:
        build: makes our network: (fixed, moving) -> object with ``ddf`` (B, 3, D, H, W).
        repeats: measured steps each.
        size: grid in voxels, multiples of 16.
        batch: pairs a step.
    """
    generator = torch.Generator().manual_seed(0)
    fixed, moving = torch.rand((2, batch, 1, *size), generator=generator)
    ours, voxelmorph = build().train(), VoxelMorph()
    localnet = LocalNet(spatial_dims=3, in_channels=2, num_channel_initial=32, extract_levels=(3,), out_kernel_initializer="zeros")
    displacement = {
        "ours": (ours, lambda: ours(fixed, moving).ddf),
        "monai_voxelmorph": (voxelmorph, lambda: voxelmorph(moving, fixed)[1]),
        "monai_localnet": (localnet, lambda: localnet(torch.cat((moving, fixed), dim=1))),
    }
    similarity, smoothness = LocalNCCLoss(kernel_size=KERNEL), BendingEnergyLoss()

    def stepper(network: nn.Module, predict: Callable[[], torch.Tensor]) -> Callable[[], None]:
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-5)

        def step() -> None:
            optimiser.zero_grad()
            ddf = predict()
            (similarity(warp(moving, ddf), fixed) + smoothness(ddf)).backward()
            optimiser.step()

        return step

    seconds = measure({name: stepper(network, predict) for name, (network, predict) in displacement.items()}, repeats)
    return {
        "input": [batch, 1, *size],
        "seconds": seconds,
        "parameters": {name: sum(p.numel() for p in network.parameters()) for name, (network, _) in displacement.items()},
        "ratio_voxelmorph": seconds["monai_voxelmorph"] / seconds["ours"],
        "ratio_localnet": seconds["monai_localnet"] / seconds["ours"],
    }


def compare_pairs(network: nn.Module, plan: Plan, pairs: list[tuple[Case, Case]], repeats: int, score: bool) -> dict[str, Any]:
    """Registering pairs by our network and by ANTs SyN.

    The first pair is timed ``repeats`` times by both; with ``score`` all pairs are registered once and the mean Dice over the labels of
    the fixed image is taken, labels warped by nearest neighbour in the fixed image's own voxels.

    Args:
        network: (fixed, moving) -> object with ``ddf``.
        plan: what brings images to the network's grid.
        pairs: (moving, fixed).
        repeats: measurements of the first pair.
        score: whether to take the Dice.
    """
    methods: dict[str, Callable[[_Pair], Callable[[], np.ndarray]]] = {"ours": lambda pair: lambda: _by_network(network, plan, pair)}
    result: dict[str, Any] = {"pairs": len(pairs) if score else 1}
    if importlib.util.find_spec("ants") is None:
        print("  ANTs is not installed (make peers): skipped")
        result["ants_syn"] = "skipped"
    else:
        methods["ants_syn"] = _by_syn
    first = _Pair(*pairs[0])
    result["seconds"] = measure({name: register(first) for name, register in methods.items()}, repeats)
    if "ants_syn" in methods:
        result["ratio"] = result["seconds"]["ants_syn"] / result["seconds"]["ours"]
    if score:
        scores: dict[str, list[float]] = {name: [] for name in methods}
        for moving, fixed in pairs:
            pair = _Pair(moving, fixed)
            for name, register in methods.items():
                scores[name].append(_mean_dice(register(pair)(), pair.fixed_label, plan))
        result["dice"] = {name: {"mean": float(np.mean(values)), "std": float(np.std(values))} for name, values in scores.items()}
    return result


class _Pair:
    """Arrays of a pair as stored: reading files is nobody's time."""

    def __init__(self, moving: Case, fixed: Case) -> None:
        self.moving, self.moving_affine = load_volume(moving.image)
        self.fixed, self.fixed_affine = load_volume(fixed.image)
        self.moving_label = load_volume(moving.label)[0]
        self.fixed_label = load_volume(fixed.label)[0]


def _by_network(network: nn.Module, plan: Plan, pair: _Pair) -> np.ndarray:
    """Preprocessing, network, image and label warped and brought to the fixed image's voxels; returns the label map."""
    dtype = autocast_dtype("auto", torch.device("cpu"))
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        fixed, mapping = to_plan(pair.fixed, pair.fixed_affine, plan)
        moving, _ = to_plan(pair.moving, pair.moving_affine, plan)
        label, _ = to_plan(pair.moving_label, pair.moving_affine, plan, is_label=True)
        ddf = network(fixed[None], moving[None]).ddf
        mapping.to_native(warp(moving[None], ddf)[0, 0], mode="linear")
        return mapping.to_native(warp(label[None], ddf, mode="nearest")[0, 0], mode="nearest").numpy()


def _by_syn(pair: _Pair) -> Callable[[], np.ndarray]:
    """ANTs' default SyN of the pair; the function returned registers it and returns the warped label map."""
    import ants

    def image(array: np.ndarray, affine: np.ndarray) -> Any:
        # ants counts in LPS millimetres, nibabel in RAS
        affine = np.diag((-1.0, -1.0, 1.0, 1.0)) @ affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        return ants.from_numpy(
            np.ascontiguousarray(array, dtype=np.float32),
            origin=affine[:3, 3].tolist(),
            spacing=spacing.tolist(),
            direction=affine[:3, :3] / spacing,
        )

    fixed, moving = image(pair.fixed, pair.fixed_affine), image(pair.moving, pair.moving_affine)
    label = image(pair.moving_label, pair.moving_affine)

    def register() -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            found = ants.registration(fixed, moving, type_of_transform="SyN", outprefix=os.path.join(folder, "syn"))
            return ants.apply_transforms(fixed, label, found["fwdtransforms"], interpolator="nearestNeighbor").numpy()

    return register


def _mean_dice(prediction: np.ndarray, truth: np.ndarray, plan: Plan) -> float:
    return mean_of([dice(prediction == value, truth == value) for value in foreground(plan.labels)])


def _pairs(dataset: Dataset, report: int, seed: int) -> list[tuple[Case, Case]]:
    cases = _report_cases(dataset, report, seed)
    pairs = [(cases[moving], cases[fixed]) for moving, fixed in report_pairs(len(cases))]
    if not pairs:
        raise DataError(f"{dataset.root / 'dataset.json'}: too few labelled cases for a pair")
    return pairs


def _report_cases(dataset: Dataset, report: int, seed: int) -> list[Case]:
    cases = {case.name: case for case in dataset.cases if case.label is not None}
    _, names = report_split(cases, min(report, len(cases) - 1), seed)
    return [cases[name] for name in names]


def _plan_for(size: tuple[int, int, int], extra: Mapping[str, Any] | None = None) -> Plan:
    return Plan(labels={0: "background", 1: "first", 2: "second"}, size=size, extra=dict(extra or {}))


def _machine() -> dict[str, str]:
    names = ("torch", "monai", "numpy", "antspyx")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _say(what: str) -> None:
    print(f"{what} ...", flush=True)


def _report(result: Mapping[str, Any]) -> None:
    print(f"\n{result['machine']['cpu']}, {result['threads']} threads; median of {result['repeats']}, seconds")
    for part in ("lncc", "training_step", "pair"):
        for name, seconds in result[part]["seconds"].items():
            times = seconds / result[part]["seconds"]["ours"]
            print(f"  {part:14} {name:18} {seconds:8.4f}  {times:6.1f} x ours")
    lncc = result["lncc"]
    print(f"  lncc, ours less MONAI's: value {lncc['value_difference']:.1e}, gradient {lncc['gradient_difference']:.1e} of its largest")
    for name, score in result["pair"].get("dice", {}).items():
        print(f"  Dice over {result['pair']['pairs']} pairs: {name} {score['mean']:.3f} +- {score['std']:.3f}")
