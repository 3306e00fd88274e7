package resp

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
)

func TestSeenKeepsTheKeysTouchedLast(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := seen{seed: maphash.MakeSeed()}
	var model []string // newest last
	values := make(map[string]uint64)
	for step := range uint64(20_000) {
		key := fmt.Sprint("k", rnd.IntN(seenKeys*3/2))
		at := slices.Index(model, key)
		if rnd.IntN(2) == 0 {
			e := s.find([]byte(key))
			if (e != nil) != (at >= 0) || (e != nil && e.token.HLC != version.HLC(values[key])) {
				t.Fatalf("seed %d step %d: find %s: %v, the model has it at %d", seed, step, key, e, at)
			}
			if e == nil {
				continue
			}
		} else {
			e := s.touch([]byte(key))
			if fresh := !e.hasToken; fresh == (at >= 0) {
				t.Fatalf("seed %d step %d: touch %s: fresh %t, the model has it at %d", seed, step, key, fresh, at)
			}
			values[key] = step
			e.token.HLC, e.hasToken = version.HLC(step), true
		}
		if at >= 0 {
			model = slices.Delete(model, at, at+1)
		}
		model = append(model, key)
		model = model[max(0, len(model)-seenKeys):]
	}
	s.forget()
	if s.find([]byte(model[len(model)-1])) != nil {
		t.Error("still there after forget")
	}
}

func TestSeenAllocatesNothingOnceFull(t *testing.T) {
	s := seen{seed: maphash.MakeSeed()}
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "key:%06d", i)
		s.touch(keys[i])
	}
	i := 0
	if n := testing.AllocsPerRun(2000, func() { s.touch(keys[i%1000]); i++ }); n > 0.1 {
		t.Errorf("%v allocations per key", n)
	}
}

func TestSessionRemembersTheUnionOfWhatItRead(t *testing.T) {
	s := &session{}
	s.seen.seed = maphash.MakeSeed()
	a, b := version.Context{{Actor: 1, Lo: 1, Hi: 3}}, version.Context{{Actor: 2, Lo: 5, Hi: 5}}
	key := []byte("k")
	counted := []version.Addend{{Actor: 3, Start: 1, Top: 2}}
	s.remember(key, version.Token{Context: a, Addends: counted})
	s.remember(key, version.Token{Context: b})
	if got := s.implicit(key); !got.Context.Equal(a.Union(b)) || !slices.Equal(got.Addends, counted) {
		t.Errorf("remembers %v", got)
	}
	s.noContext = true
	if got := s.implicit(key); got.Context != nil {
		t.Errorf("CONTEXT OFF still gives %v", got)
	}
	s.resetSettings()
	if got := s.implicit(key); got.Context != nil {
		t.Errorf("after a reset: %v", got)
	}
	s.observe(7)
	s.observe(3)
	if s.hlc() != 7 {
		t.Errorf("hlc %d", s.hlc())
	}
}

