"""What every small run needs, imported and computed once by the server that small_runs.py forks them from.

The programs import jsonargparse, timm, and torchvision with torch._dynamo, only when they need them. That
costs more than the rest of a small run, unless the server has done it.

No gradient may be computed here: autograd does not work in a process forked after that.
"""

import codecs
import gc

import jsonargparse  # noqa: F401
import pytest  # noqa: F401 (a forked process imports the main module, which is pytest's)
import timm  # noqa: F401
import torch._dynamo
import torch.distributed
import torch.utils.tensorboard
import torchvision.models.resnet  # noqa: F401

import siamtransfer.pretraining.loop
import siamtransfer.programs.pretrain  # noqa: F401
from siamtransfer.data import open_images

torch.set_num_threads(1)
open_images("fashion-scenes", size=32, count=1)  # keeps the objects' silhouettes
codecs.lookup("utf-8-sig")  # of settings files; a process without rights could not load it
gc.freeze()  # what is here stays: no forked process searches it for garbage
