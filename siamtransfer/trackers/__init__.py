"""TensorBoard, Weights & Biases and MLflow: where numbers and records go besides the files of a run."""
