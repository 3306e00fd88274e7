package resp

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/coordinator"
)

// scan is one SCAN taken apart.
func (c *dataWire) scan(args ...string) (cursor string, keys []string) {
	c.t.Helper()
	raw := c.do(append([]string{"SCAN"}, args...)...)
	rest, ok := strings.CutPrefix(raw, "*2\r\n")
	if !ok {
		c.t.Fatalf("SCAN %q: got %q", args, raw)
	}
	cursor, rest = cutBulk(c.t, rest)
	for _, rest, _ = strings.Cut(rest, "\r\n"); rest != ""; {
		var k string
		k, rest = cutBulk(c.t, rest)
		keys = append(keys, k)
	}
	return cursor, keys
}

func TestScanReturnsEveryKeyThatStays(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	d := newDataDoor(t)
	c, other := d.connect(), d.connect()
	stays := map[string]bool{}
	for i := range 500 {
		k := fmt.Sprint("stays:", i)
		stays[k] = true
		c.do("SET", k, "v")
	}
	for _, options := range [][]string{{"COUNT", "7"}, {"COUNT", "33", "MATCH", "stays:*"}, {"COUNT", "100", "TYPE", "string"}} {
		found := map[string]bool{}
		for cursor, pages := "0", 0; ; pages++ {
			if pages > 3000 {
				t.Fatalf("seed %d: the scan does not end", seed)
			}
			var keys []string
			cursor, keys = c.scan(append([]string{cursor}, options...)...)
			for _, k := range keys {
				found[k] = true
			}
			if cursor == "0" {
				break
			}
			for range 5 {
				k := fmt.Sprint("comes and goes:", rng.IntN(300))
				other.do([]string{"SET", "DEL"}[rng.IntN(2)], k, "v")
			}
		}
		for k := range stays {
			if !found[k] {
				t.Errorf("seed %d: SCAN %q missed %s", seed, options, k)
			}
		}
		if slices.Contains(options, "MATCH") && len(found) != len(stays) {
			t.Errorf("seed %d: SCAN %q found %d keys, want %d", seed, options, len(found), len(stays))
		}
	}
}

func TestScanCountIsBounded(t *testing.T) {
	o, fault := parseScanOptions([][]byte{[]byte("COUNT"), []byte("9223372036854775807")})
	if fault != "" || o.count != maxScanCount {
		t.Errorf("count %d, %q", o.count, fault)
	}
}

func TestKeysListsMoreThanOnePage(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	n := 2*walkPage + 10
	for i := range n {
		d.store.put(t, fmt.Sprint("key", i), "v", nil)
	}
	if got := strings.Count(c.do("KEYS", "key*"), "$"); got != n {
		t.Errorf("%d keys, want %d", got, n)
	}
}

func TestKeysRefusesAReplyThatIsTooBig(t *testing.T) {
	d := newDataDoor(t, func(c *Config) { c.Limits.MaxReplies = 100 })
	c := d.connect()
	for i := range 20 {
		d.store.put(t, fmt.Sprint("key", 1000+i), "v", nil)
	}
	c.expect("-"+errKeysTooMany+"\r\n", "KEYS", "*")
	c.expect("*1\r\n$7\r\nkey1000\r\n", "KEYS", "*1000")
}

func TestExpensivePatternIsRefusedNotWrong(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	d.store.put(t, strings.Repeat("a", 60<<10), "v", nil)
	pattern := "*" + strings.Repeat("a", 30<<10) + "b"
	c.expect("-"+errPatternCost+"\r\n", "KEYS", pattern)
	c.expect("-"+errPatternCost+"\r\n", "SCAN", "0", "MATCH", pattern)
}

func TestFlushAllDeletesEveryPageAndReportsFailure(t *testing.T) {
	d := newDataDoor(t)
	s := d.session()
	n := int64(2*walkPage + 10)
	for i := range n {
		d.store.put(t, fmt.Sprint("key", i), "v", nil)
	}
	if got, err := keyCount(s); got != n || err != nil {
		t.Errorf("count %d, %v; want %d", got, err, n)
	}
	d.store.mu.fail["key7"] = coordinator.ErrNoReplicas
	if err := flushAll(s); !errors.Is(err, coordinator.ErrNoReplicas) {
		t.Errorf("got %v", err)
	}
	delete(d.store.mu.fail, "key7")
	if err := flushAll(s); err != nil {
		t.Error(err)
	}
	if got, err := keyCount(s); got != 0 || err != nil {
		t.Errorf("count %d, %v; want 0", got, err)
	}
	if err := flushAll(s); err != nil {
		t.Errorf("of an empty store: %v", err)
	}
}
