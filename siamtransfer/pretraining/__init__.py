"""A pretraining run: its state, its folder, its log and its monitors."""
