"""The alarm when an adaptation loses what its network knew."""

from __future__ import annotations

from dataclasses import dataclass, field

WHAT_HELPS = "a smaller --adapt.trunk-lr, --adapt.layer-decay below 1, --adapt.lora-rank, or fewer epochs"


@dataclass
class ForgettingWatch:
    """Raises an alarm when the accuracy on the retention set falls by more than so many points below the
    start's; the next one needs a check within them before it.

    Attributes:
        start: the accuracy of the network that the run starts from, in percent; None before it is measured.
        alarms: the steps of the alarms.
        within: whether the last check was within the bound.
        kept_step: the step of the state that is kept as good; None without one.
        kept_accuracy: its accuracy on the new images, where that decides.
    """

    start: float | None = None
    alarms: list[int] = field(default_factory=list)
    within: bool = True
    kept_step: int | None = None
    kept_accuracy: float | None = None

    def drop(self, accuracy: float) -> float:
        """The points lost since the start; negative for a gain."""
        assert self.start is not None
        return self.start - accuracy

    def check(self, step: int, accuracy: float, max_drop: float) -> str | None:
        """The alarm's text where the bound is crossed; else None."""
        was_within, self.within = self.within, self.drop(accuracy) <= max_drop
        if self.within or not was_within:
            return None
        self.alarms.append(step)
        return (
            f"FORGETTING at step {step}: kNN on the retention set is {accuracy:.2f} %, "
            f"{self.drop(accuracy):.2f} points below the start's {self.start:.2f} % (adapt.max_drop "
            f"{max_drop:g}); what helps: {WHAT_HELPS}"
        )

    def deserves_keeping(self, accuracy: float | None) -> bool:
        """Whether the state of this check, which `check` has seen, is to be kept as the good one. With the
        `accuracy` on the new images, only if it is the best of those within the bound; None: if it is
        within."""
        if not self.within:
            return False
        return accuracy is None or self.kept_accuracy is None or accuracy > self.kept_accuracy

    def keep(self, step: int, accuracy: float | None) -> None:
        """Remembers that the state of `step` is the good one."""
        self.kept_step, self.kept_accuracy = step, accuracy
