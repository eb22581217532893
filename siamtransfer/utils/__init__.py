"""What every room may use: errors, checks of numbers, files, messages, strict JSON."""
