"""Numbers of scores, labels and embeddings: accuracies, average precisions, intervals, tests, spread."""
