"""What may vary in a sweep: the schema of search spaces and YAML presets."""
