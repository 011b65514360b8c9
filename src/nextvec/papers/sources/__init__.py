"""Papers in: where they come from, how they become one paper each, who may take them away again.

=================  ======================================================================================
``base``           what a source is, and what it gives
``origins/``       one file per source; the file name is its name
``fetch``, ``xml`` polite requests to hosts that are named, XML that cannot explode
``ids``, ``links`` what a paper is called elsewhere; the addresses that readers may hand in
``titles``         when two titles are the same paper
``combine``        one paper from what several sources say of it
``intake``         records to papers in one transaction, with their provenance
``harvest``        a source into a site, interrupted and continued
``corpus``         the large collection of all data sets at hand
``moderation``     hide, merge, split, and the log of it
``queue``          what readers hand in
``snapshots``      votes by day: what rises, and the line on a paper's page
``schedule``       the same ingest again and again beside a running site
``web``            the pages
=================  ======================================================================================
"""