func TestReplyWritesEachProtocolVersion(t *testing.T) {
	for _, c := range []struct {
		name         string
		write        func(w *Reply)
		resp2, resp3 string
	}{
		{"simple", func(w *Reply) { w.Simple("a\r\nb") }, "+a  b\r\n", "+a  b\r\n"},
		{"error", func(w *Reply) { w.Error("ERR a\nb") }, "-ERR a b\r\n", "-ERR a b\r\n"},
		{"int", func(w *Reply) { w.Int(math.MinInt64) }, ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"},
		{"bulk", func(w *Reply) { w.Bulk([]byte("a\r\n")); w.Bulk(nil); w.BulkString("x") }, "$3\r\na\r\n\r\n$0\r\n\r\n$1\r\nx\r\n", "$3\r\na\r\n\r\n$0\r\n\r\n$1\r\nx\r\n"},
		{"null", func(w *Reply) { w.Null(); w.NullArray() }, "$-1\r\n*-1\r\n", "_\r\n_\r\n"},
		{"aggregates", func(w *Reply) { w.Array(2); w.Map(2); w.Set(2); w.Push(2) }, "*2\r\n*4\r\n*2\r\n*2\r\n", "*2\r\n%2\r\n~2\r\n>2\r\n"},
		{"verbatim", func(w *Reply) { w.Verbatim("txt", "abc") }, "$3\r\nabc\r\n", "=7\r\ntxt:abc\r\n"},
		{"double", func(w *Reply) { w.Double(1.5); w.Double(math.Inf(-1)); w.Double(3) }, "$3\r\n1.5\r\n$4\r\n-inf\r\n$1\r\n3\r\n", ",1.5\r\n,-inf\r\n,3\r\n"},
		{"bool", func(w *Reply) { w.Bool(true); w.Bool(false) }, ":1\r\n:0\r\n", "#t\r\n#f\r\n"},
		{"raw", func(w *Reply) { w.Raw([]byte("+x\r\n")) }, "+x\r\n", "+x\r\n"},
	} {
		for proto, want := range map[int]string{2: c.resp2, 3: c.resp3} {
			w := Reply{proto: proto}
			c.write(&w)
			if got := string(w.buf); got != want {
				t.Errorf("%s in RESP%d: got %q, want %q", c.name, proto, got, want)
			}
		}
	}
}

func TestEachErrorOfTheStoreHasItsWord(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("wrapped: %w", err) }
	for want, err := range map[string]error{
		"NOREPLICAS Not enough good replicas to write.":                                    coordinator.ErrNoReplicas,
		"NOREPLICAS Not enough good replicas to read.":                                     coordinator.ErrNoReadQuorum,
		"NOREPLICAS Not enough good replicas to read: no owner of the key could be asked.": coordinator.ErrNoOwner,
		"UNCERTAIN acked 1/2": &coordinator.UncertainError{Acked: 1, Want: 2},
		"STALE ":              coordinator.ErrStale,
		"OVERLOADED ":         coordinator.ErrOverloaded,
		"TIMEOUT ":            coordinator.ErrTimeout,
		"TOOMANYSIBLINGS ":    version.ErrTooManySiblings,
		"BADCTX ":             version.ErrBadToken,
		"ERR string exceeds maximum allowed size (proto-max-bulk-len)": version.ErrTooLarge,
		"ERR stored data is damaged":                                   version.ErrCorrupt,
		"ERR internal error":                                           errors.New("open /secret/path: permission denied"),
		"TIMEOUT the request took too long":                            context.DeadlineExceeded,
	} {
		if got := errorText(wrap(err)); !strings.HasPrefix(got, want) {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}

func TestNoErrorOfUnknownOutcomeHasAWordThatClientsRetry(t *testing.T) {
	retried := []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "ERR max number of clients", "MOVED", "ASK"}
	for _, err := range []error{&coordinator.UncertainError{Want: 2}, coordinator.ErrTimeout, coordinator.ErrLost, context.DeadlineExceeded,
		context.Canceled, errors.New("unforeseen"), version.ErrCorrupt} {
		for _, word := range retried {
			if text := errorText(err); strings.HasPrefix(text, word) {
				t.Errorf("%v is told as %q, which clients retry", err, text)
			}
		}
	}
}

// infoFields are those that clients and tools are known to read.
const infoFields = `redis_version redis_mode os arch_bits run_id tcp_port process_id uptime_in_seconds server_time_usec config_file
	connected_clients blocked_clients maxclients tracking_clients used_memory used_memory_rss used_memory_peak used_memory_human maxmemory
	maxmemory_policy mem_allocator mem_fragmentation_ratio loading rdb_bgsave_in_progress rdb_changes_since_last_save rdb_last_save_time
	rdb_last_bgsave_status aof_enabled aof_rewrite_in_progress total_connections_received total_commands_processed
	instantaneous_ops_per_sec rejected_connections expired_keys evicted_keys keyspace_hits keyspace_misses total_net_input_bytes
	total_net_output_bytes pubsub_channels latest_fork_usec total_error_replies role connected_slaves master_repl_offset master_replid
	used_cpu_sys used_cpu_user cluster_enabled redynamo_version ring_epoch`

func TestInfoHasTheFieldsThatClientsRead(t *testing.T) {
	d := openDoor(t)
	c := d.connect()
	for _, ask := range [][]string{{"INFO"}, {"INFO", "default"}, {"INFO", "all"}, {"INFO", "everything"}} {
		got := c.do(ask...)
		for _, field := range strings.Fields(infoFields) {
			if !strings.Contains(got, "\r\n"+field+":") {
				t.Errorf("%v lacks %s", ask, field)
			}
		}
	}
	if got := c.line("INFO server CLUSTER nosuch"); strings.Count(got, "# ") != 2 || !strings.Contains(got, "# Server\r\n") || !strings.Contains(got, "\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n") {
		t.Errorf("two sections: %q", got)
	}
	if got := c.line("INFO nosuch"); got != "$0\r\n\r\n" {
		t.Errorf("no section: %q", got)
	}
	if got := c.line("INFO commandstats"); !strings.Contains(got, "cmdstat_info:calls=6,usec=") {
		t.Errorf("command statistics: %q", got)
	}
	d.admin.loading.Store(true)
	if got := c.line("INFO persistence"); !strings.Contains(got, "\r\nloading:1\r\n") {
		t.Errorf("while loading: %q", got)
	}
	c.line("HELLO 3")
	if got := c.line("INFO clients"); got[0] != '=' || !strings.Contains(got, "txt:# Clients\r\n") {
		t.Errorf("RESP3: %q", got)
	}
}

func TestPasswordIsShownNowhere(t *testing.T) {
	d := openDoor(t, func(c *Config) { c.Password = "canary-secret" })
	c := d.connect()
	c.expect("+OK\r\n", "AUTH", "canary-secret")
	for _, line := range []string{"CONFIG GET *", "INFO everything", "CLIENT LIST", "ACL LIST", "RING STATUS", "COMMAND DOCS"} {
		if got := c.line(line); strings.Contains(got, "canary") {
			t.Errorf("%s shows it: %q", line, got)
		}
	}
	c.expect("+OK\r\n", "CONFIG", "SET", "requirepass", "")
	d.connect().expect("+PONG\r\n", "PING")
}

func TestClientListDescribesAndKillEndsConnections(t *testing.T) {
	d := openDoor(t)
	a, b := d.connect(), d.connect()
	a.expect("+OK\r\n", "CLIENT", "SETNAME", "a")
	b.expect("+OK\r\n", "CLIENT", "SETINFO", "LIB-NAME", "lib")
	b.expect("+OK\r\n", "client", "setinfo", "lib-ver", "1.2")
	b.expect("-ERR Unrecognized option 'x'\r\n", "client", "setinfo", "x", "1.2")
	list, _ := cutBulk(t, a.line("CLIENT LIST"))
	lines := strings.Split(strings.TrimSuffix(list, "\n"), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], " name=a ") || !strings.Contains(lines[1], " cmd=client|setinfo ") || !strings.HasSuffix(lines[1], " lib-name=lib lib-ver=1.2") {
		t.Fatalf("list: %q", list)
	}
	for _, field := range strings.Fields("id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp obl oll omem tot-mem events cmd user redir resp") {
		if !strings.Contains(" "+lines[0], " "+field+"=") {
			t.Errorf("no %s in %q", field, lines[0])
		}
	}
	if one, _ := cutBulk(t, a.line("CLIENT LIST ID 2")); one == "" || strings.Contains(one, "name=a ") {
		t.Errorf("LIST ID: %q", one)
	}
	a.expect(":1\r\n", "CLIENT", "KILL", "ID", "2")
	if _, err := b.r.ReadByte(); err == nil {
		t.Error("the killed connection is still served")
	}
	a.expect(":0\r\n", "CLIENT", "KILL", "ID", "1") // SKIPME is the default
	a.expect(":1\r\n", "CLIENT", "KILL", "ID", "1", "SKIPME", "no")
	if _, err := a.r.ReadByte(); err == nil {
		t.Error("the connection that killed itself is still served")
	}
}

