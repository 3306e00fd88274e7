package resp

import (
	"strings"
	"testing"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
	"github.com/redynamo/redynamo/resp/rdb"
)

func TestRestoreWritesOnceAndWithItsExpiry(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	payload := string(rdb.Dump([]byte("value")))
	c.expect("+OK\r\n", "RESTORE", "k", "1000", payload)
	op := d.store.lastOp(t)
	if op.Cond != version.CondAbsent || op.Expiry != version.ExpiryAt || op.ExpireAtMS != d.clock.now().UnixMilli()+1000 || string(op.Value) != "value" {
		t.Errorf("wrote %+v", op)
	}
	c.expect("-"+errBusyKey+"\r\n", "RESTORE", "k", "0", payload)
	c.expect("+OK\r\n", "RESTORE", "k", "0", payload, "REPLACE")
	if op := d.store.lastOp(t); op.Cond != version.CondNone || op.Expiry != version.ExpiryClear {
		t.Errorf("wrote %+v", op)
	}
}

func TestRestoreThatFailsSaysWhatAWriteSays(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	payload := string(rdb.Dump([]byte("value")))
	d.store.mu.fail["k"] = coordinator.ErrNoReplicas
	c.expect("-NOREPLICAS Not enough good replicas to write.\r\n", "RESTORE", "k", "0", payload)
	c.expect("-NOREPLICAS Not enough good replicas to write.\r\n", "RESTORE", "k", "0", "damaged")
	c.expect("-"+errDumpSum+"\r\n", "RESTORE", "k", "0", "damaged", "REPLACE")
}

func TestRestoreKeepsToTheLimitOfAValue(t *testing.T) {
	d := newDataDoor(t, func(c *Config) { c.Limits.MaxValue = 100 })
	c := d.connect()
	c.expect("-"+errTooLong+"\r\n", "RESTORE", "k", "0", string(rdb.Dump([]byte(strings.Repeat("x", 101)))))
	c.expect("+OK\r\n", "RESTORE", "k", "0", string(rdb.Dump([]byte(strings.Repeat("x", 100)))))
	c.expect("-ERR invalid expire time in 'restore' command\r\n", "RESTORE", "l", "9223372036854775807", string(rdb.Dump(nil)))
}

func TestDumpIsOfTheWinnerAndRemembersWhatItRead(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	d.store.put(t, "k", "older", nil)
	d.store.put(t, "k", "newer", nil)
	read := d.store.record("k")
	if got, _ := cutBulk(t, c.do("DUMP", "k")); got != string(rdb.Dump([]byte("newer"))) {
		t.Errorf("got %q", got)
	}
	c.do("SET", "k", "v")
	if op := d.store.lastOp(t); !op.Context.Covers(read.Context) {
		t.Errorf("the SET after it has context %v, want %v", op.Context, read.Context)
	}
}
