"""What a folder of images holds twice, what lies apart, and what stands for the rest."""
