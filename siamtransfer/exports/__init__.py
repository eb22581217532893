"""A backbone for other programs: folders of timm and of Hugging Face, ONNX, torch.export; each with proof."""
