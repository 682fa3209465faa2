"""Known vulnerabilities, suspicious code, and reasons for dependencies: `dev.py audit`."""
