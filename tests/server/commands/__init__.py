"""Commands that work through a server. A package, so that their own server ends with them."""
