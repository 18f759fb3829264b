"""The figures of the literature over distances and rankings."""
