"""Ray as a run finds it: sessions, clusters, and what their nodes lack."""
