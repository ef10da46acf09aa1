"""Tables of the documents that tests keep true: TABLES=1 in the environment lets the tests write them anew."""

import os

WRITE = bool(os.environ.get("TABLES"))
