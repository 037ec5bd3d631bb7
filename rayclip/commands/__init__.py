"""The commands that look at or tidy an output folder."""
