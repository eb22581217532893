"""The images of a source that are most like some others."""
