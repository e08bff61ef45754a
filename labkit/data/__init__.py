"""Where images come from; `catalogue.load(NAME or FOLDER)` is the way in."""
