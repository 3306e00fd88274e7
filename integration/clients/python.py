"""Debian's redis-py. The arguments and what is printed are those of main.go.

    python3 python.py redis-py plain|cluster 2 HOST:PORT,HOST:PORT,... [write]
"""

import sys
import time

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException

client, door, protocol = sys.argv[1:4]
addresses = [(a.split(":")[0], int(a.split(":")[1])) for a in sys.argv[4].split(",")]
cluster = door == "cluster"
prefix = "%s:%s:%s:" % (client, door, protocol)
MANY = 300


class NotOffered(Exception):
    """A client, or its form for clusters, does not have this."""


def connect(at):
    if cluster:
        nodes = addresses[at:] + addresses[:at]
        return RedisCluster(startup_nodes=[ClusterNode(h, p) for h, p in nodes], socket_timeout=5)
    host, port = addresses[at]
    return redis.Redis(host=host, port=port, socket_timeout=5)


def same(got, want):
    if got != want:
        raise AssertionError("got %r, want %r" % (got, want))


def strings():
    blob = bytes(range(256)) * 40
    same(writer.set(prefix + "blob", blob), True)
    same(reader.get(prefix + "blob"), blob)
    same(reader.get(prefix + "absent"), None)
    same(writer.set(prefix + "text", "value"), True)
    same(writer.set(prefix + "text", "no", nx=True), None)
    same(writer.append(prefix + "text", "!"), 6)
    same(reader.getrange(prefix + "text", -2, -1), b"e!")
    same(writer.delete(prefix + "text"), 1)
    same(reader.exists(prefix + "text"), 0)
    if not cluster:
        same(reader.info("server")["redis_mode"], "standalone")
        same(len(writer.client_list()) >= 1, True)


def pipeline():
    with writer.pipeline(transaction=False) as pipe:
        for i in range(MANY):
            pipe.set(prefix + "many:%d" % i, "value %d" % i)
        same(pipe.execute(), [True] * MANY)
    for i in range(MANY):
        same(reader.get(prefix + "many:%d" % i), b"value %d" % i)


def expiry():
    same(writer.set(prefix + "soon", "over", ex=100), True)
    same(90 < reader.ttl(prefix + "soon") <= 100, True)
    same(reader.expire(prefix + "soon", 0), True)
    same(writer.exists(prefix + "soon"), 0)


def scan():
    found = set(reader.scan_iter(match=prefix + "many:*", count=50))
    same(len(found), MANY)


def multi():
    if cluster:
        raise NotOffered  # its pipelines for clusters are no transactions
    with writer.pipeline() as pipe:
        pipe.set(prefix + "multi", "all or none").get(prefix + "multi")
        same(pipe.execute(), [True, b"all or none"])


def pubsub():
    listener = reader.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(prefix + "news")
    listener.psubscribe(prefix + "n?ws")
    listener.get_message(timeout=10)
    listener.get_message(timeout=10)
    other = redis.Redis(*addresses[1])
    heard = {"message": [], "pmessage": []}
    for i in range(3000):  # one may be lost where nodes take each other for dead
        other.publish(prefix + "news", i)
        message = listener.get_message(timeout=0.01)
        while message is not None:
            heard[message["type"]].append(int(message["data"]))
            message = listener.get_message()
        if min(len(numbers) for numbers in heard.values()) >= 50:
            break
    for numbers in heard.values():
        same(len(numbers) >= 50, True)
        same(numbers, sorted(set(numbers)))  # each once, and in order
    listener.close()


def vctx():
    key = prefix + "cart:%d" % time.time_ns()
    blank, values = writer.execute_command("VCTX.GET", key)
    same(values, [])
    for i, one in enumerate([writer, reader]):
        same(one.execute_command("VCTX.SET", key, "sibling %d" % i, blank)[1], i + 1)
    token, values = reader.execute_command("VCTX.GET", key)
    same(sorted(values), [b"sibling 0", b"sibling 1"])
    same(writer.execute_command("VCTX.SET", key, "both", token)[1], 1)
    same(reader.execute_command("VCTX.GET", key)[1], [b"both"])


def write():
    """Write until killed; a client for one node is given the next after an error."""
    one, at, i = None, 0, 0
    while True:
        time.sleep(0.01)
        begin, what = time.time_ns() // 10**6, "ok"
        try:
            one = one or connect(at % len(addresses))
            one.set("kill:%s:%s:%d" % (client, door, i % 1000), i)
        except Exception as e:
            what = repr(e).replace("\n", " ")
            if not cluster:
                one, at = None, at + 1
            elif isinstance(e, RedisClusterException):
                one = None  # 4.3 cannot load the map anew once a node has come back into it
        print(begin, time.time_ns() // 10**6, what, flush=True)
        i += 1


if sys.argv[5:] == ["write"]:
    write()
print("version", redis.__version__)
writer, reader = connect(0), connect(len(addresses) - 1)
for feature in (strings, pipeline, expiry, scan, multi, pubsub, vctx):
    try:
        feature()
        print(feature.__name__, "ok")
    except NotOffered:
        print(feature.__name__, "no")
    except Exception as e:
        print(feature.__name__, "wrong", repr(e))
