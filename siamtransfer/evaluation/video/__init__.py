"""Objects followed through videos by the nearest features of earlier frames, without training."""
