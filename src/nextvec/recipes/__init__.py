"""Recipes: whole training runs that compose data, parts, objectives, evaluation and export."""
