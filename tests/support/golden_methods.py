"""Two sets of numbers that the published code of each method computed at small size, read in one way, and
small runs of a method on one rank or several.

`golden/methods/NAME.npz` has float64 numbers only; `golden/methods/full/NAME.npz` is a second, independent
set in float32 and float64, in which target networks differ from the online ones at the start. Both start from
given weights and hold the outputs, loss and gradients of one step and the state after five. `Golden` hides
how either set names its arrays; a `names` table says what the published code calls our modules.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods.base import Method, StepInfo, trainable
from support import paths

FOLDER = paths.GOLDEN / "methods"
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
DTYPES = list(TOLERANCE)
ALONE = Runtime(torch.device("cpu"), torch.float32)
FIRST = StepInfo(step=0, steps=1000, steps_per_epoch=100)
STEPS = 5
FULL_BACKBONE = {"backbone.c": "encoder.conv", "backbone.b": "encoder.bn"}
FULL_TARGET = {"target_backbone.c": "target.encoder.conv", "target_backbone.b": "target.encoder.bn"}


class TinyBackbone(nn.Module):
    """Two convolutions, x[N,3,S,S] -> h[N,16]; the golden encoder."""

    dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.b1 = nn.BatchNorm2d(8)
        self.c2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.b2 = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b1(self.c1(x)).relu()
        return self.b2(self.c2(x)).relu().mean(dim=(2, 3))


@dataclass
class Golden:
    """One golden file: `names` maps the beginnings of our tensors' names to the published ones."""

    file: str
    names: dict[str, str]

    def __post_init__(self) -> None:
        arrays = np.load(FOLDER / self.file)
        self.arrays = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}
        self.full = self.file.startswith("full/")

    def published(self, name: str) -> str:
        """The published name of our tensor `name`."""
        for ours, theirs in self.names.items():
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name

    def views(self, step: int, dtype: torch.dtype) -> list[Tensor]:
        """The views of a step, global ones first."""
        if not self.full:
            local = list(self.arrays["local_views"][step]) if "local_views" in self.arrays else []
            return [view.to(dtype) for view in [*self.arrays["views"][step], *local]]
        names = [name for name in self.arrays if name.startswith(f"input/step{step}/")]
        return [self.arrays[name].to(dtype) for name in sorted(names)]

    def get(self, group: str, name: str, dtype: torch.dtype) -> Tensor:
        """An array of step 0's outputs (`out`) or gradients (`grad`), or of the final state (`final`)."""
        return self.arrays[f"{self.group(group, dtype)}/{name}"]

    def gradients(self, dtype: torch.dtype) -> set[str]:
        """The published names of the parameters that have a gradient."""
        group = self.group("grad", dtype) + "/"
        return {name.removeprefix(group) for name in self.arrays if name.startswith(group)}

    def group(self, group: str, dtype: torch.dtype) -> str:
        if not self.full:
            return {"out": "step0"}.get(group, group)
        number = "" if group == "final" else "0"
        return f"{group}{number}{'_f64' if dtype == torch.float64 else ''}"

    def trained_in(self) -> list[torch.dtype]:
        """In which arithmetic the five steps may be compared. A float32 run need not repeat a float64 one: in
        SwAV's first set a ReLU's input comes within 5e-7 of zero, and rounding switches it."""
        return DTYPES if self.full else [torch.float64]

    def losses(self, dtype: torch.dtype) -> Tensor:
        if not self.full:
            return self.arrays["losses"]
        return self.arrays["loss_f64" if dtype == torch.float64 else "loss"]

    def fill(self, method: Method) -> None:
        """Gives `method` the initial weights; state that the file lacks stays as it was built."""
        for name, tensor in method.state_dict().items():
            key = f"init/{self.published(name)}"
            if key in self.arrays:
                tensor.copy_(self.arrays[key].reshape(tensor.shape))
            else:
                assert name in dict(method.named_buffers()), f"{name} has no initial value"


