"""Registration: the transformer of displacement fields, and what carries them to and from ITK."""
