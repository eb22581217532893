"""What a program costs: time, images, memory and energy, where the machine tells them."""
