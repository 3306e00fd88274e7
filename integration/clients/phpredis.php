<?php
// Debian's php-redis. The arguments and what is printed are those of main.go.
//
//   php phpredis.php phpredis plain|cluster 2 HOST:PORT,HOST:PORT,... [write]

[, $client, $door, $protocol, $list] = $argv;
$nodes = explode(',', $list);
$prefix = "$client:$door:$protocol:";
const MANY = 300, PATIENCE = 5.0;

/** Connects to the node at $at, or to the cluster by way of it. */
function connect(int $at): Redis|RedisCluster {
    global $nodes, $door;
    $at %= count($nodes);
    if ($door === 'cluster') {
        $seeds = array_merge(array_slice($nodes, $at), array_slice($nodes, 0, $at));
        return new RedisCluster(null, $seeds, PATIENCE, PATIENCE);
    }
    [$host, $port] = explode(':', $nodes[$at]);
    $c = new Redis();
    $c->connect($host, (int)$port, PATIENCE, null, 0, PATIENCE);
    return $c;
}

function same(mixed $got, mixed $want): void {
    if ($got !== $want) throw new Exception('got ' . json_encode($got) . ', want ' . json_encode($want));
}

/** A command that the library does not know; the first argument routes it. */
function raw(Redis|RedisCluster $c, string $name, string $key, string ...$rest): mixed {
    $words = [$name, $key, ...$rest];
    $reply = $c instanceof RedisCluster ? $c->rawCommand($key, ...$words) : $c->rawCommand(...$words);
    if ($reply === false) throw new Exception((string)$c->getLastError());
    return $reply;
}

function scan(Redis|RedisCluster $c, string $pattern): array {
    $all = [];
    $c->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
    foreach ($c instanceof RedisCluster ? $c->_masters() : [null] as $node) {
        $cursor = null;
        while (($page = $node ? $c->scan($cursor, $node, $pattern, 50) : $c->scan($cursor, $pattern, 50)) !== false) {
            $all = array_merge($all, $page);
        }
    }
    return array_unique($all);
}

$checks = [
    'strings' => function ($writer, $reader) use ($prefix) {
        $blob = str_repeat("na\xff\0 \r\n end", 2000);
        same($writer->set($prefix . 'blob', $blob), true);
        same($reader->get($prefix . 'blob'), $blob);
        same($reader->get($prefix . 'absent'), false);
    },
    'pipeline' => function ($writer, $reader) use ($prefix) {
        if ($writer instanceof RedisCluster) { // it has no pipelines: key by key
            for ($i = 0; $i < MANY; $i++) same($writer->set($prefix . "many:$i", "value $i"), true);
            return false;
        }
        $pipe = $writer->multi(Redis::PIPELINE);
        for ($i = 0; $i < MANY; $i++) $pipe->set($prefix . "many:$i", "value $i");
        same($pipe->exec(), array_fill(0, MANY, true));
        for ($i = 0; $i < MANY; $i++) same($reader->get($prefix . "many:$i"), "value $i");
    },
    'expiry' => function ($writer, $reader) use ($prefix) {
        same($writer->setex($prefix . 'soon', 100, 'over'), true);
        $left = $reader->ttl($prefix . 'soon');
        same($left > 90 && $left <= 100, true);
    },
    'scan' => fn($writer, $reader) => same(count(scan($reader, $prefix . 'many:*')), MANY),
    'multi' => function ($writer) use ($prefix) {
        same($writer->multi()->set($prefix . 'multi', 'all or none')->get($prefix . 'multi')->exec(), [true, 'all or none']);
    },
    'pubsub' => function () use ($prefix) { // its subscriber blocks, so another process publishes
        $publisher = pcntl_fork();
        if ($publisher === 0) {
            for ($c = connect(0), $i = 0; $i < 2000; $i++) {
                $c->publish($prefix . 'news', 'hello');
                usleep(10000);
            }
            posix_kill(getmypid(), SIGKILL); // the end of a script would close what is its parent's
        }
        $heard = null;
        $listener = connect(1);
        try {
            $listener->subscribe([$prefix . 'news'], function ($c, $channel, $text) use (&$heard, $prefix) {
                $heard = $text;
                $c->close(); // it has no other way out of the loop
            });
        } catch (RedisException | RedisClusterException) { // the loop complains of its end
        }
        posix_kill($publisher, SIGKILL);
        pcntl_waitpid($publisher, $status);
        same($heard, 'hello');
    },
    'vctx' => function ($writer, $reader) use ($prefix) {
        $key = $prefix . 'cart:' . hrtime(true);
        [$blank, $values] = raw($writer, 'VCTX.GET', $key);
        same($values, []);
        same(raw($writer, 'VCTX.SET', $key, 'sibling 0', $blank)[1], 1);
        same(raw($reader, 'VCTX.SET', $key, 'sibling 1', $blank)[1], 2);
        [$token, $values] = raw($reader, 'VCTX.GET', $key);
        sort($values);
        same($values, ['sibling 0', 'sibling 1']);
        same(raw($writer, 'VCTX.SET', $key, 'both', $token)[1], 1);
        same(raw($reader, 'VCTX.GET', $key)[1], ['both']);
    },
];

/** Writes until it is killed; a client for one node is given the next after an error. */
function write(): never {
    global $client, $door;
    for ($c = null, $at = 0, $i = 0; ; $i++) {
        usleep(10000);
        $begin = (int)(microtime(true) * 1000);
        $what = 'ok';
        try {
            $c ??= connect($at);
            if ($c->set("kill:$client:$door:" . $i % 1000, (string)$i) !== true) throw new Exception((string)$c->getLastError());
        } catch (Exception $e) {
            $what = str_replace("\n", ' ', 'error: ' . $e->getMessage());
            if ($door === 'plain') [$c, $at] = [null, $at + 1];
        }
        echo $begin, ' ', (int)(microtime(true) * 1000), " $what\n";
    }
}

error_reporting(E_ALL & ~E_WARNING); // what is wrong is thrown as well
if (($argv[5] ?? '') === 'write') write();
echo 'version ', phpversion('redis'), "\n";
[$writer, $reader] = [connect(0), connect(count($nodes) - 1)];
foreach ($checks as $name => $check) {
    try {
        echo "$name ", $check($writer, $reader) === false ? 'no' : 'ok', "\n";
    } catch (Throwable $e) {
        echo "$name wrong ", str_replace("\n", ' ', $e->getMessage()), "\n";
    }
}
