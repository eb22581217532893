"""Images of unknown classes told from known ones by frozen features, and how sure a linear head may be."""
