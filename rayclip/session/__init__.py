"""Ray as a run finds it: sessions, clusters, and the resources of their nodes."""
