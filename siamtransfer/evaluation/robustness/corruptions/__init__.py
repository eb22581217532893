"""The corruptions of ImageNet-C, made anew from their published definitions (Hendrycks & Dietterich 2019)."""
