package resp

import (
	"context"
	"strconv"

	"github.com/redynamo/redynamo/membership/ring"
)

func clusterCommands() []command {
	fast := words("loading stale fast")
	rows := []command{
		{name: "asking", arity: 1, flags: words("fast"), run: clusterOnly(okay), since: "3.0.0", summary: "Accepted; nothing is ever migrating."},
		{name: "cluster", arity: -2, since: "3.0.0", summary: "Container of commands about the slot map.", subcommands: clusterSubcommands()},
		{name: "readonly", arity: 1, flags: fast, run: clusterOnly(okay), since: "3.0.0", summary: "Accepted; every node serves every key."},
		{name: "readwrite", arity: 1, flags: fast, run: clusterOnly(okay), since: "3.0.0", summary: "Accepted; every node serves every key."},
	}
	for i := range rows {
		rows[i].group, rows[i].complexity = "cluster", "O(1)"
		if rows[i].subcommands == nil {
			rows[i].categories = words("connection")
		}
	}
	return rows
}

func clusterSubcommands() []command {
	stale, admin := words("stale"), words("admin stale")
	vague := words("nondeterministic_output")
	rows := []command{
		{name: "countkeysinslot", arity: 3, flags: stale, run: clusterCountKeys, since: "3.0.0", summary: "Counts the keys of a slot.", args: arguments("slot integer")},
		{name: "getkeysinslot", arity: 4, flags: stale, run: clusterGetKeys, tips: vague, since: "3.0.0", summary: "Answers keys of a slot.", args: arguments("slot integer", "count integer")},
		{name: "help", arity: 2, flags: words("loading stale"), since: "5.0.0", summary: "Lists the subcommands."},
		{name: "info", arity: 2, flags: stale, run: clusterInfo, tips: vague, since: "3.0.0", summary: "Describes the state of the map."},
		{name: "keyslot", arity: 3, flags: stale, run: clusterKeySlot, since: "3.0.0", summary: "Answers the slot of a key.", args: arguments("key string")},
		{name: "links", arity: 2, flags: stale, run: clusterLinks, tips: vague, since: "7.0.0", summary: "Answers none: nodes do not speak Redis's bus protocol."},
		{name: "myid", arity: 2, flags: stale, run: clusterMyID, since: "3.0.0", summary: "Names this node."},
		{name: "nodes", arity: 2, flags: stale, run: clusterNodes, tips: vague, since: "3.0.0", summary: "Lists the nodes and the slots they are first for."},
		{name: "replicas", arity: 3, flags: admin, run: clusterReplicas, tips: vague, since: "5.0.0", summary: "Answers none: every node is a master.", args: arguments("node-id string")},
		{name: "shards", arity: 2, flags: stale, run: clusterShards, tips: vague, since: "7.0.0", summary: "Lists runs of slots with their owners."},
		{name: "slaves", arity: 3, flags: admin, run: clusterReplicas, tips: vague, since: "3.0.0", summary: "The same as REPLICAS.", args: arguments("node-id string")},
		{name: "slots", arity: 2, flags: stale, run: clusterSlots, tips: vague, since: "3.0.0", summary: "Lists runs of slots with their owners."},
	}
	for i := range rows {
		if rows[i].name == "help" {
			rows[i].run = helper("cluster", rows)
		}
		rows[i].run = clusterOnly(rows[i].run)
		rows[i].group, rows[i].complexity = "cluster", "O(N) with N = runs of slots"
	}
	return rows
}

// clusterOnly refuses a command on the plain door, as a Redis without cluster
// support does.
func clusterOnly(run handler) handler {
	return func(s *session, args [][]byte, w *Reply) {
		if s.door() == Plain {
			w.Error(errNoCluster)
			return
		}
		run(s, args, w)
	}
}

// view is the present map; never nil.
func (s *session) view() *View {
	if v := s.admin().View(); v != nil {
		return v
	}
	return &View{self: -1}
}

// epochText is the epoch as clients can hold it: a positive number that is the
// same on every node that has the same ring.
func epochText(epoch uint64) string { return strconv.FormatUint(epoch>>16, 10) }

func clusterKeySlot(_ *session, args [][]byte, w *Reply) { w.Int(int64(ring.SlotOf(args[2]))) }

func clusterMyID(s *session, _ [][]byte, w *Reply) { w.BulkString(s.admin().Identity().ID.Hex40()) }

func clusterLinks(_ *session, _ [][]byte, w *Reply) { w.Array(0) }

func clusterReplicas(s *session, args [][]byte, w *Reply) {
	for _, m := range s.view().Members {
		if m.ID.Hex40() == string(args[2]) {
			w.Array(0)
			return
		}
	}
	w.Error("ERR Unknown node " + clip(args[2], shownBytes))
}

