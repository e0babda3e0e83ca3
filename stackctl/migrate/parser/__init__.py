"""The text of one statement → facts: what it creates, changes, locks and writes."""
