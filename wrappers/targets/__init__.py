"""The kinds of linear layers that LoRAs go onto, a file for each."""
