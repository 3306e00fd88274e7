package resp

import (
	"net"
	"strconv"

	"github.com/redynamo/redynamo/coordinator"
)

// scanFrom asks for a page of the whole key space.
func scanFrom(cursor uint64, count int) coordinator.ScanRequest {
	return coordinator.ScanRequest{Cursor: cursor, Count: count}
}

func ringCommands() []command {
	flags := words("admin loading stale")
	rows := []command{
		{name: "help", arity: 2, flags: words("loading stale"), summary: "Lists the subcommands."},
		{name: "hints", arity: 2, flags: flags, run: hintsList, summary: hintsSummary},
		{name: "owners", arity: 3, flags: flags, run: ringOwners, summary: "Lists the owners of a key in order, then its fallbacks.",
			args: arguments("key string")},
		{name: "status", arity: 2, flags: flags, run: ringStatus, summary: "Describes the ring and its members."},
	}
	rows = append(rows, repairCommand("repair", -2, 2))
	rows = append(rows, ringChangeCommands(flags)...)
	rows[0].run = helper("ring", rows)
	for i := range rows {
		rows[i].group, rows[i].since, rows[i].complexity = "server", "redynamo 0.1", "O(N) with N = members"
	}
	return []command{
		repairCommand("repair", -1, 1),
		{name: "hints", arity: -1, flags: flags, run: runHints, group: "server", since: "redynamo 0.1",
			complexity: "O(N) with N = nodes that something was kept for", summary: hintsSummary},
		{name: "ring", arity: -2, group: "server", since: "redynamo 0.1", complexity: "O(N) with N = members",
			summary: "Container of commands about the ring.", subcommands: rows},
	}
}

const hintsSummary = "Lists the nodes that this one keeps writes for, with what becomes of them."

// runHints answers the list; no other word is known yet.
func runHints(s *session, args [][]byte, w *Reply) {
	if len(args) > 1 {
		w.Error("ERR syntax error")
		return
	}
	hintsList(s, args, w)
}

// hintsList answers one map per node.
func hintsList(s *session, _ [][]byte, w *Reply) {
	targets := s.admin().Hints()
	w.Array(len(targets))
	for _, t := range targets {
		writeFields(w,
			Field{"node", t.ID.String()},
			Field{"address", t.Addr},
			Field{"up", strconv.FormatBool(t.Up)},
			Field{"rows", itoa(t.Rows)},
			Field{"bytes", itoa(t.Bytes)},
			Field{"budget", itoa(t.Budget)},
			Field{"over-budget", strconv.FormatBool(t.OverBudget)},
			Field{"oldest-ms", itoa(t.Oldest.Milliseconds())},
			Field{"delivered-rows", itoa(t.DeliveredRows)},
			Field{"delivered-bytes", itoa(t.DeliveredBytes)},
			Field{"failed", itoa(t.Failed)},
			Field{"state", t.State})
	}
}

// ringChangeCommands are the subcommands that change the ring, and tell how far
// that is.
func ringChangeCommands(flags []string) []command {
	return []command{
		{name: "apply", arity: 3, flags: flags, run: ringApply, summary: "Commits a plan, unless the ring has changed since it was made.",
			args: arguments("plan string")},
		finaliseCommand(flags),
		{name: "forget", arity: -3, flags: flags, run: ringForget, summary: "Gives up a member that will never be back, with what only it held.",
			args: arguments("node string", "force string")},
		{name: "plan", arity: -4, flags: flags, run: ringPlan, summary: "Shows what a change of the members would move, and names that plan.",
			args: []argument{{name: "change", kind: "string", multiple: true}}},
		{name: "transfers", arity: 2, flags: flags, run: ringTransfers, summary: "Tells how far the present change of the ring is."},
	}
}

// ringOwners answers one map per owner or fallback.
func ringOwners(s *session, args [][]byte, w *Reply) {
	owners := s.admin().Owners(args[2])
	w.Array(len(owners))
	for _, o := range owners {
		writeFields(w,
			Field{"node", o.Node.String()},
			Field{"address", o.Addr},
			Field{"zone", o.Zone},
			Field{"role", o.Role},
			Field{"state", upText(o.Alive)})
	}
}

func upText(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// stateText is the state of a member: down, recovering, joining, leaving or up.
func stateText(m RingMember) string {
	switch {
	case m.Alive && m.Recovering:
		return "recovering"
	case m.Alive && m.Moving != "":
		return m.Moving
	}
	return upText(m.Alive)
}

func writeFields(w *Reply, fields ...Field) {
	w.Map(len(fields))
	for _, f := range fields {
		w.BulkString(f.Name)
		w.BulkString(f.Value)
	}
}

// ringStatus answers a map: figures of the ring, then members with a map each.
func ringStatus(s *session, _ [][]byte, w *Reply) {
	st := s.admin().RingStatus()
	fields := append([]Field{
		{"epoch", strconv.FormatUint(st.Epoch, 16)},
		{"units", strconv.Itoa(st.Units)},
		{"n", strconv.Itoa(st.N)},
		{"r", strconv.Itoa(st.R)},
		{"w", strconv.Itoa(st.W)},
		{"ready", strconv.FormatBool(s.admin().Ready())},
	}, st.Extra...)
	w.Map(len(fields) + 2)
	for _, f := range fields {
		w.BulkString(f.Name)
		w.BulkString(f.Value)
	}
	writeMembers(w, "members", st.Members)
	writeMembers(w, "staged", st.Staged)
}

func writeMembers(w *Reply, name string, members []RingMember) {
	w.BulkString(name)
	w.Array(len(members))
	for _, m := range members {
		writeFields(w,
			Field{"node", m.ID.String()},
			Field{"address", m.Addr},
			Field{"zone", m.Zone},
			Field{"weight", strconv.Itoa(m.Weight)},
			Field{"state", stateText(m)},
			Field{"max-level", strconv.Itoa(m.MaxLevel)},
			Field{"step", m.Step},
			Field{"partitions", strconv.Itoa(m.Partitions)},
			Field{"first", strconv.Itoa(m.First)})
	}
}

// Addr joins a member's host and one of its ports.
func (m Member) Addr(port int) string { return net.JoinHostPort(m.Host, strconv.Itoa(port)) }
