"""Says which of two backbones is better, from two records that an evaluator wrote by --record.

    siamtransfer knn a.pth --record a.json
    siamtransfer knn b.pth --record b.json
    siamtransfer compare a.json b.json --setting k=20/T=0.07

The records are compared sample by sample: the 95 % interval of the difference is the paired bootstrap's (of
top-1 exactly, as endlessly many resamples give it), beside McNemar's exact test. "Better" takes both.
Segmentations are compared image by image, by the interval of mIoU's difference alone; values that samples
have, such as the Jaccard index of images, by that of their mean; of errors, such as those of depth, the
lower is better.
Choose the setting beforehand: of several, one may look better by chance.

Records are refused that differ in task, images, labels or protocol. Left out are the normalisation and the
rest of how a checkpoint was read, which belong to the weights, and what a choice on held-out data gave
(chosen_..., held_out_...); siamtransfer/records/likeness.py has the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from siamtransfer.cli import Command, run
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

if TYPE_CHECKING:
    from siamtransfer.records.predictions import SavedRecord


@dataclass
class CompareOptions:
    """Two records, and how they are compared."""

    positional: ClassVar[tuple[str, ...]] = ("first", "second")
    common: ClassVar[tuple[str, ...]] = ("first", "second", "setting", "resamples", "seed")

    first: str | None = None
    """Record of the first (A.json; A.npz lies beside it)."""
    second: str | None = None
    """Record of the second."""
    setting: str | None = None
    """Only this setting, such as k=20/T=0.07; null: all that both records have."""
    resamples: int | None = None
    """Resamples of the mean over classes (null: 10,000), of mAP or of mIoU (null: 1,000)."""
    seed: int = 0
    """Decides the resamples."""

    def check(self) -> None:
        """Raises UserError for a missing record or too few resamples."""
        if self.first is None or self.second is None:
            raise UserError("give two records: A.json and B.json, which evaluators write by --record")
        if self.resamples is not None and self.resamples < 100:
            raise UserError("--resamples must be at least 100, for the interval's ends are their quantiles")


def compare_records(options: CompareOptions) -> dict[str, Any]:
    """Prints which is better and returns the record."""
    options.check()
    from siamtransfer.records.comparison import (
        common_settings,
        compare_predictions,
        default_resamples,
    )
    from siamtransfer.records.image_areas import ImageAreas
    from siamtransfer.records.likeness import refuse_unlike
    from siamtransfer.records.predictions import Predictions, read_record
    from siamtransfer.records.record import record
    from siamtransfer.records.sample_values import SampleValues

    assert options.first is not None
    assert options.second is not None
    first, second = read_record(options.first), read_record(options.second)
    refuse_unlike(first, second)
    settings = common_settings(first, second, options.setting)
    scored = first.predictions
    resamples = options.resamples or default_resamples(scored)
    labelled = isinstance(scored, Predictions)
    unit, exactly = ("images" if isinstance(scored, ImageAreas) else "samples"), "; top-1 exactly"
    grouped = isinstance(scored, SampleValues) and scored.groups is not None
    metrics: dict[str, float] = {}
    for setting in settings:
        comparison = compare_predictions(
            first.predictions, second.predictions, setting, resamples=resamples, seed=options.seed
        )
        say(f"{setting}: {comparison.verdict()}")
        if isinstance(scored, SampleValues) and scored.counted(setting) < len(scored):
            say(f"{setting}: {scored.counted(setting)} of {len(scored)} samples count there")
        metrics |= comparison.metrics(f"compare/{setting}")
    say(f"A is {first.path}, B is {second.path}; {len(scored)} {unit}")
    for name, saved in (("A", first), ("B", second)):
        for sentence in saved.record["provenance"].get("assumptions") or ():
            say(f"note: {name}: {sentence}")
    if len(settings) > 1:
        say(f"of {len(settings)} settings one may differ by chance: choose beforehand, by --setting")
    if "train_digest" in first.record["provenance"]:
        say("these come from feature files, so only the labels show that the samples are the same")
    protocol = {
        "task": first.record["task"],
        "settings": settings,
        "samples": len(scored),
        "interval": f"paired percentile bootstrap over {'groups of ' if grouped else ''}{unit}, 95 %"
        + (exactly if labelled else ""),
        "test": "McNemar, exact, two-sided" if labelled else None,
        "resamples": resamples,
        "seed": options.seed,
    }
    return record("compare", metrics, protocol, first=source(first), second=source(second))


def source(saved: SavedRecord) -> dict[str, Any]:
    """The provenance of a record that is compared."""
    from siamtransfer.utils.files import digest_of_file

    provenance = saved.record["provenance"]
    return {
        "record": str(saved.path),
        "record_digest": digest_of_file(saved.path),
        "predictions_digest": provenance["predictions_digest"],
        "backbone": provenance.get("backbone"),
        "weights_digest": provenance.get("weights_digest"),
        "reading": provenance.get("reading"),
        "assumptions": provenance.get("assumptions"),
    }


main = Command("compare", CompareOptions, compare_records, __doc__)

if __name__ == "__main__":
    run(main)
