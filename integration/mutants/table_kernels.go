package main

// versionMutants are bugs in what a record is.
var versionMutants = []mutant{
	{
		name:   "context-dropped-at-a-put",
		breaks: "a VCTX write covers nothing of its token: what a client has replaced stays (conflicts)",
		edits:  []edit{{"replica/version/op.go", "a.cover, a.seen = op.Context, op.Addends\n\tif", "a.cover, a.seen = nil, op.Addends\n\tif"}},
		sims:   "faults",
	},
	{
		name:   "amnesia-ignored",
		breaks: "a record that replication re-created extends an old span of its own dots, and claims what it never had (acked)",
		edits:  []edit{{"replica/version/merge.go", "if !r.Amnesia && top.Hi >= floor {", "if top.Hi >= floor {"}},
		sims:   "faults deletes",
	},
	{
		name:   "addend-of-an-earlier-life",
		breaks: "a row that replication re-created goes on with the total of its earlier life, which others have more of (counting)",
		edits:  []edit{{"replica/version/counter.go", "a.Actor == dot.Actor && a.Start == c.Own {", "a.Actor == dot.Actor {"}},
		apart:  true,
		sims:   "faults",
	},
	{
		name:   "older-addend-wins",
		breaks: "of two states of a total a merge takes the one that it met last (counting)",
		edits:  []edit{{"replica/version/counter.go", "if o.Top > a.Top {", "if o.Top != a.Top {"}},
		apart:  true,
		sims:   "faults",
	},
	{
		name:   "counter-not-hashed",
		breaks: "copies that differ in what was counted compare as equal (convergence)",
		edits:  []edit{{"replica/version/hash.go", "if c := &r.Counter; len(c.Addends) > 0 {", "if c := &r.Counter; len(c.Addends) > 1<<20 {"}},
		apart:  true,
		sims:   "faults",
	},
	{
		name:   "count-on-a-read",
		breaks: "an increment is added to the sum that was shown, as a value (counting)",
		edits:  []edit{{"replica/version/counter.go", "return a.add(wholeAmount(d))", "return a.put(wholeAmount(d).plus(wholeAmount(was)).append(nil), a.keptCell(), 0)"}},
		apart:  true,
		sims:   "faults",
	},
	{
		name:   "merge-keeps-one-sibling",
		breaks: "of concurrent versions a merge keeps the newest alone (conflicts, acked)",
		edits: []edit{{"replica/version/merge.go", "Versions: mergeVersions(local, in),", `Versions: func(all []Version) []Version {
			if len(all) < 2 {
				return all
			}
			return []Version{slices.MaxFunc(all, func(a, b Version) int {
				if a.newer(&b) {
					return 1
				}
				return -1
			})}
		}(mergeVersions(local, in)),`}},
		sims: "faults",
	},
	{
		name:   "put-below-what-it-covers",
		breaks: "a write takes its clock reading as it comes, also below that of what it covers: another node's older value wins (conflicts)",
		edits:  []edit{{"replica/version/op.go", "hlc: max(m.HLC, r.MaxHLC().Next(), op.MinHLC.Next())}", "hlc: m.HLC}"}},
		sims:   "expiry faults",
	},
	{
		name:   "delete-not-remembered",
		breaks: "a delete drops what is here and does not keep its context: versions on their way come back (acked)",
		edits:  []edit{{"replica/version/merge.go", "out := r\n\tout.Context = r.Context.Union(cover)", "out := r\n\tout.Context = r.Context"}},
		sims:   "faults deletes",
	},
	{
		name:   "delete-leaves-a-sibling",
		breaks: "a delete leaves the last of the siblings that it has seen (acked)",
		edits: []edit{{"replica/version/merge.go", "func (r Record) Delete(cover Context) Record {\n",
			"func (r Record) Delete(cover Context) Record {\n\tif n := len(r.Versions); n > 1 {\n\t\tcover = cover.Without(r.Versions[n-1].Dot)\n\t}\n"}},
		sims: "faults deletes",
	},
	{
		name:   "token-covers-the-unseen",
		breaks: "the token of a write covers siblings that its client has not seen, and its next write destroys them (acked)",
		edits:  []edit{{"replica/version/token.go", "d != me && !seen.Contains(d) {", "d != me && !seen.Contains(d) && d == me {"}},
		sims:   "faults",
	},
	{
		name:   "expiry-merged-to-the-earlier-command",
		breaks: "of two commands that set an expiry the earlier wins (converge)",
		edits:  []edit{{"replica/version/record.go", "case o.HLC > c.HLC:", "case o.HLC < c.HLC:"}},
		sims:   "expiry",
		apart:  true,
	},
	{
		name:   "expiry-merged-to-the-shorter-life",
		breaks: "of two commands that set an expiry the shorter life wins: a key that was extended goes (acked)",
		edits: []edit{{"replica/version/record.go", "switch {\n\tcase o.HLC > c.HLC:\n\t\treturn o\n",
			"switch {\n\tcase o.AtMS != 0 && (c.AtMS == 0 || o.AtMS < c.AtMS):\n\t\treturn o\n\tcase c.AtMS != 0:\n\t\treturn c\n"}},
		sims:  "expiry",
		apart: true,
	},
	{
		name:   "expired-winner-shows-a-sibling",
		breaks: "with the newest version expired an older sibling is shown to a plain client: expiry brings back what was hidden (conflicts)",
		edits: []edit{{"replica/version/record.go", "if r.Versions[i].newer(top) {\n\t\t\ttop",
			"if r.Versions[i].live(nowMS) && (!top.live(nowMS) || r.Versions[i].newer(top)) {\n\t\t\ttop"}},
		sims:  "expiry",
		apart: true,
	},
	{
		name:   "state-hash-without-expiry",
		breaks: "copies that differ in their expiry alone count as equal in reads and exchanges (converge)",
		edits:  []edit{{"replica/version/hash.go", "h = mix(mix(h, uint64(v.Expiry.HLC)), uint64(v.Expiry.AtMS))\n", ""}},
		sims:   "expiry",
		apart:  true,
	},
	{
		name:   "hollow-unnoticed",
		breaks: "a payload that one clock has dropped too early is not asked of others: a live key is absent (acked)",
		edits:  []edit{{"replica/version/record.go", "v.Stub && !v.Expired(nowMS) {\n\t\t\treturn true", "v.Stub && !v.Expired(nowMS) {\n\t\t\treturn false"}},
		sims:   "expiry",
		apart:  true,
	},
}

