"""The sections of a pretraining run's configuration that no other room has. Light: no torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from siamtransfer.backbones.names import FULL_WIDTH, NetworkNorm, Stem
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.methods.registry import METHODS


@dataclass
class RunConfig:
    """The run and its folder."""

    dir: str = "runs/simsiam"
    """Folder for checkpoints, metrics and logs; one run at a time may use it."""
    seed: int = 0
    """Decides initial weights, order of images and every view."""


@dataclass
class DataConfig:
    """Which images."""

    name: str = "imagenet"
    """fashion-scenes, fashion-objects, fashion-pairs, fashion-frames (embedded), cifar10, cifar100, stl10,
    fashion-mnist, imagenet, folder (one folder a class), flat (any folder, no labels), list (a text file of
    paths), pairs (a table of paths in two columns, or frames of videos), shards (tar files), zip, parquet or
    huggingface (a folder of save_to_disk); auto: what data.root holds."""
    root: str | None = None
    """Folder of the images, or of the files that hold them; embedded sets need none."""
    split: str = "train"
    """Part of the set to train on."""
    parts: Literal["auto", "none"] | None = None
    """auto or null: folders named train or test, in any spelling (Train, training_set, valid), are parts of
    the set, and refused where that is not clear; none: they are classes, as all folders."""
    list_file: str | None = None
    """Text file of image paths for the set `list`, or table of paths for the set `pairs`."""
    columns: list[str | int] | None = None
    """Columns of a set of pairs, by header or by number from 1, in the order of the views, which are cut from
    them in turn; one alone is a set without pairs. null: all that name images."""
    pair_order: Literal["columns", "random"] | None = None
    """columns or null: view 1 is cut from the first column, view 2 from the second, and so on; random:
    in an order that is drawn for each pair and epoch."""
    column_channels: list[int] | None = None
    """data.channels of each column, as [3, 1], where they differ; then each column needs a trunk of its own
    (simsiam_variants.columns.trunks). null: data.channels for all."""
    frames_gap: int | None = None
    """How many frames of a video the two views are apart, for `pairs` of a data.root with a folder of frames
    for each video, and for `fashion-frames`. 0: both are of one frame."""
    download: bool = False
    """Let torchvision download a set that is missing under root."""
    size: int | None = None
    """Side in pixels of the embedded scenes."""
    count: int | None = None
    """How many embedded scenes to generate for training."""
    bit_depth: int | None = None
    """Bits of the images with more than eight, in a set of your own; null: as many as its files use, found
    in a part of them and said."""
    channels: int | None = None
    """Channels of the images of a set of your own, or 1 for a grey set: files have exactly so many, and none
    is converted. null: 3, or what TIFF files of more than four have, with a remark."""
    value_range: list[float] | None = None
    """Values that become black and white, of floating-point numbers and, without data.bit_depth, of files of
    more than eight bits, such as [0, 10000]; values beyond are clipped. null: of floating-point numbers 0 to
    1, or to 255, as the files show."""
    axes: Literal["hwc", "chw"] | None = None
    """Order of the axes of .npy arrays; null: the one in which an axis has data.channels entries."""
    orientation: Literal["shown", "stored"] | None = None
    """shown: turn images as their EXIF orientation says, as viewers do; stored: take pixels as they lie in
    the file. null: shown for images of your own, stored for published sets."""
    background: str | None = None
    """Colour under transparent pixels: white, black or R,G,B; drop leaves alpha out. null: white for images
    of your own, drop for published sets."""
    max_pixels: int | None = None
    """The most pixels that an image of a file may have; larger ones count as unreadable. null: 89 million,
    as in Pillow."""
    rgb: list[int] | None = None
    """Channels that are red, green and blue, such as [2, 1, 0]; [] for none. Operations on colours change
    these alone. null: those of three channels; none of another number."""
    test_split: str | None = None
    """Part of the set that kNN is scored on; null: test or val where there is one, else each training image
    is scored against the others (leave-one-out)."""
    max_unreadable: float = 0.05
    """Share of unreadable images above which pretraining stops; below it they are replaced and counted."""
    workers: int | None = None
    """Processes per rank that decode and cut; null: what the machine has, up to 8."""


OWN_IMAGES, DEMO = "own-folder", "demo"
"""Shipped configurations: of a run that names images and no configuration, and of one that names neither."""


def default_config(*, name: str | None, named: bool) -> str:
    """The shipped configuration of a run that states none: `name` is its data.name, and `named` says whether
    it states a folder, a list or an archive."""
    embedded = name is not None and name.startswith("fashion-")
    return OWN_IMAGES if not embedded and (named or name is not None) else DEMO


@dataclass
class BackboneConfig:
    """The network to be trained."""

    name: str | None = None
    """resnet10 (a block a stage, without published weights), resnet18, resnet34, resnet50, resnet101, or any
    timm model by name; null: the network in weights, or resnet50 without; auto: what suits the images and the
    machine."""
    width: int | None = None
    """Channels of a ResNet's first stage; null: as in weights, or the published 64 without."""
    stem: Stem | None = None
    """imagenet: 7x7 stride 2 and max-pool; small: 3x3 stride 1, for images of 32 pixels or so; small-pad2:
    the same with solo-learn's padding of 2. null: as in weights, or imagenet without."""
    norm: NetworkNorm | None = None
    """What stands behind the convolutions of a ResNet. batch: batch norm. group: group norm of 16 groups, or
    fewer in narrow networks. group-ws: that and standardised weights, BYOL's answer to the question of batch
    statistics (arXiv 2010.10241). none: a scale and a shift alone, for which zero_init_residual true is
    advised. null: as in weights, or batch without. Detectors and other libraries take batch only."""
    zero_init_residual: bool = True
    """Start every residual block as the identity, as SimSiam does."""
    drop_path: float = 0.0
    """Rate of stochastic depth in training, for timm's models only (DINO's ViTs: 0.1)."""
    weights: str | None = None
    """Checkpoint of any known format whose backbone the run starts from (also --resume-from-backbone). What
    the file says of its network beyond name, width and stem is taken over. null: random weights."""
    first_convolution: Literal["repeat", "colours"] | None = None
    """How weights for 3 channels start a network for another number. repeat: the filters of red, green and
    blue are repeated and scaled by 3 / channels, as timm does. colours: they stay those of data.rgb, and
    other channels start at zero. null: such weights are refused."""
    branch: str | None = None
    """Which backbone of that checkpoint; null: the one that its format names first."""
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def completed(self) -> BackboneConfig:
        """With the usual network in place of null, where no weights say which it is."""
        if self.weights is not None:
            return self
        return replace(
            self,
            name=self.name or "resnet50",
            width=FULL_WIDTH if self.width is None else self.width,
            stem=self.stem or "imagenet",
            norm=self.norm or "batch",
        )


