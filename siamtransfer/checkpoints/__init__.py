"""Files of weights: written by us, read from anyone, every key of them explained."""
