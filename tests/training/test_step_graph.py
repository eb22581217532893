"""Recording a step as a CUDA graph: what is refused, when it is recorded, and what a replay moves.

The recording itself needs a GPU; here its graph is one that counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_methods import SMALL, small, some_views
from support.small_runs import TINY
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import StepInfo, StepOutput
from siamtransfer.programs.pretrain import main
from siamtransfer.training.step_graph import EAGER_STEPS, Recording, StepGraph, refuse_graph
from siamtransfer.utils.errors import UserError

GPU = Runtime(torch.device("cuda"), torch.float32)


@pytest.mark.parametrize(
    ("runtime", "name", "parts", "why"),
    [
        (Runtime(torch.device("cpu"), torch.float32), "simsiam", 1, "needs a GPU"),
        (Runtime(torch.device("cuda"), torch.float32, 0, 2), "simsiam", 1, "has 2 ranks"),
        (Runtime(torch.device("cuda"), torch.float16), "simsiam", 1, "loss scaler"),
        (GPU, "simsiam", 2, "grad_accum_steps"),
        (GPU, "simsiam-variants", 1, "SimSiamVariants's forward"),
    ],
)
def test_what_cannot_be_recorded_is_refused(runtime: Runtime, name: str, parts: int, why: str) -> None:
    with pytest.raises(UserError, match=f"hardware.cuda_graph: .*{why}"):
        refuse_graph(small(name), runtime, parts)


def test_eleven_methods_can_be_recorded_and_unigrads_eigenvectors_cannot() -> None:
    for name in SMALL:
        if name != "simsiam-variants":
            refuse_graph(small(name), GPU, 1)
    with pytest.raises(UserError, match="UniGrad"):
        refuse_graph(small("unigrad", negative="asymmetric"), GPU, 1)


def test_a_run_on_the_cpu_is_refused_before_its_first_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a GPU"):
        main([*TINY, f"--run.dir={tmp_path / 'run'}", "--hardware.cuda_graph"])
    assert not list((tmp_path / "run").glob("*.pth"))


class Counted:
    """A graph that doubles its input where a real one would launch a recording."""

    def __init__(self, views: list[Tensor], loss: Tensor):
        self.views, self.loss, self.replays = views, loss, 0

    def replay(self) -> None:
        self.replays += 1
        self.loss.copy_(2 * self.views[0].sum())


def test_a_replay_copies_the_views_and_gives_gradients_back(monkeypatch: pytest.MonkeyPatch) -> None:
    method, calls = small("dino"), []
    graphs: list[Counted] = []
    weight = next(method.parameters())
    gradient = torch.ones_like(weight)

    def eager(views: list[Tensor]) -> tuple[Tensor, StepOutput]:
        calls.append("eager")
        return 2 * views[0].sum(), StepOutput(views[0].sum(), [])

    def record(self: StepGraph, views: list[Tensor]) -> Recording:
        calls.append("record")
        inputs, loss = [torch.empty_like(view) for view in views], torch.zeros((), dtype=torch.float64)
        graphs.append(Counted(inputs, loss))
        graph: Any = graphs[-1]
        return Recording(graph, inputs, loss, StepOutput(loss, []), [(weight, gradient)])

    monkeypatch.setattr(StepGraph, "_record", record)
    monkeypatch.setattr(StepGraph, "_apart", lambda self, views: self.forward_backward(views))
    graph = StepGraph(method, eager)
    for step in range(EAGER_STEPS + 2):
        views = some_views(step)
        loss, _ = graph(views)
        assert float(loss) == pytest.approx(2 * float(views[0].sum()))
    assert calls == ["eager"] * EAGER_STEPS + ["record"]
    assert (graphs[0].replays, weight.grad is gradient) == (2, True)
    method.before_forward(StepInfo(5, 10, 1))  # another epoch: DINO's teacher has another temperature
    graph(some_views())
    graph([view[:4] for view in some_views()])
    assert calls[EAGER_STEPS + 1 :] == ["eager", "eager"]


def test_swav_is_not_recorded_while_its_queue_fills() -> None:
    method = small("swav")
    keys = []
    for step in range(3):
        method.before_forward(StepInfo(step, 10, 5))
        keys.append(method.graph_key)
        method(some_views(step))
    assert keys == [None, None, True]


@pytest.mark.gpu
def test_on_a_gpu_recorded_steps_are_those_of_launches() -> None:
    from siamtransfer.optim.config import OptimConfig
    from siamtransfer.optim.optimizers import build_optimizer
    from siamtransfer.training.guard import StepContext
    from siamtransfer.training.step import Updater, forward_backward, train_step

    losses = []
    for recorded in (False, True):
        method = small("simsiam").cuda()
        optimizer = build_optimizer(OptimConfig(lr=0.05, batch_size=256), method.groups())
        updater = Updater(method, optimizer, GPU.scaler(), GPU)
        if recorded:
            updater.graph = StepGraph(
                method, lambda views, m=method: forward_backward(m, views, 1, GPU, GPU.scaler())
            )
        for step in range(EAGER_STEPS + 4):
            views = [view.cuda() for view in some_views(step)]
            _, report = train_step(updater, views, StepContext(step, 0.05), StepInfo(step, 20, 5))
            losses.append(report.loss)
    assert losses[: len(losses) // 2] == pytest.approx(losses[len(losses) // 2 :], rel=1e-9)
