"""Checks of what is installed, and whether it fits together and the GPU's driver."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator

import torch

from siamtransfer.detection.detectron2.compat import import_detectron2, is_installed
from siamtransfer.distributed.runtime import has_native_bfloat16
from siamtransfer.doctor.findings import Finding, advised, check, judged, measured
from siamtransfer.doctor.workbench import GIB, Workbench
from siamtransfer.records.record import versions
from siamtransfer.utils.errors import UserError

OPTIONAL = ("detectron2", "pycocotools", "hotcoco", "wandb", "mlflow", "nvidia-ml-py", "pyarrow", "datasets")
"""Packages of extras; the numbers of one that is missing are not in the record."""


@check("versions")
def check_versions(bench: Workbench) -> Iterator[Finding]:
    """The version of everything that can move a number, and Python's least one."""
    for name, version in versions().items():
        yield Finding(f"version/{name}", "INFO", version, version)
    for name in OPTIONAL:
        if (installed := version_of(name)) is not None:
            yield Finding(f"version/{name}", "INFO", installed, installed)
    found = sys.version.split()[0]
    yield judged("python", sys.version_info >= (3, 11), f"{found}, 3.11 or newer is needed", found)


@check("torchvision")
def check_torchvision(bench: Workbench) -> Iterator[Finding]:
    """torchvision's compiled part is of one version of torch."""
    wanted, found = required_version("torchvision", "torch"), torch.__version__.split("+")[0]
    own = version_of("torchvision")
    if wanted is not None and wanted != found:
        text = f"torchvision {own} is for torch {wanted}, and torch is {found}"
        yield Finding("torchvision", "FAIL", f"{text}: install the torchvision of torch {found}")
        return
    try:
        ops = importlib.import_module("torchvision.ops")
        ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except (ImportError, RuntimeError, AttributeError) as error:
        text = f"torchvision {own} does not work with torch {found} ({error})"
        yield Finding("torchvision", "FAIL", f"{text}: install the torchvision of torch {found}")
        return
    yield Finding("torchvision", "PASS", f"torchvision {own} works with torch {found}")


@check("cuda")
def check_cuda(bench: Workbench) -> Iterator[Finding]:
    """torch's CUDA against the driver's."""
    driver, built = driver_cuda(), torch.version.cuda
    if driver is None and built is None:
        yield Finding("cuda", "INFO", "no NVIDIA driver, and torch is built for the CPU")
    elif driver is None:
        yield Finding("cuda", "INFO", f"no NVIDIA driver here; torch is built for CUDA {built}")
    elif built is None:
        yield Finding("cuda", "FAIL", "there is a GPU and torch is built for the CPU: install torch for CUDA")
    else:
        enough = driver[0] >= int(built.split(".")[0])
        yield judged(
            "cuda/driver",
            enough,
            f"the driver has CUDA {driver[0]}.{driver[1]}, torch is built for {built}"
            + ("" if enough else ": update the driver, or install torch for an older CUDA"),
        )
        if enough:
            yield judged(
                "cuda/usable",
                torch.cuda.is_available(),
                "torch can use the GPU"
                if torch.cuda.is_available()
                else "torch cannot use the GPU: see CUDA_VISIBLE_DEVICES, and in a container --gpus all",
            )


@check("devices")
def check_devices(bench: Workbench) -> Iterator[Finding]:
    """Each GPU: name, memory, compute capability; whether torch has code for it."""
    if not torch.cuda.is_available():
        yield Finding("devices", "INFO", "no GPU: everything runs on the CPU")
        return
    built_for = torch.cuda.get_arch_list()
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        number = f"{gpu.major}{gpu.minor}"
        yield measured(
            f"devices/{index}/memory_GiB",
            gpu.total_memory / GIB,
            f"{gpu.name}, {gpu.total_memory / GIB:.1f} GiB",
        )
        covered = any(re.fullmatch(rf"(sm|compute)_{gpu.major}\d[a-z]?", arch) for arch in built_for)
        yield judged(
            f"devices/{index}/capability",
            covered,
            f"compute capability {gpu.major}.{gpu.minor}"
            + ("" if covered else f": this torch has no code for sm_{number}, install a build that has"),
            f"{gpu.major}.{gpu.minor}",
        )
    native = has_native_bfloat16()
    yield Finding(
        "devices/precision",
        "INFO",
        f"precision: auto is {'bfloat16' if native else 'float16, for this GPU only emulates bfloat16'}",
        "bfloat16" if native else "float16",
    )


