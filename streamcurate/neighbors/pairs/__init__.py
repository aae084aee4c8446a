"""Pairs of rows within a radius of each other, and the components they make."""
