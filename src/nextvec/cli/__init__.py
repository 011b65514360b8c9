"""The command line: one module per command, found by file name; heavy imports stay inside the commands."""
