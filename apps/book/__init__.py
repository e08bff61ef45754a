"""All notebooks, documents and studies as one book of HTML that needs no network.

OUT/executed/BUDGET-VERSION/  what has run, by notebook (jupyter-cache)
OUT/source/                   what is bound: documents, notebooks, one page per study, the contents
OUT/html/index.html           the book: contents, search, light and dark, from phone to desk
"""

from labkit_apps.book.binding import bind
from labkit_apps.book.contents import notebooks

__all__ = ["bind", "notebooks"]
