package rdb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// oracle is the release that the files are from.
const oracle = "7.0.15"

// redisServer starts a redis-server of the test's own on a socket in its directory. It
// skips the test where there is none, or fails it where everything must run
// (REDYNAMO_REQUIRE=1).
func redisServer(t *testing.T, flags ...string) (cl *redis.Client, file string) {
	t.Helper()
	refuse := t.Skipf
	if os.Getenv("REDYNAMO_REQUIRE") != "" {
		refuse = t.Fatalf
	}
	out, err := exec.Command("redis-server", "--version").Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		refuse("redis-server is not installed")
	case err != nil:
		t.Fatal(err)
	case !strings.Contains(string(out), "v="+oracle+" "):
		refuse("redis-server %s is needed, this is %.80q", oracle, out)
	}
	dir, err := os.MkdirTemp("", "rdb-") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("redis-server", append([]string{"--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--databases", "20"}, flags...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cl = redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() {
		_ = cl.Close() // the test is over
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		_ = os.RemoveAll(dir)
	})
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for cl.Ping(t.Context()).Err() != nil {
		if time.Now().After(deadline) {
			t.Fatal("redis-server does not start")
		}
		<-tick.C
	}
	return cl, filepath.Join(dir, "dump.rdb")
}

// strings7 are values in all the forms in which a file holds strings.
func strings7() map[string]string {
	return map[string]string{
		"empty": "", "one": "1", "minus": "-1", "int8": "-128", "int16": "-32768", "int32": "2147483647", "int64": "9223372036854775807",
		"zero": "007", "short": "hello", "63": strings.Repeat("a", 10) + string(noise(53)), "packed": strings.Repeat("abc", 100),
		"16383": string(noise(16383)), "16384": string(noise(16384)), "large": string(noise(300_000)), "large packed": strings.Repeat("0123456789", 60_000),
		strings.Repeat("a key that is packed ", 20): "x", "12345": "a key that is a number", "-7": "another", string(noise(400)): "a key of many bytes",
	}
}

// fillAllTypes writes every type and encoding that redis-server 7.0 has.
func fillAllTypes(t *testing.T, cl *redis.Client) (kinds map[string]string) {
	t.Helper()
	kinds = map[string]string{}
	do := func(args ...any) {
		t.Helper()
		if err := cl.Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%v: %v", args[:min(3, len(args))], err)
		}
	}
	add := func(kind, key, command string, args ...any) {
		t.Helper()
		kinds[key] = kind
		do(append([]any{command, key}, args...)...)
	}
	many := func(n int, each func(i int) []any) (args []any) {
		for i := range n {
			args = append(args, each(i)...)
		}
		return args
	}
	add("list", "list small", "RPUSH", "a", "-1", strings.Repeat("b", 100))
	add("list", "list of nodes", "RPUSH", many(3000, func(i int) []any { return []any{fmt.Sprint("element ", i)} })...)
	add("list", "list of plain nodes", "RPUSH", string(noise(20_000)), strings.Repeat("z", 20_000))
	add("set", "intset 16", "SADD", many(10, func(i int) []any { return []any{i} })...)
	add("set", "intset 64", "SADD", 1<<40, -5)
	add("set", "set", "SADD", many(1000, func(i int) []any { return []any{fmt.Sprint("member ", i)} })...)
	add("zset", "zset small", "ZADD", 1.5, "a", "-inf", "b", "+inf", "c")
	add("zset", "zset", "ZADD", many(1000, func(i int) []any { return []any{float64(i) / 3, fmt.Sprint("m", i)} })...)
	add("hash", "hash small", "HSET", "f", "v", "g", "12")
	add("hash", "hash", "HSET", many(1000, func(i int) []any { return []any{fmt.Sprint("f", i), strings.Repeat("v", i%90)} })...)
	add("string", "hll", "PFADD", "a", "b")
	add("zset", "geo", "GEOADD", 13.3, 38.1, "Palermo")
	add("stream", "stream plain", "XADD", "1-1", "f", "v")
	for i := range 500 {
		add("stream", "stream", "XADD", fmt.Sprintf("%d-1", i+1), "f", i, "g", strings.Repeat("x", i%50))
	}
	do("XGROUP", "CREATE", "stream", "group", "0")
	do("XGROUP", "CREATE", "stream", "empty group", "$")
	do("XGROUP", "CREATECONSUMER", "stream", "group", "idle")
	do("XREADGROUP", "GROUP", "group", "worker", "COUNT", "100", "STREAMS", "stream", ">")
	do("XREADGROUP", "GROUP", "group", "other", "COUNT", "3", "STREAMS", "stream", ">")
	do("XACK", "stream", "group", "1-1", "2-1")
	do("XDEL", "stream", "3-1")
	add("stream", "stream empty", "XADD", "1-1", "f", "v")
	do("XDEL", "stream empty", "1-1")
	do("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)")
	do("EXPIREAT", "hash", 33_000_000_000)
	return kinds
}

func TestFilesOfRedisAreReadWhole(t *testing.T) {
	for name, flags := range map[string][]string{
		"plain":           nil,
		"not packed":      {"--rdbcompression", "no", "--rdbchecksum", "no"},
		"with idle times": {"--maxmemory-policy", "allkeys-lru", "--maxmemory", "1gb"},
		"with counts":     {"--maxmemory-policy", "allkeys-lfu", "--maxmemory", "1gb"},
		"small nodes":     {"--list-max-listpack-size", "2", "--stream-node-max-entries", "3", "--list-compress-depth", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			cl, path := redisServer(t, flags...)
			kinds := fillAllTypes(t, cl)
			want := strings7()
			at := int64(0)
			expires := map[string]int64{}
			for k, v := range want {
				kinds[k] = "string"
				if err := cl.Set(t.Context(), k, v, 0).Err(); err != nil {
					t.Fatal(err)
				}
				if at++; at%2 == 0 {
					expires[k] = 4_000_000_000_000 + at
					if err := cl.PExpireAt(t.Context(), k, time.UnixMilli(expires[k])).Err(); err != nil {
						t.Fatal(err)
					}
				}
			}
			want["hll"], expires["hash"] = cl.Get(t.Context(), "hll").Val(), 33_000_000_000_000
			if err := cl.Do(t.Context(), "COPY", "one", "elsewhere", "DB", 17).Err(); err != nil {
				t.Fatal(err)
			}
			if err := cl.Save(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			compareFile(t, path, kinds, want, expires)
		})
	}
}

// compareFile reads the file, from its begin and again from every position in it.
func compareFile(t *testing.T, path string, kinds, values map[string]string, expires map[string]int64) {
	t.Helper()
	in, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all, err := entries(bytes.NewReader(in), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, e := range all {
		if e.Database == 17 {
			if string(e.Key) != "elsewhere" || string(e.Value) != "1" {
				t.Errorf("in database 17: %+v", e)
			}
			continue
		}
		found++
		key := string(e.Key)
		if e.Database != 0 || e.Type != kinds[key] || string(e.Value) != values[key] || e.ExpireAtMS != expires[key] {
			t.Errorf("%.50q: database %d, a %s of %d bytes, until %d; want a %s of %d, until %d", key, e.Database, e.Type, e.Bytes, e.ExpireAtMS,
				kinds[key], len(values[key]), expires[key])
		}
	}
	if found != len(kinds) || len(all) != found+1 {
		t.Errorf("%d of %d keys", found, len(kinds))
	}
}
