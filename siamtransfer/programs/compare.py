"""Says which of two backbones is better, from two records that an evaluator wrote by --record.

    python eval/knn.py a.pth --record a.json
    python eval/knn.py b.pth --record b.json
    python eval/compare.py a.json b.json --setting k=20/T=0.07

The two are set against each other sample by sample: the 95 % interval of the difference is the paired
bootstrap's (of top-1 exactly, as endlessly many resamples give it), beside McNemar's exact test. "Better"
takes both. Choose the setting beforehand: of several, one may look better by chance.

Records are refused that differ in task, images, labels or protocol. Left out are the normalisation, which is
the weights' own, and what came out of a choice on held-out data (chosen_..., held_out_...);
siamtransfer/comparison.py has the rule.
"""

from __future__ import annotations

import argparse
from typing import Any

from siamtransfer.cli import run
from siamtransfer.records.comparison import Comparison, common_settings, compare, refuse_unlike
from siamtransfer.records.predictions import Published, read_published
from siamtransfer.records.record import record
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.log import say

RESAMPLES, RESAMPLES_OF_IMAGES = 10_000, 1000


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """The command line; returns the record."""
    args = parse(arguments)
    if args.resamples is not None and args.resamples < 100:
        raise UserError("--resamples must be at least 100, for the interval's ends are their quantiles")
    first, second = read_published(args.first), read_published(args.second)
    refuse_unlike(first, second)
    settings = common_settings(first, second, args.setting)
    labels = first.predictions.labels
    resamples = args.resamples or (RESAMPLES if labels.ndim == 1 else RESAMPLES_OF_IMAGES)
    metrics: dict[str, float] = {}
    for setting in settings:
        both = (published.predictions.settings[setting] for published in (first, second))
        found = compare(labels, *both, resamples=resamples, seed=args.seed)
        say(f"{setting}: {found.verdict()}")
        metrics |= named(f"compare/{setting}", found)
    say(f"A is {first.path}, B is {second.path}; {len(labels)} samples")
    if len(settings) > 1:
        say(f"of {len(settings)} settings one may differ by chance: choose beforehand, by --setting")
    if "train_digest" in first.record["provenance"]:
        say("these come from feature files, so only the labels show that the samples are the same")
    protocol = {
        "task": first.record["task"],
        "settings": settings,
        "samples": len(labels),
        "interval": "paired percentile bootstrap over samples, 95 %; top-1 exactly",
        "test": "McNemar, exact, two-sided",
        "resamples": resamples,
        "seed": args.seed,
    }
    return record("compare", metrics, protocol, first=source(first), second=source(second))


def named(name: str, found: Comparison) -> dict[str, float]:
    """A comparison's numbers under the names of the record."""
    metrics: dict[str, float] = {}
    for number, difference in found.differences.items():
        metrics |= {
            f"{name}/{number}/first": difference.first,
            f"{name}/{number}/second": difference.second,
            f"{name}/{number}/difference": difference.value,
            f"{name}/{number}/ci95_low": difference.low,
            f"{name}/{number}/ci95_high": difference.high,
        }
    if found.p_value is not None:
        assert found.only_first_right is not None
        assert found.only_second_right is not None
        metrics |= {
            f"{name}/only_first_right": float(found.only_first_right),
            f"{name}/only_second_right": float(found.only_second_right),
            f"{name}/mcnemar_p": found.p_value,
        }
    return metrics


def source(published: Published) -> dict[str, Any]:
    """Where one side comes from."""
    provenance = published.record["provenance"]
    return {
        "record": str(published.path),
        "record_digest": digest_of_file(published.path),
        "predictions_digest": provenance["predictions_digest"],
        "backbone": provenance.get("backbone"),
        "weights_digest": provenance.get("weights_digest"),
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", metavar="A.json", help="record of the first; A.npz lies beside it")
    parser.add_argument("second", metavar="B.json", help="record of the second")
    parser.add_argument("--setting", help="only this one, as k=20/T=0.07 (default: all that both have)")
    parser.add_argument(
        "--resamples",
        type=int,
        help=f"of the mean over classes (default {RESAMPLES}) or of mAP (default {RESAMPLES_OF_IMAGES})",
    )
    parser.add_argument("--seed", type=int, default=0, help="decides the resamples")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
