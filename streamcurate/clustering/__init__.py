"""k-means out of core: seeding, Lloyd's algorithm, resampling, splits, levels, labels for new rows."""
