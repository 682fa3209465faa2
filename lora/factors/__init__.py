"""What a file changes in one module: families of adapters, and exact changes, kept small."""