@dataclass
class MethodConfig:
    """Which method."""

    name: str = field(default="simsiam", metadata={"choices": lambda: tuple(METHODS)})
    """The method; its options are in the section of its name (moco_v3 for moco-v3)."""


@dataclass
class HardwareConfig:
    """Where and in what arithmetic."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N; under torchrun every process takes its own GPU."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 on GPUs that compute in it (not those that emulate it), float16 with a loss scaler on
    older ones, float32 on the CPU."""
    sync_batch_norm: bool = True
    """Batch-norm statistics over all ranks; SimSiam needs them when a rank's share is small."""
    threads: int | None = None
    """Threads that a rank computes with on the CPU; null: torch's choice, a thread a core. Small networks are
    faster with fewer and with data.workers on the other cores."""
    timeout_minutes: float = 30.0
    """How long a rank waits in a collective for the others before the run ends with a sentence that says what
    each was doing."""
    sync_batch_norm_kind: Literal["torch", "single-exchange"] = "torch"
    """Synchronised batch norm on several GPUs: torch's, which waits for the device in every layer, or ours,
    which has one exchange a layer and direction and no wait. On CPU ranks it is always ours."""
    compile: bool = False
    """Compile the backbones with torch.compile (minutes at the start, faster steps on recent GPUs). With
    several GPUs take sync_batch_norm_kind single-exchange: torch's cannot be compiled in one piece."""
    guard: Literal["step", "device"] = "step"
    """How an update from a loss or gradient that is not finite is prevented. step: the host reads the verdict
    of all ranks before every update. device: the device takes such an update back, and the host reads the
    verdict one step late, so that it never waits within a step; it takes a second copy of weights and
    optimizer state. Not with float16."""
    augment: Literal["exact", "fused", "compiled"] = "exact"
    """How the device augments views. exact: each operation on the views that it changes, fast on the CPU.
    fused: all operations on all views, a few dozen kernels instead of hundreds. compiled: that by
    torch.compile. They are equal to the rounding of float32; which is fastest on a GPU is not measured."""
    prefetch: bool = False
    """Copy and augment the next batch on a CUDA stream of its own while the device computes a step, which
    takes the memory of one more batch of views. It changes no number, and nothing on the CPU."""
    activation_checkpointing: bool = False
    """Recompute each block of the trained backbone in the backward pass instead of keeping its activations:
    about a third more computation for several times less memory. Results are the same to the bit."""
    shard: Literal["none", "fsdp2"] = "none"
    """fsdp2: the ranks share weights, gradients and optimizer state (for ViT-L and larger), each gathered
    block by block; checkpoints are those of a run without. Not with float16, compile or cuda_graph."""
    cuda_graph: bool = False
    """Record forward and backward pass as a CUDA graph and replay it (one GPU; not with float16, accumulation
    or methods that read numbers on the host)."""


