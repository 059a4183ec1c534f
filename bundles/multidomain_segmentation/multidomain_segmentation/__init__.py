"""Multi-task, multi-domain segmentation: one network over several scarce data sets (Boutillon et al., arXiv 2207.13502)."""
