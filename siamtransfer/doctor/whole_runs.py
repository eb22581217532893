"""Checks of whole runs: speed from JPEG files, the kNN check, a stop by SIGTERM, and going on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from siamtransfer.doctor.findings import Finding, advised, check, judged, measured
from siamtransfer.doctor.small_runs import (
    StopAt,
    losses_of,
    photographs,
    rows_of,
    run_config,
    speed_of,
    train,
)
from siamtransfer.doctor.workbench import GIB, Workbench

STOPPED = 143
WAITING = 0.1  # share of the time, above which the loader decides the speed
AGREE = 0.02  # losses of one run and of a resumed one in half precision; on the CPU they are equal


@check("whole_run", seconds=130, needs="a device")
def check_whole_run(bench: Workbench) -> Iterator[Finding]:
    """A run of two epochs, and the same run stopped in the middle and resumed."""
    with photographs(bench, 32 if bench.tiny else 6144) as folder:
        whole, cut = (run_config(bench, folder, name) for name in ("whole", "cut"))
        yield judged("whole_run/ends", train(whole) == 0, "two epochs with a kNN check after each")
        speed, waiting = speed_of(whole)
        yield measured("whole_run/images_per_second", speed, f"{speed:.0f} images/s from JPEG files")
        yield advised(
            "whole_run/data_wait",
            waiting < WAITING or bench.tiny,
            f"{100 * waiting:.0f} % of the time waits for data",
            "more --data.workers, smaller files, or a faster disk",
            waiting,
        )
        # The row of step 0 is the baseline by pixels.
        scored = [row for row in rows_of(whole) if row["step"] > 0 and any("knn" in name for name in row)]
        yield judged("whole_run/knn", len(scored) == 2, f"{len(scored)} kNN checks")
        size = (Path(whole.run.dir) / "checkpoint.pth").stat().st_size / GIB
        yield measured("whole_run/checkpoint_GiB", size, f"{size:.3f} GiB")

        every = whole.log.every
        middle = every * (max(losses_of(whole)) // every // 2)
        status = train(cut, monitors=[StopAt(middle)])
        yield judged("whole_run/sigterm", status == STOPPED, f"exit status {status} after SIGTERM", status)
        yield judged("whole_run/resumes", train(cut, resume=True) == 0, f"from step {middle} on")
        one, two = losses_of(whole), losses_of(cut)
        worst = max(abs(one[step] - two[step]) for step in one.keys() & two.keys())
        limit = 0.0 if bench.device.type == "cpu" else AGREE
        yield judged(
            "whole_run/same_rows",
            one.keys() == two.keys() and worst <= limit,
            f"{len(two)} of {len(one)} rows, losses differ by {worst:.1e}",
            worst,
        )
