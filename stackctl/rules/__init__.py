"""Sign-up rules: who may sign up, decided by conditions in CEL."""
