"""The options of the kNN evaluator. This module imports neither torch nor NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from siamtransfer.evaluation.config import EvaluationConfig, OneCheckpointConfig
from siamtransfer.utils.errors import UserError

NeighbourMetric = Literal["cosine", "euclidean"]
SearchBackend = Literal["auto", "product", "faiss"]


@dataclass
class KnnConfig(OneCheckpointConfig):
    """kNN's own options, with those of every evaluator."""

    common: ClassVar[tuple[str, ...]] = (*EvaluationConfig.common, "k", "temperature", "metric", "neighbours")

    k: list[int] = field(default_factory=lambda: [10, 20, 100, 200])
    """Numbers of neighbours; one above what the bank has becomes that, with a remark."""
    temperature: list[float] = field(default_factory=lambda: [0.07])
    """Temperatures of the vote."""
    test_branch: str | None = None
    """Which backbone of the checkpoint sees the test images, where it is another: second, for those of the
    second column, where each has a trunk or batch norms of its own; column: that of the test images' column
    where the checkpoint has one for each, else the one for both; null: that of branch."""
    uniform: bool = False
    """Also count every neighbour alike."""
    metric: NeighbourMetric = "cosine"
    """How near two features are; euclidean votes weigh 1 / distance, whatever the temperature."""
    memory_budget: float = 2.0
    """GiB for the search; a larger bank is taken in chunks, from an uncompressed .npz unloaded."""
    backend: SearchBackend = "auto"
    """What searches: product (the matrix product), faiss, or auto: FAISS on a GPU where it is installed, the
    product elsewhere."""
    faiss_devices: int = 1
    """GPUs, from the chosen one on, that share the bank by FAISS when one process searches."""
    bank_dtype: Literal["auto", "float16"] = "auto"
    """float16 scales the bank's rows to length one and rounds them to half precision (cosine only); auto
    leaves them as they are."""
    neighbours: str | None = None
    """Draw queries and their neighbours there (GRID.png)."""

    baselines: bool | None = None
    """Also score raw pixels, the untrained network and guessing on the same images, and warn where the
    checkpoint does not beat raw pixels; null: for small sets of your own and embedded ones."""

    @property
    def branch_of_test(self) -> str | None:
        """`test_branch`, by default `branch`."""
        return self.test_branch or self.branch

    def check(self) -> None:
        super().check()
        if self.test_branch is not None and (self.feature_files or "pixels" in self.sources):
            raise UserError("--test-branch is of a checkpoint's backbones, and none is given: leave it out")
        if not self.k or min(self.k) < 1:
            raise UserError("--k must be at least 1")
        if not self.temperature or min(self.temperature) <= 0:
            raise UserError("--temperature must be above 0")
        if not self.memory_budget > 0:
            raise UserError("--memory-budget must be above 0")
        if self.faiss_devices < 1:
            raise UserError("--faiss-devices must be at least 1")
        if self.backend == "faiss" and self.metric != "cosine":
            raise UserError("--backend faiss searches by --metric cosine only: take --backend product")
        if self.bank_dtype == "float16" and self.metric != "cosine":
            raise UserError(
                "--bank-dtype float16 rounds rows of length one: it goes with --metric cosine only"
            )
