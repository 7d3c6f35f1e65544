"""Watching what is served: profiles, label maturity, the judge, and when to retrain."""
