"""What a comparison stands on: planar sequences and scenes with known cameras, robust estimators, and the peers."""
