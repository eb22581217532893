"""Labels for images from a few given ones: a probe, its calibration and estimate, the head that is kept."""
