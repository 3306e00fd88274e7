"""Debian's redis-py behind sentinels, while the node that it writes to dies.

    python3 sentinel.py HOST:PORT,HOST:PORT,...

Prints "writing" once it writes, then the longest time in seconds without a write.
"""

import sys
import time

import redis
from redis.sentinel import MasterNotFoundError, Sentinel

addresses = [a.split(":") for a in sys.argv[1].split(",")]
sentinels = Sentinel([(host, int(port)) for host, port in addresses], socket_timeout=1)
master = sentinels.master_for("mymaster", socket_timeout=2)
written, last, longest, end = 0, time.monotonic(), 0.0, None
while end is None or time.monotonic() < end:
    try:
        master.set("py:%d" % written, "value %d" % written)
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, MasterNotFoundError, redis.exceptions.ResponseError):
        continue
    now = time.monotonic()
    longest, last, written = max(longest, now - last), now, written + 1
    if written == 20:
        print("writing", flush=True)
        longest, end = 0.0, now + 8
longest = max(longest, time.monotonic() - last)
for i in range(0, written, 7):
    if master.get("py:%d" % i) != b"value %d" % i:
        sys.exit("value %d is gone" % i)
print("%.3f" % longest)
