// Clients of Node.js. The arguments and what is printed are those of main.go.
//
//   node node.mjs node-redis|ioredis plain|cluster 2|3 HOST:PORT,HOST:PORT,... [write]
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createClient, createCluster, RESP_TYPES } from 'redis';
import { Redis, Cluster } from 'ioredis';

const [library, door, protocol, list, mode] = process.argv.slice(2);
const nodes = list.split(',').map((a) => ({ host: a.split(':')[0], port: Number(a.split(':')[1]) }));
const prefix = `${library}:${door}:${protocol}:`;
const cluster = door === 'cluster';
const many = Array.from({ length: 300 }, (_, i) => `${prefix}many:${i}`);
const same = (got, want) => assert.deepEqual(got, want);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
// The token is any bytes, so it is read and sent as a Buffer.
const bytes = { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } };
const around = (at) => [...nodes.slice(at), ...nodes.slice(0, at)];

// Both libraries behind the few calls that the checks make.
function ioredis(at) {
  const c = cluster ? new Cluster(around(at)) : new Redis({ ...nodes[at], maxRetriesPerRequest: 1, retryStrategy: null });
  c.on('error', () => {}); // each call tells
  const masters = () => (cluster ? c.nodes('master') : [c]);
  return {
    set: (k, v, ttl) => (ttl ? c.set(k, v, 'EX', ttl) : c.set(k, v)), get: (k) => c.get(k), buffer: (k) => c.getBuffer(k),
    del: (k) => c.del(k), ttl: (k) => c.ttl(k), append: (k, v) => c.append(k, v), close: () => c.disconnect(),
    multi: async (k, v) => (await c.multi().set(k, v).get(k).exec()).map(([, reply]) => reply),
    subscribe: async (channel, heard) => { c.on('message', (_, text) => heard(text)); await c.subscribe(channel); },
    publish: (channel, text) => c.publish(channel, text),
    get_: (k) => c.callBuffer('VCTX.GET', k), set_: (k, v, token) => c.callBuffer('VCTX.SET', k, v, token),
    scan: async (match) => {
      const all = [];
      for (const m of masters()) for await (const keys of m.scanStream({ match, count: 50 })) all.push(...keys);
      return all;
    },
  };
}

async function nodeRedis(at) {
  const url = (n) => ({ url: `redis://${n.host}:${n.port}` });
  const options = { RESP: Number(protocol), ...(cluster ? {} : { disableOfflineQueue: true, socket: { reconnectStrategy: false } }) };
  const c = cluster ? createCluster({ rootNodes: around(at).map(url), defaults: {}, RESP: options.RESP }) : createClient({ ...url(nodes[at]), ...options });
  c.on('error', () => {}); // each call tells
  await c.connect();
  const scanned = async function* () {
    for (const m of cluster ? c.masters : [null]) yield m ? await c.nodeClient(m) : c;
  };
  const send = (k, words) => (cluster ? c.sendCommand(k, false, words, bytes) : c.sendCommand(words, bytes));
  return {
    set: (k, v, ttl) => c.set(k, v, ttl ? { EX: ttl } : undefined), get: (k) => c.get(k),
    buffer: (k) => c.withTypeMapping(bytes.typeMapping).get(k),
    del: (k) => c.del(k), ttl: (k) => c.ttl(k), append: (k, v) => c.append(k, v), close: () => c.destroy(),
    multi: (k, v) => c.multi().set(k, v).get(k).exec(),
    subscribe: async (channel, heard) => {
      const own = cluster ? c : c.duplicate();
      own.on('error', () => {});
      if (!cluster) await own.connect();
      await own.subscribe(channel, heard);
    },
    publish: (channel, text) => c.publish(channel, text),
    get_: (k) => send(k, ['VCTX.GET', k]), set_: (k, v, token) => send(k, ['VCTX.SET', k, v, token]),
    scan: async (MATCH) => {
      const all = [];
      for await (const m of scanned()) for await (const keys of m.scanIterator({ MATCH, COUNT: 50 })) all.push(...keys);
      return all;
    },
  };
}

