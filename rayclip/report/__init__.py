"""Results of a run: as data, as files, and as shown to the user."""
