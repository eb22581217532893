"""The papers' questions at small size: suites of recipes, run with several seeds, and their tables."""
