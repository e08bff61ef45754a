"""The tabs of the page, one file each: `tab(page)` lays it out and wires it.

To add one, write `tabs/NAME.py` with that function, its pure handlers in `views/NAME.py`, and a
line in `app.TABS`.
"""
