"""Stand-ins for what is large or not here: small models, checkpoints, layers of nunchaku."""
