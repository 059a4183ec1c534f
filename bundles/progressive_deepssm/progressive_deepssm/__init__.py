"""Progressive DeepSSM: from an image straight to a shape model."""
