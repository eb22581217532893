"""Which task a layered configuration asks for."""

from __future__ import annotations

from pathlib import Path

from siamtransfer.detection.config import DetectionOptions
from siamtransfer.detection.data.configured import open_configured_data
from siamtransfer.detection.layered_config import LayeredConfig
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.detection.tasks.task import Task
from siamtransfer.utils.log import say

META_ARCHITECTURE = "MODEL.META_ARCHITECTURE"


def open_task(options: DetectionOptions, layered: LayeredConfig) -> Task:
    """Opens and checks the data of the task that MODEL.META_ARCHITECTURE names, and says what they are.

    Raises:
        UserError: nothing names the data, or they cannot be opened.
    """
    root = Path(options.root) if options.root else None
    data = open_configured_data(layered, options.train, options.test, root)
    say(str(data))
    return InstancesTask(data, options.metric or data.test_split.kind)
