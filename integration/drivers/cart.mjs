// The shopping cart of the Dynamo paper over VCTX, beside an unchanged ioredis.
//
// A cart is what was added, each under a number of its own, and the numbers that were
// removed. Siblings are joined by union, so no added item is lost; what was removed stays
// removed, for a removal names exactly what it saw.
//
// A write that the client sends again does no harm, nor does a removal that is called again
// after an error. An addition does: each call draws a new number, so the item may be there
// twice. What was removed is never forgotten, and a value has at most 1 MiB: begin a new
// cart with each order.
import { randomUUID } from 'node:crypto';

export class Cart {
  constructor(client, key) { Object.assign(this, { client, key }); }

  async #read() {
    const [token, siblings] = await this.client.callBuffer('VCTX.GET', this.key);
    const carts = siblings.map((sibling) => JSON.parse(sibling));
    const removed = new Set(carts.flatMap((cart) => cart.removed));
    const added = carts.flatMap((cart) => Object.entries(cart.added)).filter(([number]) => !removed.has(number));
    return { token, added: Object.fromEntries(added), removed };
  }

  #write(token, added, removed) {
    const value = JSON.stringify({ added, removed: [...removed].sort() });
    return this.client.callBuffer('VCTX.SET', this.key, value, token);
  }

  async items() { return Object.values((await this.#read()).added).sort(); }

  async add(item) {
    const { token, added, removed } = await this.#read();
    await this.#write(token, { ...added, [randomUUID()]: item }, removed);
  }

  async remove(item) {
    const { token, added, removed } = await this.#read();
    const [seen, left] = [true, false].map((is) => Object.entries(added).filter(([, name]) => (name === item) === is));
    await this.#write(token, Object.fromEntries(left), new Set([...removed, ...seen.map(([number]) => number)]));
  }
}
