"""Used by all packages: errors, checks of numbers, files, messages, pieces of text, strict JSON."""
