"""The language all other packages speak: errors, times, events, declarations, policies, decisions, verdicts."""
