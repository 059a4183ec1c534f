"""Shape models: surfaces, corresponding points, their alignment, and the statistics of both. Coordinates are LPS mm throughout."""
