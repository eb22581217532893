"""Logistic regression on a few labels of each class, repeated."""
