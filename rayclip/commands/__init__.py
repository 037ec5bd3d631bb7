"""The commands that read or compact an output folder."""
