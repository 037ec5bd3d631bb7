"""Reading and writing that may fail: what an error means, and what is tried again."""
