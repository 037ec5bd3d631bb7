"""Videos: from the bytes of a file to the frames that are wanted."""
