"""CLIP: names, weights, and what is computed with them."""
