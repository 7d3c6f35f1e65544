"""Ours comes first: a dependency installs a package of the same name."""
