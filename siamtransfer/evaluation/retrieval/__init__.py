"""Image retrieval on the revisited Oxford and Paris sets, and on sets of your own."""
