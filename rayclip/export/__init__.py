"""Turn the features of a finished run into the files that other programs read."""
