"""Words that training libraries put into the names of tensors, and counters that they put beside them."""

from __future__ import annotations

from torch import Tensor

WRAPPERS = frozenset(
    {
        "module",  # DataParallel, DistributedDataParallel, DeepSpeed, AveragedModel
        "_orig_mod",  # torch.compile
        "_fsdp_wrapped_module",  # FullyShardedDataParallel
        "_fpw_module",  # the same in FairScale
        "_checkpoint_wrapped_module",  # activation checkpointing
        "_forward_module",  # Lightning Fabric
    }
)
# The layers of iFormer whose inside is called `module`.
_IFORMERS = (["cpe"], ["mixer"])
# What moving averages keep beside their weights: torch's AveragedModel, ema-pytorch.
_COUNTERS = frozenset({"n_averaged", "initted", "step", "num_updates"})


def without_wrappers(key: str) -> str:
    """A tensor's key without the words of wrappers, wherever they stand."""
    words: list[str] = []
    for word in key.split("."):
        of_iformer = word == "module" and words[-1:] in _IFORMERS
        if word not in WRAPPERS or of_iformer:
            words.append(word)
    return ".".join(words)


def is_counter(key: str, tensor: Tensor) -> bool:
    """Whether it is the number of updates of a moving average, by its name without wrappers."""
    return key in _COUNTERS and tensor.numel() == 1
