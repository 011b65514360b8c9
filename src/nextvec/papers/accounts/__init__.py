"""Readers: signing in by mail, votes, comments, reading lists, what one follows, what the site proposes."""