func clusterCountKeys(s *session, args [][]byte, w *Reply) {
	slot, ok := parseInt(args[2])
	switch {
	case !ok:
		w.Error(errNotInteger)
		return
	case slot < 0 || slot >= ring.Slots:
		w.Error("ERR Invalid slot")
		return
	case !s.admin().Ready():
		w.Error(errLoading)
		return
	}
	ctx, cancel := s.walkContext()
	defer cancel()
	n, err := s.store().CountSlot(ctx, uint16(slot))
	if err != nil {
		w.Fail(err)
		return
	}
	w.Int(n)
}

// slotKeys bounds CLUSTER GETKEYSINSLOT.
const slotKeys = 10000

func clusterGetKeys(s *session, args [][]byte, w *Reply) {
	slot, okSlot := parseInt(args[2])
	count, okCount := parseInt(args[3])
	switch {
	case !okSlot || !okCount:
		w.Error(errNotInteger)
		return
	case slot < 0 || slot >= ring.Slots || count < 0:
		w.Error("ERR Invalid slot or number of keys")
		return
	case !s.admin().Ready():
		w.Error(errLoading)
		return
	}
	ctx, cancel := s.walkContext()
	defer cancel()
	keys, err := keysInSlot(ctx, s, uint16(slot), int(min(count, slotKeys)))
	if err != nil {
		w.Fail(err)
		return
	}
	w.Array(len(keys))
	for _, key := range keys {
		w.Bulk(key)
	}
}

func clusterInfo(s *session, _ [][]byte, w *Reply) {
	v := s.view()
	masters, live := 0, 0
	for i, m := range v.Members {
		if v.first[i] > 0 {
			masters++
		}
		if m.Alive {
			live++
		}
	}
	state, assigned, ok := "ok", 0, 0
	for _, run := range v.Runs {
		n := int(run.Last) - int(run.First) + 1
		if len(run.Owners) == 0 {
			continue
		}
		assigned += n
		if v.Members[run.Owners[0]].Alive {
			ok += n
		}
	}
	if !s.admin().Ready() || assigned < ring.Slots {
		state = "fail"
	}
	epoch := epochText(v.Epoch)
	w.Verbatim("txt", lines(
		Field{"cluster_state", state},
		Field{"cluster_slots_assigned", strconv.Itoa(assigned)},
		Field{"cluster_slots_ok", strconv.Itoa(ok)},
		Field{"cluster_slots_pfail", strconv.Itoa(assigned - ok)},
		Field{"cluster_slots_fail", "0"},
		Field{"cluster_known_nodes", strconv.Itoa(len(v.Members))},
		Field{"cluster_size", strconv.Itoa(masters)},
		Field{"cluster_current_epoch", epoch},
		Field{"cluster_my_epoch", epoch},
		Field{"cluster_stats_messages_sent", "0"},
		Field{"cluster_stats_messages_received", "0"},
		Field{"total_cluster_links_buffer_limit_exceeded", "0"},
		Field{"redynamo_live_nodes", strconv.Itoa(live)},
	))
}

// lines is the text of INFO: name:value, CRLF.
func lines(fields ...Field) string {
	var b []byte
	for _, f := range fields {
		b = append(b, f.Name...)
		b = append(b, ':')
		b = append(b, f.Value...)
		b = append(b, '\r', '\n')
	}
	return string(b)
}

// clusterNodes lists every member as a master with the slots it is first for, so
// that the slots add up to one whole: each slot once.
func clusterNodes(s *session, _ [][]byte, w *Reply) {
	v := s.view()
	var b []byte
	for i, m := range v.Members {
		flags, link := "master", "connected"
		if i == v.self {
			flags = "myself,master"
		}
		if !m.Alive {
			flags, link = "master,fail?", "disconnected"
		}
		b = append(b, m.ID.Hex40()...)
		b = append(b, ' ')
		b = append(b, m.Host...)
		b = append(b, ':')
		b = strconv.AppendInt(b, int64(m.Cluster), 10)
		b = append(b, '@')
		b = strconv.AppendInt(b, int64(m.Bus), 10)
		b = append(b, ' ')
		b = append(b, flags...)
		b = append(b, " - 0 0 "...)
		b = append(b, epochText(v.Epoch)...)
		b = append(b, ' ')
		b = append(b, link...)
		b = v.appendSlots(b, i)
		b = append(b, '\n')
	}
	w.Verbatim("txt", string(b))
}

