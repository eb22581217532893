"""What is trained on a backbone to score it: linear heads, logistic regression, SVMs, the network itself."""
