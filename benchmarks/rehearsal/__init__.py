"""ImageNet rehearsed at full counts with narrow networks under a memory limit."""
