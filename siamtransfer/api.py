"""The public functions that load, train, compare and convert; those that evaluate are in evaluation/api.py.

Nothing here prints or ends the process, but for `pretrain(MyMethod)`, which is the program of a method.
Mistakes are UserErrors, messages go through the logger `siamtransfer`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from siamtransfer.config import PretrainConfig
from siamtransfer.config.sections import default_config
from siamtransfer.methods.registry import METHODS, section_of
from siamtransfer.records.comparison import compare
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError

if TYPE_CHECKING:
    from siamtransfer.backbones.backbone import Backbone
    from siamtransfer.checkpoints.conversion import Conversion
    from siamtransfer.checkpoints.read_backbone import ReadBackbone
    from siamtransfer.methods.base import Method
    from siamtransfer.pretraining.monitor import Monitor

__all__ = [
    "PretrainResult",
    "compare",
    "export",
    "load_backbone",
    "pretrain",
    "to_detectron2",
    "to_torchvision",
]


def load_backbone(
    source: str | Path,
    *,
    branch: str | None = None,
    trust_pickle: bool = False,
    normalisation: str | None = None,
    channels: Literal["rgb", "bgr"] | None = None,
    stride_in_1x1: bool | None = None,
    stem: str | None = None,
    output_stride: int | None = None,
    heads: int | None = None,
    architecture: str | None = None,
) -> Backbone:
    """A frozen-ready backbone x[N, 3, H, W] -> h[N, dim] with its weights, float32, in eval mode.

    What the file, the files beside it and its format leave open is assumed, and logged; say it yourself by
    the last seven arguments. One that contradicts the file is refused.

    Args:
        source: a checkpoint of any known format, or a baseline: random:resnet50, torchvision:resnet50.
        branch: which backbone of the file (student, teacher …); by default the one that the method's authors
            evaluate.
        trust_pickle: let the file run Python code on loading; only for files of people you trust.
        normalisation: of the images in pretraining: imagenet, half, none, cifar10 …, or m,m,m/s,s,s.
        channels: the order in which the file's first convolution takes them; x is RGB in any case.
        stride_in_1x1: where bottleneck blocks have their stride (True: MSRA's and Caffe's).
        stem: the first layers of a ResNet, such as small-pad2.
        output_stride: 16 or 8 for a dilated ResNet.
        heads: attention heads of a ViT.
        architecture: the very network, as timm:resnetblur50.

    Returns:
        The module. Its attribute `source` says what was read: format, branch, reading, digest.

    Raises:
        UserError: a key of the file is not explained, missing or misshapen, the file is damaged, or two
            common readings differ in numbers and nothing says which it is.
    """
    from siamtransfer.checkpoints import read_backbone
    from siamtransfer.checkpoints.assumptions import say_assumptions
    from siamtransfer.checkpoints.options import ReadingOptions

    options = ReadingOptions(
        normalisation=normalisation,
        channels=channels,
        stride_in_1x1=stride_in_1x1,
        stem=stem,
        output_stride=output_stride,
        heads=heads,
        architecture=architecture,
    )
    backbone, read = read_backbone.load_backbone(
        source, branch=branch, trust_pickle=trust_pickle, options=options
    )
    say_assumptions(read)
    backbone.source = read
    return backbone


@dataclass(frozen=True, eq=False)
class PretrainResult(Result):
    """The record of a finished run; `checkpoint` is its published file, `folder` the run's folder."""

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint of the run."""
        return Path(self.provenance["checkpoint"])

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.checkpoint.parent


def pretrain(
    what: type[Method] | str | Path | PretrainConfig | None = None,
    config: str | Path | None = None,
    *,
    resume: bool = False,
    monitors: Sequence[Monitor] = (),
    **sections: Mapping[str, Any],
) -> PretrainResult | None:
    """Pretrains a backbone.

        pretrain(data={"root": "my_images"})                                 your own images, as they suit
        pretrain("demo", optim={"epochs": 2}, run={"dir": "runs/mine"})      a configuration, changed
        pretrain(MyMethod, "demo", my_method={"dim": 64})                    a method of your own
        pretrain(MyMethod)      alone, in a script: its command line, with help, --config, --resume and the
        rest

    Args:
        what: a shipped configuration by name, a YAML file, a PretrainConfig, or a method class, which is then
            known under its name. None: own-folder where `data` names images that are not embedded, else demo.
        config: with a method class, the configuration that it runs in.
        resume: continue the run in run.dir.
        monitors: more monitors (`due`, `check`), beside those of the configuration.
        sections: settings by section, such as optim={"lr": 0.1}.

    Returns:
        The result on rank 0, None on the others.

    Raises:
        UserError: a setting, the images or the folder do not allow the run.
    """
    if isinstance(what, type):
        name = METHODS.register(what)
        if config is None and not sections:
            return _program_of(name)
        sections = {**sections, "method": {"name": name, **sections.get("method", {})}}
        what = config
    if what is None:
        data = sections.get("data", {})
        what = default_config(name=data.get("name"), named=bool(data.get("root") or data.get("list_file")))
    settings = what if isinstance(what, PretrainConfig) else _read_settings(what, sections)
    if isinstance(what, PretrainConfig) and sections:
        raise UserError(f"a PretrainConfig is complete: set {', '.join(sections)} in it")
    settings.check()
    from siamtransfer.distributed.runtime import start_runtime
    from siamtransfer.distributed.signals import StopSignal
    from siamtransfer.pretraining import loop

    hardware = settings.hardware
    with (
        start_runtime(
            hardware.device, hardware.precision, hardware.threads, hardware.timeout_minutes
        ) as runtime,
        StopSignal() as stop,
    ):
        record = loop.pretrain(settings, runtime, stop, resume=resume, extra_monitors=monitors)
    if record is None:
        return None
    return PretrainResult("pretrain", record["metrics"], record["protocol"], record["provenance"])


def to_detectron2(source: Backbone | str | Path, out: str | Path, **options: Any) -> Conversion:
    """Writes OUT.pkl and OUT.yaml for Detectron2 and proves the conversion; see
    `siamtransfer.detection.detectron2.convert.to_detectron2` for the options.

    A backbone is converted with the weights that it has now.
    """
    from siamtransfer.detection.detectron2 import convert

    return convert.to_detectron2(_read_of(source), out, **options)


def to_torchvision(source: Backbone | str | Path, out: str | Path, **options: Any) -> Conversion:
    """Writes the backbone under torchvision's (or timm's) names; see
    `siamtransfer.checkpoints.to_torchvision.to_torchvision` for the options.

    A backbone is converted with the weights that it has now.
    """
    from siamtransfer.checkpoints import to_torchvision as convert

    return convert.to_torchvision(_read_of(source), out, **options)


def export(
    source: Backbone | str | Path,
    out: str | Path,
    to: Literal["timm", "huggingface", "onnx", "torch-export"],
    **options: Any,
) -> Conversion:
    """Writes the backbone as a folder of timm or for the Hub, as ONNX or by torch.export, and proves that its
    features are the same; see `siamtransfer.exports.options.ExportOptions` for the options.

    A backbone is exported with the weights that it has now.
    """
    from siamtransfer.exports import export as exports
    from siamtransfer.exports.options import ExportOptions

    read = _read_of(source)
    if isinstance(read, str | Path):
        return exports.export(ExportOptions(checkpoint=str(read), out=str(out), to=to, **options))
    return exports.export(ExportOptions(checkpoint=read.path, out=str(out), to=to, **options), read)


def _read_of(source: Backbone | str | Path) -> ReadBackbone | str | Path:
    """A path as it is; of a backbone what was read, with the weights that it has now."""
    if isinstance(source, str | Path):
        return source
    read = getattr(source, "source", None)
    if read is None:
        raise UserError("this backbone was not read by load_backbone: give a checkpoint")
    from siamtransfer.checkpoints.read_backbone import digest_of

    state = {name: tensor.detach().cpu() for name, tensor in source.state_dict().items()}
    return cast("ReadBackbone", dataclasses.replace(read, state=state, digest=digest_of(state)))


def _read_settings(source: str | Path, sections: Mapping[str, Mapping[str, Any]]) -> PretrainConfig:
    from siamtransfer.cli.shipped import find_config
    from siamtransfer.cli.yaml_file import read_yaml

    tree = read_yaml(find_config(str(source), ("pretrain", "experiments")))
    for section, values in sections.items():
        tree[section] = {**(tree.get(section) or {}), **values}
    name = (tree.get("method") or {}).get("name", "simsiam")
    others = {section_of(method) for method in METHODS} - {section_of(name)} - set(sections)
    return PretrainConfig.from_dict(
        {section: values for section, values in tree.items() if section not in others}
    )


def _program_of(name: str) -> PretrainResult | None:
    """The command line of the program `pretrain` with the method `name`; ends the process."""
    import sys

    from siamtransfer.cli import run
    from siamtransfer.programs.pretrain import main

    words = sys.argv[1:]
    if not any(word.partition("=")[0] == "--method.name" for word in words):
        words = [*words, "--method.name", name]
    run(lambda: main(words))
