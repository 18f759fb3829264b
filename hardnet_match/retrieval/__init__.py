"""Image retrieval on local features: codebook, inverted files, spatial verification, query expansion."""
