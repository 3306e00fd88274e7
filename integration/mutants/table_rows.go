package main

// replicaMutants are bugs in what a node does for its keys.
var replicaMutants = []mutant{
	{
		name:   "one-actor-for-all-rows",
		breaks: "hints are minted by the actor of the own rows: a counter extends a span over what went elsewhere (acked)",
		edits:  []edit{{"replica/write.go", "if target == 0 {\n\t\treturn r.cfg.Actor\n\t}\n\t// The", "if target|1 != 0 {\n\t\treturn r.cfg.Actor\n\t}\n\t// The"}},
		sims:   "faults",
	},
	{
		name:   "leaf-not-updated",
		breaks: "a write leaves its leaf of the tree: an exchange does not see what differs (converge)",
		edits:  []edit{{"replica/write.go", "ops[0].Change = merkle.Change(e.slot, e.keyPos, e.hash, hash)", "_ = merkle.Change(e.slot, e.keyPos, e.hash, hash)"}},
		sims:   "deletes reap",
	},
	{
		name:   "merge-leaves-the-leaf",
		breaks: "what others bring leaves the leaf of the tree: an exchange does not see what differs (converge)",
		edits:  []edit{{"replica/write.go", "ops[0].Change = merkle.Change(e.slot, e.keyPos, e.hash, hash)", "if !next.Amnesia {\n\t\t\tops[0].Change = merkle.Change(e.slot, e.keyPos, e.hash, hash)\n\t\t}"}},
		sims:   "deletes reap",
	},
	{
		name:   "fence-open-to-merges",
		breaks: "a partition takes rows while it is dropped: an acknowledged copy goes (acked)",
		edits:  []edit{{"replica/write.go", "if e.target == 0 && r.fenced(e.slot) {\n\t\treturn false, ErrFenced", "if e.target == 0 && r.fenced(e.slot) && e.rec.Absent() && e.seq > 1<<62 {\n\t\treturn false, ErrFenced"}},
		sims:   "shrinks replaced grows",
	},
	{
		name:   "base-of-a-mutation-dropped",
		breaks: "what a quorum read found is not merged into the row that an operation works on (conflicts)",
		edits:  []edit{{"replica/write.go", "held := version.Merge(e.rec, base)", "held := e.rec"}},
		sims:   "wiped expiry faults",
	},
	{
		name:   "hint-dropped-though-it-grew",
		breaks: "a hint that grew while it was delivered goes with what was not delivered (acked)",
		edits:  []edit{{"replica/hints.go", "e.rec.Absent() || !bytes.Equal(version.EncodeWire(nil, e.rec), delivered) {", "e.rec.Absent() {"}},
		sims:   "faults delivery",
	},
	{
		name:   "stand-in-reads-one-hint",
		breaks: "a stand-in answers with the hint for one owner, and not with all that it has (acked)",
		edits:  []edit{{"replica/read.go", "targets := r.hints.targets()\n\tif !slices.Contains(targets, target) {", "var targets []ring.NodeID\n\tif !slices.Contains(targets, target) {"}},
		sims:   "faults",
	},
	{
		name:   "reaped-without-owners",
		breaks: "a tombstone goes though an owner has not agreed to it (acked)",
		edits:  []edit{{"replica/reap.go", "p.proof.Settled(p.r.partition(g.slot), g.seen); ok {", "p.proof.Settled(p.r.partition(g.slot), g.seen); ok || !ok {"}},
		sims:   "reap deletes",
	},
	{
		name:   "reaped-beside-hints",
		breaks: "a tombstone goes though hints for its partition are kept (acked)",
		edits:  []edit{{"replica/reap.go", "p.asksHints(g, now) && slices.Contains(free, p.r.partition(g.slot)) {", "p.asksHints(g, now) {"}},
		sims:   "reap doom deletes",
	},
	{
		name:   "reaper-stops-at-a-fence",
		breaks: "a grave that was left in a partition of another node ends every look of the reaper (converge)",
		edits:  []edit{{"replica/reap.go", "if errors.Is(err, ErrFenced) || err == nil && rec.Absent() {", "if err == nil && rec.Absent() {"}},
		sims:   "storms",
	},
	{
		name:   "reaped-in-another-state",
		breaks: "what was proven of one state of a record drops another, live ones too (acked)",
		edits:  []edit{{"replica/reap.go", "if err != nil || !bare(e.rec) || e.rec.WholeHash() != g.state {\n\t\treturn err", "if err != nil {\n\t\treturn err"}},
		sims:   "deletes doom reap",
	},
	{
		name:   "stub-reaped-before-its-time",
		breaks: "what is left of a key goes though its time was lengthened (acked)",
		edits:  []edit{{"replica/reap.go", "if !rec.Versions[i].Expired(nowMS) {\n\t\t\treturn false", "if !rec.Versions[i].Expired(nowMS) {\n\t\t\treturn true"}},
		sims:   "expiry",
	},
}