func TestCommandListHasEveryRowOnceAndCountsThem(t *testing.T) {
	d := openDoor(t)
	c := d.connect()
	rows := len(d.srv.table.rows)
	if got := c.line("COMMAND COUNT"); got != fmt.Sprintf(":%d\r\n", rows) {
		t.Errorf("count: %q of %d", got, rows)
	}
	if got := c.line("COMMAND"); !strings.HasPrefix(got, fmt.Sprintf("*%d\r\n*10\r\n", rows)) {
		t.Errorf("bare: %.40q", got)
	}
	if got := c.line("COMMAND DOCS"); !strings.HasPrefix(got, fmt.Sprintf("*%d\r\n", 2*rows)) {
		t.Errorf("docs: %.40q", got)
	}
	d.srv.table.each(func(row *command) {
		if row.summary == "" || row.group == "" || row.since == "" || row.complexity == "" {
			t.Errorf("%s is not documented: %q %q %q %q", row.full, row.summary, row.group, row.since, row.complexity)
		}
		if got := c.do("COMMAND", "INFO", row.full); !strings.HasPrefix(got, "*1\r\n*10\r\n") {
			t.Errorf("info of %s: %.40q", row.full, got)
		}
	})
}

func TestTableRefusesRowsThatCannotBe(t *testing.T) {
	for name, rows := range map[string][]command{
		"no handler": {{name: "x", arity: 1}},
		"no arity":   {{name: "x", run: okay}},
		"upper case": {{name: "X", arity: 1, run: okay}},
		"twice":      {{name: "x", arity: 1, run: okay}, {name: "x", arity: 1, run: okay}},
		"no step":    {{name: "x", arity: 2, first: 1, run: okay}},
	} {
		if _, err := newTable(rows); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestInfoTellsHowFarCopiesDriftedApart(t *testing.T) {
	d := openDoor(t)
	d.admin.stats.Store(&Stats{Divergence: coordinator.Divergence{
		Versions: []coordinator.Bucket{{Name: "1", Count: 1000}, {Name: "4-7", Count: 2}, {Name: "8+", Count: 1}},
		Siblings: 17, DivergentReads: 3, RepairsBegun: 4, RepairsDone: 5, RepairsFailed: 6, RepairsDropped: 7,
		HintsStored: 8, HintsKept: 9, HintsFailed: 10,
		Staleness: []coordinator.Bucket{{Name: "0-9", Count: 11}}, StalenessUnknown: 12,
	}})
	want := "# Divergence\r\nreads_with_versions_1:1000\r\nreads_with_versions_4-7:2\r\nreads_with_versions_8+:1\r\nsiblings_seen:17\r\n" +
		"divergent_reads:3\r\nrepairs_begun:4\r\nrepairs_done:5\r\nrepairs_failed:6\r\nrepairs_dropped:7\r\n" +
		"repairs_of_age_ms_0-9:11\r\nrepairs_of_age_unknown:12\r\nhints_stored:8\r\nhints_kept:9\r\nhints_failed:10\r\n"
	c := d.connect()
	for _, ask := range []string{"INFO divergence", "INFO"} {
		if got := c.line(ask); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want in it %q", ask, got, want)
		}
	}
}
