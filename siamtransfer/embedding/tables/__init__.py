"""Files of features: .npz, .parquet and .csv, written a piece at a time."""
