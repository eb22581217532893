"""Forward and backward pass of a method as a CUDA graph: recorded once, replayed every step.

A replay is one launch instead of thousands. It reads and writes the memory of the recording, so views are
copied into its inputs, and gradients are where the recording put them. The check and the update follow
outside the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import Method, StepOutput
from siamtransfer.utils.errors import UserError

EAGER_STEPS = 3
"""Steps before a recording: they choose algorithms and create what a recording may not."""

ForwardBackward = Callable[[list[Tensor]], tuple[Tensor, StepOutput]]


def refuse_graph(method: Method, runtime: Runtime, grad_accum_steps: int) -> None:
    """Raises UserError where the forward and backward pass of `method` cannot be recorded."""
    reasons = (
        (runtime.device.type != "cuda", "it needs a GPU, and this run is on the CPU"),
        (runtime.world_size > 1, f"it works on one GPU, and this run has {runtime.world_size} ranks"),
        (runtime.dtype == torch.float16, "float16's loss scaler reads numbers on the host"),
        (grad_accum_steps > 1, "optim.grad_accum_steps has several passes a step"),
        (not method.recordable, f"{type(method).__name__}'s forward pass depends on numbers of the host"),
    )
    for holds, reason in reasons:
        if holds:
            raise UserError(f"hardware.cuda_graph: {reason}; leave it out")


@dataclass
class Recording:
    """A graph with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    views: list[Tensor]
    loss: Tensor
    output: StepOutput
    gradients: list[tuple[nn.Parameter, Tensor]]


class StepGraph:
    """Calls `forward_backward(views)`, which returns the detached loss and the output and leaves gradients in
    the parameters of `method`; after some calls it records one and replays it.

    What a replay returns is overwritten by the next one. Views of another shape or dtype, or another
    `method.graph_key`, begin anew.
    """

    def __init__(self, method: Method, forward_backward: ForwardBackward):
        self.method, self.forward_backward = method, forward_backward
        self._key: object = None
        self._eager_steps = 0
        self._recording: Recording | None = None

    def __call__(self, views: list[Tensor]) -> tuple[Tensor, StepOutput]:
        """One pass over `views`, each [N, 3, S, S]."""
        key = ([(view.shape, view.dtype) for view in views], self.method.graph_key)
        if key != self._key:
            self._key, self._eager_steps, self._recording = key, 0, None
        if self._recording is None:
            if self.method.graph_key is None or self._eager_steps < EAGER_STEPS:
                self._eager_steps += 1
                return self._apart(views)
            self._recording = self._record(views)
        return replay(self._recording, views)

    def _apart(self, views: list[Tensor]) -> tuple[Tensor, StepOutput]:
        """A pass on a stream of its own, as the one before a recording has to be."""
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            result = self.forward_backward(views)
        current.wait_stream(side)
        return result

    def _record(self, views: list[Tensor]) -> Recording:
        """Records a pass without computing it. Gradients are None before, so that each replay writes them
        instead of adding to them."""
        inputs = [view.clone(memory_format=torch.preserve_format) for view in views]
        for parameter in self.method.parameters():
            parameter.grad = None
        graph = torch.cuda.CUDAGraph()
        # The loader's thread pins memory meanwhile, which a recording of all threads would refuse.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            loss, output = self.forward_backward(inputs)
        gradients = [(p, p.grad) for p in self.method.parameters() if p.grad is not None]
        return Recording(graph, inputs, loss, output, gradients)


def replay(recording: Recording, views: Sequence[Tensor]) -> tuple[Tensor, StepOutput]:
    """Copies `views` into the recording's inputs, computes, and gives its gradients back to the parameters,
    from which the step before removed them."""
    for static, view in zip(recording.views, views, strict=True):
        static.copy_(view)
    recording.graph.replay()
    for parameter, gradient in recording.gradients:
        parameter.grad = gradient
    return recording.loss, recording.output