@check("nccl")
def check_nccl(bench: Workbench) -> Iterator[Finding]:
    """The exchange between several GPUs."""
    if not torch.cuda.is_available():
        yield Finding("nccl", "INFO", "not needed without a GPU; ranks on the CPU use gloo")
        return
    there = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    version = ".".join(map(str, torch.cuda.nccl.version())) if there else "missing"
    cure = "several GPUs need a torch that is built with it"
    yield advised("nccl", there or torch.cuda.device_count() < 2, f"NCCL {version}", cure, version)


@check("faiss")
def check_faiss(bench: Workbench) -> Iterator[Finding]:
    """One FAISS, for what the machine has, of torch's CUDA."""
    packages = faiss_packages()
    on_gpu = {name: version for name, version in packages.items() if name.startswith("faiss-gpu")}
    if len(packages) > 1:
        names = " and ".join(packages)
        yield Finding(
            "faiss/one",
            "FAIL",
            f"{names} are one module: pip uninstall {' '.join(packages)}, then install one",
        )
    if importlib.util.find_spec("faiss") is None:
        yield Finding("faiss", "INFO", "not installed: kNN uses torch's exact search")
        return
    try:
        faiss = importlib.import_module("faiss")
    except Exception as error:
        yield Finding("faiss/import", "FAIL", f"does not load ({error}): install it again, or remove it")
        return
    yield Finding("faiss/version", "INFO", f"{faiss.__version__} of {', '.join(packages) or 'no package'}")
    has_gpu = torch.cuda.is_available()
    yield advised(
        "faiss/for_this_machine",
        bool(on_gpu) == has_gpu or not packages,
        "for GPUs" if on_gpu else "for the CPU",
        "install the extra gpu of siamtransfer" if has_gpu else "install the extra cpu of siamtransfer",
    )
    if on_gpu and has_gpu:
        yield from faiss_and_torch(next(iter(on_gpu)), faiss.get_num_gpus())


def faiss_and_torch(package: str, gpus: int) -> Iterator[Finding]:
    """Whether FAISS for GPUs sees them and is built for torch's CUDA."""
    cure = f"install a build of {package} for CUDA {torch.version.cuda}"
    yield judged("faiss/gpus", gpus > 0, f"sees {gpus} GPUs" + ("" if gpus else f": {cure}"), gpus)
    built, ours = cuda_of_package(package), str(torch.version.cuda).split(".")[0]
    if built is not None:
        yield advised("faiss/cuda", built == ours, f"CUDA {built}, torch has CUDA {ours}", cure)


@check("detectron2")
def check_detectron2(bench: Workbench) -> Iterator[Finding]:
    """Detectron2 loads; its compiled part, where it is there, is of one version of torch."""
    if not is_installed():
        yield Finding("detectron2", "INFO", "not installed: conversions are checked by keys and shapes only")
        return
    try:
        yield Finding("detectron2", "PASS", f"{import_detectron2()} loads")
    except UserError as error:
        yield Finding("detectron2", "FAIL", str(error))


def version_of(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def required_version(package: str, of: str) -> str | None:
    """The one version of another package that an installed one asks for, `of==VERSION`; None for a range."""
    for line in requirements(package):
        if match := re.match(rf"{of}\s*\(?==\s*([\w.]+)", line):
            return match[1]
    return None


def requirements(package: str) -> list[str]:
    try:
        return importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def faiss_packages() -> dict[str, str]:
    """Installed packages that hold the module faiss, with versions."""
    names = importlib.metadata.packages_distributions().get("faiss", [])
    return {name: importlib.metadata.version(name) for name in dict.fromkeys(names)}


def cuda_of_package(package: str) -> str | None:
    """The CUDA major that a package's name or its requirements speak of; None where neither does."""
    for line in [package, *requirements(package)]:
        if match := re.search(r"(?:-cu|cuda[-_]?|cublas(?:\s*\(?[>=~]=\s*))(\d{2})", line):
            return match[1]
    return None


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the NVIDIA driver has; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return number.value // 1000, number.value % 1000 // 10