// storageMutants are bugs in what is durable.
var storageMutants = []mutant{
	{
		name:   "acked-before-fsync",
		breaks: "a group of commits is acknowledged before it is synced (acked)",
		edits:  []edit{{"replica/storage/commit.go", "if g.force || g.durable && s.cfg.Fsync != FsyncInterval {", "if g.force {"}},
		sims:   "faults",
	},
	{
		name:   "committed-taken-for-synced",
		breaks: "a write that changes nothing is acknowledged on what is not synced yet (acked)",
		edits:  []edit{{"replica/storage/commit.go", "return s.synced.Load()", "return s.committed.Load()"}},
		sims:   "faults",
	},
	{
		name:   "log-cut-one-batch-too-far",
		breaks: "a log record goes before its rows are where they belong: a crash loses them (acked)",
		edits:  []edit{{"replica/storage/apply.go", "lo, hi := logRange(g.first, g.last)", "lo, hi := logRange(g.first, g.last+1)"}},
		sims:   "faults",
	},
	{
		name:   "replay-skips-a-batch",
		breaks: "the first log record that is not applied is skipped at a start (acked)",
		edits:  []edit{{"replica/storage/apply.go", "appendLogKey(nil, last+1)", "appendLogKey(nil, last+2)"}},
		sims:   "faults",
	},
}

// movingMutants are bugs in how rows get to where they belong.
var movingMutants = []mutant{
	{
		name:   "hint-dropped-when-sent",
		breaks: "a hint goes when it is sent, not when it is acknowledged (acked)",
		edits:  []edit{{"replica/handoff/worker.go", "credit, err := s.call(ctx, t, rows)\n\tswitch {", "if err := s.drop(ctx, t, rows); err != nil {\n\t\treturn 0, err\n\t}\n\tcredit, err := s.call(ctx, t, rows)\n\tswitch {"}},
		sims:   "delivery faults",
	},
	{
		name:   "hint-dropped-before-it-is-durable",
		breaks: "a hint goes when its target has it in memory (acked)",
		edits:  []edit{{"replica/handoff/worker.go", "Message{Durable: true, Rows: rows}", "Message{Rows: rows}"}},
		sims:   "delivery faults",
	},
	{
		name:   "hint-not-copied-to-coming-owners",
		breaks: "a hint goes home to an owner that has handed over already, and nobody hands it on (acked)",
		edits:  []edit{{"replica/handoff/worker.go", "if rings.Plan == nil {\n\t\treturn rows, nil", "if rings.Live != nil {\n\t\treturn rows, nil"}},
		sims:   "delayed replaced",
	},
	{
		name:   "hints-not-handed-over",
		breaks: "a node confirms that all is handed over while its hints are not (acked)",
		edits:  []edit{{"replica/handoff/mover.go", "j != nil && j.rowed && j.hinted {\n\t\treturn j.Grant", "j != nil && j.rowed {\n\t\treturn j.Grant"}},
		sims:   "delayed replaced grows",
	},
	{
		name:   "partition-forgotten-in-a-move",
		breaks: "one partition of 64 is not handed over (acked)",
		edits:  []edit{{"replica/handoff/mover.go", "if !rings.Plan.Holds(p) {", "if !rings.Plan.Holds(p) || p%64 == 5 {"}},
		sims:   "grows replaced",
	},
	{
		name:   "old-session-proves-a-move",
		breaks: "a session from before everybody wrote to the owners to come proves that they have all (acked)",
		edits:  []edit{{"replica/handoff/mover.go", "!ok || !began.After(j.since) {", "!ok || began.IsZero() {"}},
		sims:   "grows replaced",
	},
	{
		name:   "strangers-rows-taken",
		breaks: "a node takes rows that it does not own: nobody asks for them there (converge)",
		edits:  []edit{{"replica/handoff/receiver.go", "if !current.Owns(owner, current.Partition(ring.SlotOf(m.Rows[i].Key))) {\n\t\t\treturn ErrNotOwner", "if !current.Owns(owner, current.Partition(ring.SlotOf(m.Rows[i].Key))) {\n\t\t\treturn nil"}},
		sims:   "delayed shrinks",
	},
}

