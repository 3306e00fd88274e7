// Stock Node.js clients, plain and cluster, against a running cluster.
//
//   node check.mjs redis|ioredis plain|cluster HOST:PORT,HOST:PORT,...
//
// Prints the number of checks made; any difference ends it with code 1.
import assert from 'node:assert/strict';
import { createClient, createCluster } from 'redis';
import { Redis, Cluster } from 'ioredis';

const [library, mode, list] = process.argv.slice(2);
const nodes = list.split(',').map((a) => ({ host: a.split(':')[0], port: Number(a.split(':')[1]) }));
const prefix = `node:${library}:${mode}:`;
let checks = 0;
const same = (got, want) => { checks++; assert.deepEqual(got, want); };

// Both libraries behind the few calls that the checks make.
async function connect(at) {
  if (library === 'ioredis') {
    const c = mode === 'cluster' ? new Cluster([nodes[at]]) : new Redis(nodes[at]);
    return {
      set: (k, v, ttl) => (ttl ? c.set(k, v, 'EX', ttl) : c.set(k, v)),
      get: (k) => c.get(k), buffer: (k) => c.getBuffer(k), del: (k) => c.del(k), ttl: (k) => c.ttl(k),
      pipe: (ks) => Promise.all(ks.map((k) => c.get(k))), append: (k, v) => c.append(k, v), quit: () => c.quit(),
    };
  }
  const url = (n) => ({ url: `redis://${n.host}:${n.port}` });
  const c = mode === 'cluster' ? createCluster({ rootNodes: [url(nodes[at])] }) : createClient(url(nodes[at]));
  c.on('error', (e) => { console.error(e); process.exit(1); });
  await c.connect();
  return {
    set: (k, v, ttl) => c.set(k, v, ttl ? { EX: ttl } : undefined),
    get: (k) => c.get(k), buffer: async (k) => Buffer.from(await c.get(k), 'utf8'), del: (k) => c.del(k), ttl: (k) => c.ttl(k),
    pipe: (ks) => Promise.all(ks.map((k) => c.get(k))), append: (k, v) => c.append(k, v), quit: () => c.close(),
  };
}

const writer = await connect(0);
const reader = await connect(nodes.length - 1);
const keys = Array.from({ length: 300 }, (_, i) => `${prefix}${i}`);
same(await Promise.all(keys.map((k, i) => writer.set(k, `value ${i}`))), keys.map(() => 'OK'));
same(await reader.pipe(keys), keys.map((_, i) => `value ${i}`));
same(await reader.get(`${prefix}absent`), null);
await writer.set(`${prefix}ttl`, 'soon', 100);
const ttl = await reader.ttl(`${prefix}ttl`);
checks++;
assert(ttl > 90 && ttl <= 100, `ttl ${ttl}`);
same(await writer.append(`${prefix}0`, '!'), 8);
same(await reader.get(`${prefix}0`), 'value 0!');
const text = 'naïve ☕ \r\n\0 end';
await writer.set(`${prefix}text`, text);
same(await reader.get(`${prefix}text`), text);
same((await reader.buffer(`${prefix}text`)).length, Buffer.byteLength(text));
same(await writer.del(`${prefix}1`), 1);
same(await reader.get(`${prefix}1`), null);
await writer.quit();
await reader.quit();
console.log(`${checks} checks`);
