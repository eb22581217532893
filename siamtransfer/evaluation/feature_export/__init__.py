"""A feature file of a labelled set, for other evaluators and other programs."""
