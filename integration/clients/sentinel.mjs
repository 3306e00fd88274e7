// ioredis or node-redis behind sentinels, while the node that it writes to dies.
//
//   node sentinel.mjs redis|ioredis HOST:PORT,HOST:PORT,...
//
// Prints "writing" once it writes, then the longest time in seconds without a write.
import { createSentinel } from 'redis';
import { Redis } from 'ioredis';

const [library, list] = process.argv.slice(2);
const nodes = list.split(',').map((a) => ({ host: a.split(':')[0], port: Number(a.split(':')[1]) }));
let client;
if (library === 'ioredis') {
  client = new Redis({ sentinels: nodes, name: 'mymaster', commandTimeout: 2000, sentinelRetryStrategy: () => 50, retryStrategy: () => 50 });
} else {
  client = await createSentinel({ name: 'mymaster', sentinelRootNodes: nodes, scanInterval: 500 }).connect();
}
client.on('error', () => {}); // it reports each broken connection
const within = (promise) => Promise.race([promise, new Promise((_, no) => setTimeout(no, 2000))]);
let written = 0;
let last = performance.now();
let longest = 0;
let end = Infinity;
while (performance.now() < end) {
  try {
    await within(client.set(`node:${library}:${written}`, `value ${written}`));
  } catch {
    continue;
  }
  const now = performance.now();
  longest = Math.max(longest, now - last);
  last = now;
  if (++written === 20) {
    console.log('writing');
    longest = 0;
    end = now + 8000;
  }
}
longest = Math.max(longest, performance.now() - last);
for (let i = 0; i < written; i += 7) {
  if (await client.get(`node:${library}:${i}`) !== `value ${i}`) {
    console.error(`value ${i} is gone`);
    process.exit(1);
  }
}
console.log((longest / 1000).toFixed(3));
process.exit(0);
