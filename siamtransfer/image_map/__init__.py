"""A map of images: similar ones lie close together, and each knows its neighbours."""
