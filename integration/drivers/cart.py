"""The shopping cart of the Dynamo paper over VCTX, beside an unchanged redis-py.

A cart is what was added, each under a number of its own, and the numbers that were
removed. Siblings are joined by union, so no added item is lost; what was removed stays
removed, for a removal names exactly what it saw.

A write that the client sends again does no harm, nor does a removal that is called again
after an error. An addition does: each call draws a new number, so the item may be there
twice. What was removed is never forgotten, and a value has at most 1 MiB: begin a new
cart with each order.
"""

import json
import uuid


class Cart:
    def __init__(self, client, key):
        self.client, self.key = client, key

    def _read(self):
        token, siblings = self.client.execute_command("VCTX.GET", self.key)
        added, removed = {}, set()
        for sibling in map(json.loads, siblings):
            added.update(sibling["added"])
            removed.update(sibling["removed"])
        return token, {n: item for n, item in added.items() if n not in removed}, removed

    def _write(self, token, added, removed):
        value = json.dumps({"added": added, "removed": sorted(removed)})
        self.client.execute_command("VCTX.SET", self.key, value, token)

    def items(self):
        return sorted(self._read()[1].values())

    def add(self, item):
        token, added, removed = self._read()
        self._write(token, {**added, str(uuid.uuid4()): item}, removed)

    def remove(self, item):
        token, added, removed = self._read()
        seen = {n for n, name in added.items() if name == item}
        self._write(token, {n: i for n, i in added.items() if n not in seen}, removed | seen)
