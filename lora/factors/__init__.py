"""What a file changes in one module: families of adapters, and exact changes in their small form."""