// quorumMutants are bugs in who must answer.
var quorumMutants = []mutant{
	{
		name:   "w-counts-one-node-twice",
		breaks: "the coordinator stores its copy twice, and that counts for two nodes (acked)",
		edits:  []edit{{"coordinator/quorum/write.go", "if s.Node != self.Node {\n", "if s.Node != 0 {\n"}},
		sims:   "faults",
	},
	{
		name:   "own-hint-counts-for-w",
		breaks: "a hint that the coordinator keeps beside its own copy counts for another node (acked)",
		edits:  []edit{{"coordinator/quorum/write.go", "if !t.kept {\n\t\tw.acked++\n\t}", "w.acked++"}},
		sims:   "faults",
	},
	{
		name:   "hint-skipped-when-w-is-met",
		breaks: "an owner that fails to answer gets no hint once W have acknowledged (converge)",
		edits:  []edit{{"coordinator/quorum/write.go", "default:\n\t\tw.orphans = append(w.orphans, ownerOf(t.stand))", "case w.acked < w.need:\n\t\tw.orphans = append(w.orphans, ownerOf(t.stand))"}},
		sims:   "returns delivery faults",
	},
	{
		name:   "hint-skipped-for-a-dead-owner",
		breaks: "nobody keeps a hint for an owner that is known to be dead, if the others are enough (converge)",
		edits:  []edit{{"coordinator/quorum/write.go", "\ti := w.sent\n\tw.sent++\n\tw.open++\n", "\tif w.targets[w.sent].stand.For != 0 && w.ownersSuffice() {\n\t\tw.targets[w.sent].state = lost\n\t\tw.sent++\n\t\treturn w.Next()\n\t}\n\ti := w.sent\n\tw.sent++\n\tw.open++\n"}},
		sims:   "returns delivery",
	},
	{
		name:   "stand-ins-say-not-found",
		breaks: "nodes that stand in for owners and have nothing make a key absent (acked)",
		edits:  []edit{{"coordinator/quorum/read.go", "return c.stand.For != 0 && c.hash == 0 && (c.state == hashed || c.state == copied)", "return false"}},
		sims:   "faults grows",
	},
	{
		name:   "a-recovering-answer-counts",
		breaks: "a node that has lost what it acknowledged is one of R (acked)",
		edits:  []edit{{"coordinator/quorum/read.go", "c.state, c.hash = doubted, a.Hash", "c.state, c.hash = copied, a.Hash"}},
		sims:   "wiped restored",
	},
	{
		name:   "any-digest-settles",
		breaks: "a node whose hash differs has answered, and its copy is not fetched (acked)",
		edits:  []edit{{"coordinator/quorum/read.go", "c.state == hashed && (c.hash == 0 || r.have && c.hash == r.hash)", "c.state == hashed"}},
		sims:   "faults grows",
	},
	{
		name:   "read-takes-the-last-copy",
		breaks: "of differing copies a read takes the last, answers with it, and repairs with it (acked)",
		edits:  []edit{{"coordinator/quorum/read.go", "default:\n\t\tr.record = version.Merge(r.record, a.Record)\n\t\tr.hash = r.record.StateHash()", "default:\n\t\tr.record, r.hash = a.Record, a.Hash"}},
		sims:   "faults grows",
	},
	{
		name:   "no-read-repair",
		breaks: "owners that a read finds stale are left so (converge)",
		edits:  []edit{{"coordinator/quorum/read.go", "if r.verdict != Met || r.hash == 0 {\n\t\treturn dst\n\t}", "if r.verdict != Met || r.hash != 1 {\n\t\treturn dst\n\t}"}},
		sims:   "budget faults",
	},
}

