"""Folders of whole models, as Hugging Face lays them out: found, checked, fetched."""
