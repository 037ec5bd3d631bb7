"""Which videos a run is about."""
