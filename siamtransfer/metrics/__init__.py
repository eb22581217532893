"""Numbers from scores and labels: accuracies, average precisions, intervals, spread of embeddings."""
