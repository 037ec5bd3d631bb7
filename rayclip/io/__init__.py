"""Reading and writing that can fail: what an error means, and when to retry."""
