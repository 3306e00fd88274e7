"""Debian's redis-py, plain and cluster, against a running cluster.

    python3 check.py plain|cluster HOST:PORT,HOST:PORT,...

Prints the number of checks made; any difference ends it with code 1.
"""

import sys

import redis
from redis.cluster import ClusterNode, RedisCluster

mode, addresses = sys.argv[1], [a.split(":") for a in sys.argv[2].split(",")]
prefix = "py:%s:" % mode
checks = 0


def same(got, want):
    global checks
    checks += 1
    if got != want:
        sys.exit("got %r, want %r" % (got, want))


def connect(at):
    host, port = addresses[at]
    if mode == "cluster":
        return RedisCluster(startup_nodes=[ClusterNode(host, int(port))])
    return redis.Redis(host=host, port=int(port))


writer, reader = connect(0), connect(-1)
with writer.pipeline(transaction=False) as pipe:
    for i in range(300):
        pipe.set(prefix + str(i), "value %d" % i)
    same(pipe.execute(), [True] * 300)
for i in range(300):
    same(reader.get(prefix + str(i)), b"value %d" % i)
blob = bytes(range(256)) * 40
same(writer.set(prefix + "blob", blob), True)
same(reader.get(prefix + "blob"), blob)
same(writer.set(prefix + "0", "no", nx=True), None)
same(writer.set(prefix + "ttl", "soon", ex=100), True)
same(90 < reader.ttl(prefix + "ttl") <= 100, True)
same(reader.expire(prefix + "ttl", 0), True)
same(writer.exists(prefix + "ttl"), 0)
same(writer.append(prefix + "0", "!"), 8)
same(reader.getrange(prefix + "0", -2, -1), b"0!")
found = {k for k in reader.scan_iter(match=prefix + "[0-9]*", count=50)}
same(len(found), 300)
if mode == "plain":
    same(reader.mget(prefix + "1", prefix + "nothing", prefix + "2"), [b"value 1", None, b"value 2"])
    same(writer.delete(prefix + "1", prefix + "2", prefix + "nothing"), 2)
    same(reader.info("server")["redis_mode"], "standalone")
    same(len(writer.client_list()) >= 1, True)
else:
    same(writer.delete(prefix + "1"), 1)
    same(sum(1 for _ in writer.get_primaries()) >= 1, True)
listener = reader.pubsub(ignore_subscribe_messages=True)
listener.subscribe(prefix + "news")
listener.psubscribe(prefix + "n?ws")
listener.get_message(timeout=10)
listener.get_message(timeout=10)
other = redis.Redis(host=addresses[1][0], port=int(addresses[1][1]))
heard = {"message": [], "pmessage": []}
for i in range(3000):  # one may be lost where nodes take each other for dead
    other.publish(prefix + "news", i)
    message = listener.get_message(timeout=0.01)
    while message is not None:
        heard[message["type"]].append(int(message["data"]))
        message = listener.get_message()
    if min(len(list) for list in heard.values()) >= 50:
        break
for numbers in heard.values():
    same(len(numbers) >= 50, True)
    same(numbers, sorted(set(numbers)))  # each once, and in order
listener.close()
print("%d checks" % checks)
