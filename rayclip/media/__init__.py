"""Videos: from the bytes of a file to the selected frames."""
