"""Who reads large bodies for `send`: threads of its own.  Hooks may fill those of the loop, and no notice
waits for that.
"""

from concurrent.futures import ThreadPoolExecutor

READERS = ThreadPoolExecutor(4, "bodies")
