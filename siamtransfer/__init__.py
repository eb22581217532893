"""SiamTransfer: pretrain Siamese backbones, convert them, and measure what they are good for.

The library holds the nouns (images, views, backbones, methods, checkpoints, features, neighbours);
the folders pretrain/, eval/ and convert/ hold the verbs that users run.
"""

__version__ = "0.1.0"