// exchangeMutants are bugs in how owners are compared.
var exchangeMutants = []mutant{
	{
		name:   "session-without-its-end",
		breaks: "a session is entered without its end: what it brought need not be on any disk, and the other side proves nothing (acked)",
		edits:  []edit{{"antientropy/exchanger.go", "err = x.end(ctx, e.peer, s)", "err = nil"}},
		sims:   "reap deletes grows",
	},
	{
		name:   "end-before-the-barrier",
		breaks: "the end of a session is confirmed before what it rests on is synced (acked)",
		edits:  []edit{{"antientropy/ledger.go", "x.src.Barrier(func(err error) {", "func(end func(error)) { end(nil) }(func(err error) {"}},
		sims:   "deletes reap",
	},
	{
		name:   "exchange-pulls-and-never-pushes",
		breaks: "who begins an exchange takes what the other has, and brings nothing (converge)",
		edits:  []edit{{"antientropy/exchange.go", "return e.push(ctx, diffs, theirs)", "return nil"}},
		sims:   "grows deletes",
	},
}

// diskMutants are bugs in what becomes of a disk that fails or loses something.
var diskMutants = []mutant{
	{
		name:   "a-hole-is-absent",
		breaks: "a row that damage took is reported absent (acked)",
		edits:  []edit{{"replica/storage/storage.go", "\t\treturn nil, ErrHole\n", "\t\treturn nil, ErrNotFound\n"}},
		sims:   "faults storms",
	},
	{
		name:   "salvage-leaves-no-hole",
		breaks: "damage is taken out of the tables, and nobody knows that rows are missing (acked)",
		edits:  []edit{{"replica/storage/salvage.go", "if !slices.EqualFunc(holes, s.Holes(), Hole.Same) {", "if len(holes) > 1<<40 {"}},
		sims:   "faults storms",
	},
	{
		name:   "failed-sync-is-acknowledged",
		breaks: "a write is acknowledged though the log could not be synced (acked)",
		edits:  []edit{{"replica/storage/disk.go", "if err := call(); err != nil {\n\t\t\tw.fs.kill(\"sync\", err)", "if err := call(); err != nil && w == nil {\n\t\t\tw.fs.kill(\"sync\", err)"}},
		sims:   "faults storms",
	},
	{
		name:   "skipped-rows-stay-uncounted",
		breaks: "what could not be read after a crash is never counted (plain clients)",
		edits:  []edit{{"replica/mend.go", "failed := m.countSkipped(ctx) //", "var failed error //"}},
		sims:   "faults",
	},
	{
		name:   "restless-hints-counted",
		breaks: "hints that changed while they were counted pass for counted (plain clients)",
		edits:  []edit{{"replica/mend.go", "return !restless, nil", "return true, nil"}},
		sims:   "faults",
	},
	{
		name:   "recount-leaves-expiries",
		breaks: "payloads with an expiry that other owners brought back are counted twice (plain clients)",
		edits:  []edit{{"replica/count.go", "r.tally.expiries[slot].Add(expiries[slot-base] - wasExpiries)", "_ = wasExpiries"}},
		sims:   "faults",
	},
	{
		name:   "log-never-turned",
		breaks: "a damaged log takes a node back by as much as it likes, and deleted keys come back (acked)",
		edits:  []edit{{"replica/storage/apply.go", "if !s.reach.fresh.Swap(false) {", "if s.reach.fresh.Swap(false) || true {"}},
		sims:   "storms",
	},
	{
		name:   "orphan-goes-on-alone",
		breaks: "a node whose disk has lost the word of all others takes writes by its own disk (acked)",
		edits:  []edit{{"membership/orphan.go", "return m.cfg.Recovering && !m.met &&", "return m.cfg.Recovering && !m.met && m.met &&"}},
		sims:   "founder",
	},
}
