"""Who reads large bodies for `send`: threads of its own.  A hook may fill those of the loop, and no notice waits
for that.
"""

from concurrent.futures import ThreadPoolExecutor

READERS = ThreadPoolExecutor(4, "bodies")
