"""What becomes of videos, and what a person sees of a run."""
