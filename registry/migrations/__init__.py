"""Migrations of the registry's database, run by `registry.migrate`; a released one is never edited."""
