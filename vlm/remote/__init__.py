"""A server in the model's place: keys, requests, replies, and what can go wrong between."""
