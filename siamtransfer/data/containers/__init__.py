"""Images inside larger files: tar shards, zip archives, parquet files and Hugging Face data sets on disk."""
