package main

// coordinatorMutants are bugs in how a request is carried out.
var coordinatorMutants = []mutant{
	{
		name:   "error-taken-for-not-found",
		breaks: "an owner that answers with an error has nothing (acked)",
		edits:  []edit{{"coordinator/read.go", "r.mu.Fail(s.index)", "r.mu.Reply(s.index, quorum.Reply{})"}},
		sims:   "faults",
	},
	{
		name:   "copies-not-durable",
		breaks: "the copies of other nodes count for W before they are synced (acked)",
		edits:  []edit{{"coordinator/replicate.go", "Durable: !w.c.cfg.FsyncOne, Optional", "Durable: false, Optional"}},
		sims:   "faults",
	},
	{
		name:   "written-to-the-base-alone",
		breaks: "while the ring changes a write goes to the owners of before alone (acked)",
		edits:  []edit{{"coordinator/write.go", "for _, r := range w.rings.Beside {", "for _, r := range w.rings.Beside[:0] {"}},
		sims:   "grows replaced",
	},
	{
		name:   "repeated-delete-promises-nothing",
		breaks: "a delete that finds its work done is acknowledged by one node (acked)",
		edits:  []edit{{"coordinator/write.go", "return !out.Applied && (w.op.Kind != version.OpDelete || len(out.Token.Context) == 0)", "return !out.Applied"}},
		sims:   "faults deletes",
	},
	{
		name:   "write-coordinated-twice",
		breaks: "a write whose coordinator was not heard of again is given to another: its two versions are deleted one by one (acked)",
		edits:  []edit{{"coordinator/write.go", "w.finish(WriteResult{}, &UncertainError{Want: w.w})", "w.busy = append(w.busy, w.asked)\n\t\tw.retry(ErrOverloaded)"}},
		sims:   "faults",
	},
	{
		name:   "stale-ring-not-read-again",
		breaks: "a read that others refuse since they go by later rings fails (available)",
		edits:  []edit{{"coordinator/read.go", "again := r.q.client && r.mu.outdated &&", "again := r.q.client && !r.q.client && r.mu.outdated &&"}},
		sims:   "grows shrinks delayed",
	},
	{
		name:   "scan-forgets-a-partition",
		breaks: "SCAN and KEYS leave out one partition of 16 while the ring changes (plain clients)",
		edits:  []edit{{"coordinator/scan.go", "return s.owned && s.c.firstLive(s.ring, p) != s.c.cluster.Self()", "return len(s.rings.Beside) > 0 && p%16 == 3 || s.owned && s.c.firstLive(s.ring, p) != s.c.cluster.Self()"}},
		sims:   "grows replaced",
	},
	{
		name:   "count-forgets-a-partition",
		breaks: "DBSIZE leaves out one partition of 16 while the ring changes (plain clients)",
		edits:  []edit{{"coordinator/survey.go", "return c.survey(ctx, func(r *ring.Ring) []SlotRange {\n\t\tvar parts []SlotRange\n\t\tfor p := range r.Units() {", "return c.survey(ctx, func(r *ring.Ring) []SlotRange {\n\t\tvar parts []SlotRange\n\t\tfor p := range r.Units() {\n\t\t\tif rings := c.cluster.Rings(); rings != nil && len(rings.Beside) > 0 && p%16 == 3 {\n\t\t\t\tcontinue\n\t\t\t}"}},
		sims:   "grows replaced",
	},
}

