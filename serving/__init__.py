"""Answers to decisions: routing, ladder, decision log, replay, and the shells around one handler."""
