"""All notebooks and all studies as one book of HTML that needs no network.

OUT/executed/BUDGET/STEM-KEY.ipynb  a notebook as executed; KEY: a hash of its cells and of version
OUT/source/                         what is bound: executed notebooks, a page a study, the contents
OUT/html/index.html                 the book: contents, search, light and dark, from phone to desk
"""

from labkit_apps.book.binding import Chapter, as_stored, bind
from labkit_apps.book.execution import execute, found

__all__ = ["Chapter", "as_stored", "bind", "execute", "found"]