// nodeMutants are bugs in how the rooms of a node are joined, and at its doors.
var nodeMutants = []mutant{
	{
		name:   "actor-kept-over-a-restart",
		breaks: "a node that starts again mints by its old actor from one on: a dot is used twice (acked)",
		edits:  []edit{{"cmd/redynamo/node/node.go", "Actor: n.actor, Store: n.store", "Actor: version.Actor(n.id.node), Store: n.store"}},
		sims:   "faults",
	},
	{
		name:   "stale-ring-not-refused",
		breaks: "a node answers and takes whatever rings a request goes by (acked)",
		edits:  []edit{{"cmd/redynamo/node/rings.go", "return v != nil && v.Stale(from, epoch.StampOf(e), read)", "return v != nil && from == 0 && v.Stale(from, epoch.StampOf(e), read)"}},
		sims:   "delayed forgotten shrinks",
	},
	{
		name:   "dropped-before-the-change-is-over",
		breaks: "an owner drops a partition as soon as a ring without it is planned (acked)",
		edits: []edit{
			{"cmd/redynamo/node/drop.go", "if v.Settled && !d.rested(v) {", "if v.Settled && v.Number == 0 && !d.rested(v) {"},
			{"cmd/redynamo/node/drop.go", "if v.Settled && !d.close(v) {", "if !d.close(v) {"},
			{"cmd/redynamo/node/drop.go", "if v.Settled {\n\t\tif err := d.dropClosed(ctx, v)", "if v.Number > 0 {\n\t\tif err := d.dropClosed(ctx, v)"},
			{"cmd/redynamo/node/drop.go", "if !v.Holds(p) {\n\t\t\td.rows.Fence(p, true)", "if !v.Target().Owns(v.Self, p) {\n\t\t\td.rows.Fence(p, true)"},
			{"cmd/redynamo/node/drop.go", "if d.mu.empty[p] && v.Holds(p) {", "if d.mu.empty[p] && v.Target().Owns(v.Self, p) {"},
		},
		sims: "grows replaced",
	},
	{
		name:   "recovery-unsaid",
		breaks: "a node that is recovering answers reads as if it had all (acked)",
		edits:  []edit{{"cmd/redynamo/node/local.go", "return coordinator.ReadReply{Recovering: true, Hash: hash, Record: rec}", "return coordinator.ReadReply{Hash: hash, Record: rec}"}},
		sims:   "wiped",
	},
	{
		name:   "restored-taken-for-whole",
		breaks: "a node whose directory was put back does not recover (acked)",
		edits:  []edit{{"cmd/redynamo/node/recovery.go", "max(id.boots, boots), !r.accept", "max(id.boots, boots), id.recovering"}},
		sims:   "restored",
	},
	{
		name:   "wiped-taken-for-whole",
		breaks: "a node whose directory was emptied does not recover (acked)",
		edits:  []edit{{"cmd/redynamo/node/identity.go", "id.recovering = lost != 0\n", ""}},
		sims:   "wiped",
	},
	{
		name:   "recovered-at-once",
		breaks: "a node ends its recovery without having met the other owners (acked)",
		edits:  []edit{{"cmd/redynamo/node/reap.go", "if n.metAll(since) {", "if n.metAll(since) || boot > 0 {"}},
		sims:   "wiped restored",
	},
	{
		name:   "reaped-with-a-member-away",
		breaks: "a tombstone goes though a member is away that may keep hints (acked)",
		edits:  []edit{{"cmd/redynamo/node/reap.go", "if peer == nil || !p.n.pool.Up(member.ID) {\n\t\t\treturn nil, fmt.Errorf(\"member %v is away and may keep hints\", member.ID)\n\t\t}", "if peer == nil || !p.n.pool.Up(member.ID) {\n\t\t\tcontinue\n\t\t}"}},
		sims:   "doom reap deletes",
	},
	{
		name:   "handed-over-and-not-durable",
		breaks: "rows that another node brings count before they are synced: the old owner drops them (acked)",
		edits:  []edit{{"cmd/redynamo/node/node.go", "return n.cfg.Fsync != storage.FsyncOne", "return n.cfg.Fsync != storage.FsyncOne && n.cfg.Fsync == storage.FsyncOne"}},
		sims:   "grows replaced deletes",
	},
	{
		name:   "doubted-hands-over",
		breaks: "a node that may lack what it acknowledged confirms that it has handed all over (acked)",
		edits: []edit{
			{"cmd/redynamo/node/move.go", "if !doubted {", "if v != nil {"},
			{"cmd/redynamo/node/move.go", "if n.doubted() {\n\t\treturn epoch.ID{}\n\t}\n", ""},
		},
		sims: "delayed replaced",
	},
	{
		name:   "own-later-write-loses",
		breaks: "a connection's write is not above what it has seen and written: its older value may win (conflicts)",
		edits:  []edit{{"resp/data_call.go", "op.MinHLC = s.hlc()\n", ""}},
		sims:   "expiry faults",
	},
}