const connect = (at) => (library === 'ioredis' ? ioredis(at) : nodeRedis(at));

const checks = (writer, reader) => ({
  async strings() {
    const text = 'naïve ☕ \r\n\0 end';
    await writer.set(`${prefix}text`, text);
    same(await reader.get(`${prefix}text`), text);
    same((await reader.buffer(`${prefix}text`)).length, Buffer.byteLength(text));
    same(await writer.append(`${prefix}text`, '!'), Buffer.byteLength(text) + 1);
    same(await writer.del(`${prefix}text`), 1);
    same(await reader.get(`${prefix}text`), null);
  },
  async pipeline() { // what is sent in one tick goes as one
    same(await Promise.all(many.map((k, i) => writer.set(k, `value ${i}`))), many.map(() => 'OK'));
    same(await Promise.all(many.map((k) => reader.get(k))), many.map((_, i) => `value ${i}`));
  },
  async expiry() {
    await writer.set(`${prefix}soon`, 'over', 100);
    const left = await reader.ttl(`${prefix}soon`);
    assert(left > 90 && left <= 100, `ttl ${left}`);
  },
  async scan() { same([...new Set(await reader.scan(`${prefix}many:*`))].sort(), [...many].sort()); },
  async multi() { same(await writer.multi(`${prefix}multi`, 'all or none'), ['OK', 'all or none']); },
  async pubsub() { // a message may be lost where nodes take each other for dead
    const heard = [];
    await reader.subscribe(`${prefix}news`, (text) => heard.push(text));
    for (let i = 0; i < 2000 && !heard.length; i++) {
      await writer.publish(`${prefix}news`, 'hello');
      await pause(10);
    }
    same(heard[0], 'hello');
  },
  async vctx() {
    const key = `${prefix}cart:${Date.now()}`;
    const reader2 = await connect(1); // the other has subscribed
    const [blank, none] = await writer.get_(key);
    same(none, []);
    same((await writer.set_(key, 'sibling 0', blank))[1], 1);
    same((await reader2.set_(key, 'sibling 1', blank))[1], 2);
    const [token, both] = await reader2.get_(key);
    same(both.map(String).sort(), ['sibling 0', 'sibling 1']);
    same((await writer.set_(key, 'both', token))[1], 1);
    same((await reader2.get_(key))[1].map(String), ['both']);
  },
});

// Writes until it is killed, without waiting for the write before, as servers do: a
// client for clusters holds back what is for a node that has gone until it hears of
// another from the others. One for a single node is given the next after an error.
async function write() {
  let [at, open] = [0, 0];
  let client = connect(0);
  for (let i = 0; ; i++) {
    await pause(10);
    if (open >= 500) continue;
    open++;
    const begin = Date.now();
    const mine = client;
    const report = (what) => {
      open--;
      console.log(`${begin} ${Date.now()} ${what}`);
    };
    Promise.resolve(mine).then((c) => c.set(`kill:${library}:${door}:${i % 1000}`, String(i))).then(() => report('ok'), (e) => {
      report(String(e).replaceAll('\n', ' '));
      if (cluster || mine !== client) return;
      Promise.resolve(mine).then((c) => c.close()).catch(() => {}); // it may be closed
      client = connect(++at % nodes.length);
    });
  }
}

if (mode === 'write') await write();
const path = `./node_modules/${library === 'ioredis' ? 'ioredis' : 'redis'}/package.json`;
console.log(`version ${JSON.parse(readFileSync(new URL(path, import.meta.url))).version}`);
const all = checks(await connect(0), await connect(nodes.length - 1));
for (const [name, check] of Object.entries(all)) {
  try {
    await check();
    console.log(`${name} ok`);
  } catch (e) {
    console.log(`${name} wrong ${String(e).replaceAll('\n', ' ')}`);
  }
}
process.exit(0);
