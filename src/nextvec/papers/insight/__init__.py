"""What the site works out about its papers: keywords, a line that sums up, matching sentences, topics and their trends.

All of it is derived from the papers and their embeddings, with no other model, and can be made again at any time.
"""
