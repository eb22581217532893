"""Networks that a code base puts into a torch.nn.Sequential, where numbers stand for the names of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# list(resnet.children()) of torchvision, and the body of lightly's ResNetGenerator.
TORCHVISION_CHILDREN = {"0": "conv1", "1": "bn1", **{str(n + 3): f"layer{n}" for n in (1, 2, 3, 4)}}
LIGHTLY_CHILDREN = {"0": "conv1", "1": "bn1", **{str(n + 1): f"layer{n}" for n in (1, 2, 3, 4)}}


def renamed_children(children: Mapping[str, str]) -> Callable[[str], str]:
    """A renaming of the children of a torch.nn.Sequential, given by their numbers."""

    def rename(name: str) -> str:
        number, _, rest = name.partition(".")
        if number not in children:
            raise ValueError(f"its tensor {name!r} belongs to no numbered part of a ResNet")
        return f"{children[number]}.{rest}".replace(".shortcut.", ".downsample.")

    return rename