// epochMutants are bugs in how the ring changes.
var epochMutants = []mutant{
	{
		name:   "old-writes-not-refused",
		breaks: "a write by rings that are over is taken: it is not where others read (acked)",
		edits:  []edit{{"membership/epoch/view.go", "if !slices.Contains(v.known, st.Target) && !v.Behind(st) {\n\t\treturn true", "if !slices.Contains(v.known, st.Target) && !v.Behind(st) {\n\t\treturn false"}},
		sims:   "delayed grows shrinks",
	},
	{
		name:   "old-reads-not-refused",
		breaks: "a read by rings that are over is answered by nodes that may have dropped their rows (acked)",
		edits:  []edit{{"membership/epoch/view.go", "if read && st.Base.Sum <= v.floor.Sum && !v.live(st.Base) {", "if false && !v.live(st.Base) {"}},
		sims:   "delayed shrinks replaced grows",
	},
	{
		name:   "live-epoch-of-equal-sum-refused",
		breaks: "reads of the first node to go by a ring are refused until all do, if its sum is that of the one before (plain clients)",
		edits:  []edit{{"membership/epoch/view.go", "&& !v.live(st.Base) {", "&& st.Base != v.floor {"}},
		sims:   "faults",
	},
	{
		name:   "added-before-heard",
		breaks: "a member whose disk has lost that it is one changes the ring for nothing, and all wait (plain clients)",
		edits:  []edit{{"membership/run.go", " || !l.heardMember() {", " {"}},
		sims:   "faults",
	},
	{
		name:   "forgotten-not-refused",
		breaks: "a node that was given up as dead is answered, and writes what others do not wait for (acked)",
		edits:  []edit{{"membership/epoch/view.go", "!found || r.Forgotten {\n\t\treturn true", "!found || r.Forgotten && !found {\n\t\treturn true"}},
		sims:   "forgotten",
	},
	{
		name:   "read-before-all-handed-over",
		breaks: "a node reads by the rings to come as soon as it has itself handed over (acked)",
		edits:  []edit{{"membership/epoch/advance.go", "s.all(func(t Tracker) bool { return t.Sync == s.Target().id })", "s.Tracker(s.self).Sync == s.Target().id"}},
		sims:   "grows delayed replaced",
	},
	{
		name:   "confirmed-without-handing-over",
		breaks: "a node confirms at once that all is handed over (acked)",
		edits:  []edit{{"membership/epoch/advance.go", "return sent == id && s.granted == id &&", "return s.granted == id &&"}},
		sims:   "grows replaced",
	},
	{
		name:   "retired-before-all-read",
		breaks: "a node lets old rings go while others read by them, and drops what they read (acked)",
		edits:  []edit{{"membership/epoch/advance.go", "return t.Read == s.Base().id || t.Read.Sum > s.Base().id.Sum", "return t.ID != s.self || t.Read == s.Base().id"}},
		sims:   "delayed shrinks grows",
	},
}
