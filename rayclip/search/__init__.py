"""Search: from features to moments of videos, and pictures of them."""
