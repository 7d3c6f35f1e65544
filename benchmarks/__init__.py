"""Measurements; each prints a table and says with which command it was made."""
