"""One file a migration, oldest first; each says the whole of its tables, whatever the present code says."""
