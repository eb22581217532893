"""What can be fine-tuned: instances (boxes and masks), semantic segmentation and the others, a file each."""
