"""One module for each command; `add_parser` adds it to the command line."""
