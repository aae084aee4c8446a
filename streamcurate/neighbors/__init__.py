"""Rows near other rows: duplicates, rows near seeds, rows far from unwanted examples."""
