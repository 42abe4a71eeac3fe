"""Scans: reading, preparing, lungs, phantoms."""
