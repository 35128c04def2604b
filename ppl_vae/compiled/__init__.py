"""Pyro programs as compiled graphs."""
