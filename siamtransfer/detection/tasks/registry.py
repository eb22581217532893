"""Which task a layered configuration asks for."""

from __future__ import annotations

from pathlib import Path

from siamtransfer.detection.config import DetectionOptions
from siamtransfer.detection.data.configured import open_configured_data
from siamtransfer.detection.data.semantic_data import open_semantic_data
from siamtransfer.detection.layered_config import LayeredConfig
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.detection.tasks.semantic import SemanticTask
from siamtransfer.detection.tasks.task import Task
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

META_ARCHITECTURE = "MODEL.META_ARCHITECTURE"
SEMANTIC = ("FCNSegmentor", "SemanticSegmentor")


def open_task(options: DetectionOptions, layered: LayeredConfig) -> Task:
    """Opens and checks the data of the task that MODEL.META_ARCHITECTURE names, and says what they are.

    Raises:
        UserError: nothing names the data, or they cannot be opened.
    """
    root = Path(options.root) if options.root else None
    stated = layered.get(META_ARCHITECTURE)
    if stated is not None and stated.value in SEMANTIC:
        if options.metric is not None:
            raise UserError(f"--metric {options.metric} is of objects; leave it out, the score is mIoU")
        task = SemanticTask(open_semantic_data(layered, options.train, options.test, root))
        say(str(task))
        return task
    data = open_configured_data(layered, options.train, options.test, root)
    say(str(data))
    return InstancesTask(data, options.metric or data.test_split.kind)
