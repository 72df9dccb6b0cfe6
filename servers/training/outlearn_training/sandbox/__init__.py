"""Agents' methods in a process of their own: what starts, confines, limits and watches it."""
