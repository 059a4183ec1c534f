"""DeepAtlas: joint semi-supervised registration and segmentation (Xu & Niethammer, MICCAI 2019)."""