def assert_close(ours: Tensor, theirs: Tensor, dtype: torch.dtype, what: str) -> None:
    """Equal to the tolerance, of each entry or of the largest one where that is above 1."""
    tolerance, theirs = TOLERANCE[dtype], theirs.double().reshape(ours.shape)
    torch.testing.assert_close(
        ours.detach().double(),
        theirs,
        rtol=tolerance,
        atol=tolerance * max(1.0, float(theirs.abs().max())),
        msg=lambda text: f"{what}: {text}",
    )


def assert_same_gradients(method: Method, golden: Golden, dtype: torch.dtype) -> None:
    """Every parameter has the published gradient, or none where the published code has none."""
    compared = set()
    for name, parameter in method.named_parameters():
        published = golden.published(name)
        if parameter.grad is not None:
            assert_close(parameter.grad, golden.get("grad", published, dtype), dtype, f"gradient of {name}")
            compared.add(published)
    assert compared == golden.gradients(dtype)


def train(
    method: Method,
    golden: Golden,
    dtype: torch.dtype,
    info: StepInfo = FIRST,
    *,
    decay_vectors: bool = True,
) -> Tensor:
    """Trains five steps as the golden runs did, with every hook; returns the losses. `info` is that of the
    first step, and schedules stay there. Weight decay leaves biases and the like out unless
    `decay_vectors`."""
    vectors = [p for p in trainable(method) if p.ndim < 2]
    matrices = [p for p in trainable(method) if p.ndim >= 2]
    optimizer = torch.optim.SGD(
        [{"params": matrices}, {"params": vectors, "weight_decay": 1e-4 if decay_vectors else 0.0}],
        lr=0.05,
        momentum=0.9,
        weight_decay=1e-4,
    )
    losses = []
    for step in range(STEPS):
        now = dataclasses.replace(info, step=info.step + step, steps=10**12)
        losses.append(one_step(method, optimizer, golden.views(step, dtype), now))
    return torch.stack(losses)


def one_step(
    method: Method,
    optimizer: torch.optim.Optimizer,
    views: list[Tensor],
    info: StepInfo,
    model: nn.Module | None = None,
) -> Tensor:
    """A step as pretrain/main.py makes it, through `model` where that wraps the method; returns the loss."""
    method.before_forward(info)
    loss = (model or method)(views).loss
    optimizer.zero_grad()
    loss.backward()
    method.before_update(info)
    optimizer.step()
    method.after_update(info)
    return loss.detach()


def assert_trained_like(
    method: Method, golden: Golden, dtype: torch.dtype, losses: Tensor, without: tuple[str, ...] = ()
) -> None:
    """Five losses, and the state after them, but for names that begin with one of `without`."""
    assert_close(losses, golden.losses(dtype), dtype, "losses")
    for name, tensor in method.state_dict().items():
        if not name.startswith(without):
            assert_close(tensor, golden.get("final", golden.published(name), dtype), dtype, name)


def random_views(*sizes: int, batch: int = 8) -> list[Tensor]:
    """float64 views [batch,3,S,S], the same every time."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 3, s, s, generator=generator, dtype=torch.float64) for s in sizes]


Outcome = tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]
"""The mean loss of a run's last step, its gradients, and the state afterwards."""


def two_steps(method: Method, views: list[Tensor], runtime: Runtime) -> Outcome:
    """Two training steps on this rank's rows of `views`."""
    model = runtime.distribute(method)
    optimizer = torch.optim.SGD(trainable(method), lr=0.1)
    local = [view.chunk(runtime.world_size)[runtime.rank] for view in views]
    for step in range(2):
        loss = one_step(method, optimizer, local, StepInfo(step, 100, 10), model)
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return collectives.all_reduce_mean(loss), gradients, method.state_dict()


def assert_same_outcome(ours: Outcome, theirs: Outcome, what: str = "") -> None:
    assert ours[1].keys() == theirs[1].keys()
    pairs = {"loss": (ours[0], theirs[0])}
    pairs |= {f"gradient of {name}": (ours[1][name], theirs[1][name]) for name in theirs[1]}
    pairs |= {name: (ours[2][name], theirs[2][name]) for name in theirs[2]}
    for name, (tensor, expected) in pairs.items():
        torch.testing.assert_close(
            tensor, expected, rtol=1e-8, atol=1e-10, msg=lambda t, n=name: f"{what} {n}: {t}"
        )