@dataclass
class CheckpointConfig:
    """When to save."""

    every_steps: int = 0
    """Save every N steps; 0: only by time, on a signal and at the end."""
    every_minutes: float = 10.0
    """Save at least every N minutes; 0: not by time."""
    keep: int = 2
    """How many checkpoints to keep."""


@dataclass
class MonitorConfig:
    """How the run is watched."""

    knn_every: int = 10
    """Epochs between kNN checks on the labelled split; 0: never. The last epoch is always checked."""
    knn_k: int = 20
    """Neighbours that vote."""
    knn_temperature: float = 0.07
    """Temperature of the vote."""
    knn_bank: int = 0
    """Training images in the kNN bank, the first of a fixed shuffle; 0: all."""
    knn_bank_dtype: Literal["auto", "float32", "float16"] = "auto"
    """float16 keeps the bank's features scaled to length one and rounded to half precision; auto: where they
    would take more than 4 GiB in float32, over all ranks."""
    health_every: int = 50
    """Steps between checks of the projections (std, effective rank, centre, cosine); a run too short for four
    has them more often. 0: never."""
    gradients_every: int = 0
    """Steps between gradient views (rows gradient/...: what pulls and what pushes embeddings, see
    eval/gradients.py), each at the price of about a forward pass; 0: never."""
    gradient_norms_every: int = 0
    """Steps between norms of gradients (rows gradient_norm/...: of the first layer, the last block and all,
    before clipping), whose spikes go into the record; 0: never. docs/STABILITY.md says what a spike is."""
    on_collapse: Literal["warn", "stop", "ignore"] = "warn"
    """What a collapse alarm does to the run."""


@dataclass
class LogConfig:
    """What is written down."""

    every: int = 10
    """Steps between rows of metrics.jsonl and progress lines."""
    tensorboard: bool = True
    """Write TensorBoard events to <run.dir>/tensorboard."""
    wandb: bool = False
    """Mirror the numbers to Weights & Biases (extra: wandb)."""
    mlflow: bool | str = False
    """Mirror the numbers to MLflow (extra: mlflow), at this tracking URI; true: at MLFLOW_TRACKING_URI."""