// appendSlots appends the slots that a member is first for: " 0-5460 7000".
func (v *View) appendSlots(b []byte, member int) []byte {
	if v.first[member] == 0 {
		return b
	}
	for i := 0; i < len(v.Runs); i++ {
		if !v.leads(i, member) {
			continue
		}
		first, last := v.Runs[i].First, v.Runs[i].Last
		for i+1 < len(v.Runs) && v.leads(i+1, member) {
			i++
			last = v.Runs[i].Last
		}
		b = append(b, ' ')
		b = strconv.AppendInt(b, int64(first), 10)
		if last > first {
			b = append(b, '-')
			b = strconv.AppendInt(b, int64(last), 10)
		}
	}
	return b
}

func (v *View) leads(run, member int) bool {
	owners := v.Runs[run].Owners
	return len(owners) > 0 && owners[0] == member
}

// clusterSlots publishes each run with its owners, the first live one as master.
// A run without a live owner is still there: clients insist on every slot.
func clusterSlots(s *session, _ [][]byte, w *Reply) {
	v := s.view()
	runs := introduced(v.served(), len(v.Members))
	w.Array(len(runs))
	for _, run := range runs {
		w.Array(2 + len(run.Owners))
		w.Int(int64(run.First))
		w.Int(int64(run.Last))
		for _, i := range run.Owners {
			m := v.Members[i]
			w.Array(4)
			w.BulkString(m.Host)
			w.Int(int64(m.Cluster))
			w.BulkString(m.ID.Hex40())
			w.Map(0)
		}
	}
}

// served lists the runs that have an owner, which on a formed ring is all.
// Owners that are down are listed only when none is up.
func (v *View) served() []SlotRun {
	runs := make([]SlotRun, 0, len(v.Runs))
	for _, run := range v.Runs {
		live := 0
		for live < len(run.Owners) && v.Members[run.Owners[live]].Alive {
			live++
		}
		if live > 0 {
			run.Owners = run.Owners[:live]
		}
		if len(run.Owners) > 0 {
			runs = append(runs, run)
		}
	}
	return runs
}

// introduced puts one slot of every first owner at the front, as a run without
// its other owners. A client such as redis-py takes a node for what it meets it
// as first; met as a replica, a node would be left out of what such a client
// asks of all masters (SCAN, DBSIZE), though it is one.
func introduced(runs []SlotRun, members int) []SlotRun {
	met := make([]bool, members)
	out := make([]SlotRun, 0, len(runs)+members)
	for i := range runs {
		run := &runs[i]
		first := run.Owners[0]
		if met[first] || len(run.Owners) < 2 {
			continue
		}
		met[first] = true
		out = append(out, SlotRun{First: run.First, Last: run.First, Owners: run.Owners[:1]})
		if run.First == run.Last {
			run.Owners = nil // told in full, but for its other owners
		}
		run.First++
	}
	for _, run := range runs {
		if len(run.Owners) > 0 {
			out = append(out, run)
		}
	}
	return out
}

func clusterShards(s *session, _ [][]byte, w *Reply) {
	v, port := s.view(), "port"
	if s.srv.cfg.TLS {
		port = "tls-port"
	}
	runs := v.served()
	w.Array(len(runs))
	for _, run := range runs {
		w.Map(2)
		w.BulkString("slots")
		w.Array(2)
		w.Int(int64(run.First))
		w.Int(int64(run.Last))
		w.BulkString("nodes")
		w.Array(len(run.Owners))
		for at, i := range run.Owners {
			role := "replica"
			if at == 0 {
				role = "master"
			}
			v.Members[i].shardNode(w, role, port)
		}
	}
}

// shardNode describes a member; port is the name of the field with its port.
func (m Member) shardNode(w *Reply, role, port string) {
	health := "online"
	if !m.Alive {
		health = "fail"
	}
	text := func(name, value string) {
		w.BulkString(name)
		w.BulkString(value)
	}
	w.Map(7)
	text("id", m.ID.Hex40())
	w.BulkString(port)
	w.Int(int64(m.Cluster))
	text("ip", m.Host)
	text("endpoint", m.Host)
	text("role", role)
	w.BulkString("replication-offset")
	w.Int(0)
	text("health", health)
}

// keysInSlot walks one slot: its keys are neighbours in the order of the cursor,
// whose upper half is the slot.
func keysInSlot(ctx context.Context, s *session, slot uint16, count int) ([][]byte, error) {
	var keys [][]byte
	cursor := uint64(slot) << 32
	for len(keys) < count {
		page, err := s.store().Scan(ctx, scanFrom(cursor, count-len(keys)))
		if err != nil {
			return nil, err
		}
		for _, key := range page.Keys {
			if ring.SlotOf(key) == slot && len(keys) < count {
				keys = append(keys, key)
			}
		}
		if page.Cursor == 0 || uint16(page.Cursor>>32) != slot {
			return keys, nil
		}
		cursor = page.Cursor
	}
	return keys, nil
}
