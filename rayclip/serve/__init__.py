"""A page that searches an output folder and plays the moments: on this machine, for its user."""
