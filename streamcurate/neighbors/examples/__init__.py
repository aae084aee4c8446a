"""Rows found by examples: their nearest seed, and the nearest rows of every seed."""
