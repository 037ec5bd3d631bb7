"""CLIP models: names, weights and inference."""
