"""The ledger, the gate, the rollout: which version serves, and who allowed it on what evidence."""
