"""The alarm when projections collapse."""

from __future__ import annotations

from dataclasses import dataclass, field

LIKELY_CAUSES = (
    "a learning rate too high for this batch (optim.lr)",
    "batch norm that sees too few images or is not synchronised over ranks (optim.batch_size, "
    "optim.grad_accum_steps, hardware.sync_batch_norm)",
    "views so weak that all images look alike (views.recipe)",
)


@dataclass
class CollapseWatch:
    """Raises an alarm when the projections have been collapsed in `patience` checks in a row. The next alarm
    needs as many healthy checks in a row before it.

    Projections are collapsed when their std is below `min_std` or their rank fraction (health/rank_share) is
    below `min_rank_share`. Both bounds come from runs of known outcome (docs/STABILITY.md); methods whose
    embeddings no norm over the batch centres have lower ones (methods.base.UNCENTRED). Both are needed: batch
    norm before the output makes every channel vary within a batch of N, whatever the network computes (one
    image of N that differs from all others leaves a std of 2 / sqrt(N)). So small batches show collapse in
    the rank, and large ones in the std too. Measured, ResNet-18 of small width, on Fashion Scenes:

        N    d     healthy: std, rank, fraction     without stop-gradient, after 100 steps
        16   32    above 0.96, 8.2, 0.76            0.50 to 0.65, 1.2 to 3.1, below 0.41
        32   64    above 0.93, 10.6, 0.68           0.36 to 0.58, 1.3 to 4.8, below 0.46
        256  512   above 0.55, 13.7, 0.47           0.23 to 0.35, 3.4 to 11, below 0.44
    """

    min_std: float = 0.4
    min_rank_share: float = 0.42
    patience: int = 3
    bad_checks: int = 0
    good_checks: int = 0
    armed: bool = True
    alarms: list[int] = field(default_factory=list)

    def check(self, step: int, health: dict[str, float], causes: tuple[str, ...] = ()) -> str | None:
        """The alarm's text, which lists the method's own `causes` too, when a collapse is certain; else None.
        `health` holds the numbers of metrics.spread.projection_health."""
        std, rank = health["health/std"], health["health/effective_rank"]
        if std >= self.min_std and health["health/rank_share"] >= self.min_rank_share:
            self.bad_checks, self.good_checks = 0, self.good_checks + 1
            self.armed |= self.good_checks >= self.patience
            return None
        self.bad_checks, self.good_checks = self.bad_checks + 1, 0
        if not self.armed or self.bad_checks < self.patience:
            return None
        self.armed = False
        self.alarms.append(step)
        return (
            f"COLLAPSE at step {step}: output std x sqrt(d) is {std:.3f} (healthy is near 1) and the "
            f"effective rank {rank:.1f}, so nearly all images get the same projection whatever the loss "
            f"says; likely causes: {', or '.join((*LIKELY_CAUSES, *causes))}"
        )
