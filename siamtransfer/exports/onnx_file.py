"""An ONNX file, whose features ONNX Runtime computes as the backbone does.

The input `images` is float32[N, C, H, W], normalised, or uint8 with the normalisation inside; the output
`features` is float32[N, D]. The metadata of the file says which weights it holds and how images are prepared.
Weights above ONNX's limit of 2 GB lie in OUT.onnx.data.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from siamtransfer.exports.account import account_of, images_of
from siamtransfer.exports.graph import INPUT, OUTPUT, as_input, prove_sizes, record_graph
from siamtransfer.exports.network import Network, first_line
from siamtransfer.exports.proof import Proof, Written
from siamtransfer.utils.errors import UserError

OPSET = 20
"""The default: the first with GELU, which older ones spell out."""
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Raises UserError unless the packages of the extra `export` are installed."""
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"--to onnx needs {name}, which is not installed: pip install 'siamtransfer[export]'"
            ) from error


def data_file(out: Path) -> Path:
    """Where the weights lie that are too large for the file itself."""
    return out.with_name(f"{out.name}.data")


def write_onnx(
    network: Network,
    out: Path,
    *,
    opset: int | None = None,
    dynamic_size: bool = False,
    with_preprocessing: bool = False,
) -> dict[str, Proof]:
    """Writes `out`, and `data_file(out)` where the weights are too large, and proves them by ONNX Runtime.

    Raises:
        UserError: the network cannot be written in ONNX, or ONNX Runtime gets other features.
    """
    program = record_graph(network, dynamic_size=dynamic_size, with_preprocessing=with_preprocessing)
    onnx_program = _translate(network, program, opset or OPSET)
    graph = onnx_program.model.graph
    _name_dimensions(graph)
    onnx_program.model.metadata_props.update(_metadata(network, with_preprocessing))
    onnx_program.save(str(out))
    return prove_sizes(
        network,
        _by_onnxruntime(network, out, with_preprocessing),
        "ONNX Runtime",
        dynamic_size=dynamic_size,
    )


def _translate(network: Network, program: Any, opset: int) -> Any:
    """torch's ONNXProgram. The exporter prints its progress, which stays away from our output."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr), _quiet("torch.onnx"):
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
            )
    except Exception as error:  # of the exporter: an operator without a translation, an opset too old
        raise UserError(
            f"{network.read.name} cannot be written in ONNX with opset {opset} ({first_line(error)})"
        ) from error


@contextlib.contextmanager
def _quiet(name: str) -> Any:
    """Silences the warnings of a logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _name_dimensions(graph: Any) -> None:
    """Gives the dimensions of input and output that are free the names batch, height and width."""
    import onnx_ir

    for value, names in (
        (graph.inputs[0], ("batch", "channels", "height", "width")),
        (graph.outputs[0], ("batch", "features")),
    ):
        value.shape = onnx_ir.Shape(
            name if isinstance(size, onnx_ir.SymbolicDim) else size
            for size, name in zip(value.shape, names, strict=True)
        )


def _metadata(network: Network, with_preprocessing: bool) -> dict[str, str]:
    """What the file says of itself, by the names of its metadata."""
    account, images = account_of(network, "onnx"), images_of(network)
    return {
        "siamtransfer": json.dumps(account, allow_nan=False),
        "architecture": network.read.name,
        "weights_digest": network.read.digest,
        "input": "uint8 pixels, 0 to 255" if with_preprocessing else "float32, (pixels / 255 - mean) / std",
        **{key: json.dumps(images[key]) for key in ("mean", "std", "size", "resize", "interpolation")},
    }


def _by_onnxruntime(network: Network, out: Path, with_preprocessing: bool) -> Written:
    """The network in the file, on the CPU.

    Raises:
        UserError: ONNX Runtime does not take the file.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base class of their own
        raise UserError(f"ONNX Runtime does not take {out.name} ({first_line(error)})") from error

    def features(batches: list[Tensor]) -> list[Tensor]:
        inputs = (as_input(network, pixels, with_preprocessing).numpy() for pixels in batches)
        return [torch.from_numpy(session.run([OUTPUT], {INPUT: images})[0]) for images in inputs]

    return features
