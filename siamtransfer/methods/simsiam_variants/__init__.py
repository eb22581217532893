"""SimSiam with other heads, similarities, targets and extra losses; `model.py` combines them."""
