"""MONAI Label: its environment, its app with packed bundles, its server."""
