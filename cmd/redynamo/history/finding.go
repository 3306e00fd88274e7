package history

import (
	"cmp"
	"fmt"
	"slices"
)

// Kind is a kind of broken promise; the package comment says what each means.
type Kind string

// The kinds.
const (
	Lost        Kind = "lost"
	Resurrected Kind = "resurrected"
	Phantom     Kind = "phantom"
	Sibling     Kind = "sibling"
	Session     Kind = "session"
	Dot         Kind = "dot"
	Diverged    Kind = "diverged"
	Unreadable  Kind = "unreadable"
	Expired     Kind = "expired"
	Bound       Kind = "bound"
)

// Kinds are all kinds, the gravest first.
var Kinds = []Kind{Lost, Resurrected, Phantom, Unreadable, Diverged, Dot, Sibling, Session, Expired, Bound}

// MaxFindings is how many findings of a kind are kept, unless Options say
// otherwise; the rest is counted.
const MaxFindings = 100

// Finding is one broken promise.
type Finding struct {
	Kind  Kind
	Key   string
	What  string
	Lines []int // of the operations that prove it, in order; no other is needed
}

func (f Finding) String() string { return fmt.Sprintf("%s: key %q: %s", f.Kind, f.Key, f.What) }

// Figures describe a history beside its findings.
type Figures struct {
	Reads         int // answered reads of clients
	Acked         int // acknowledged writes and deletes
	Failed        int // writes and deletes that were certainly not made
	Unknown       int // and those of unknown outcome
	Keys          int
	Unjudged      int // keys without a final line: nothing can be told to be lost
	Uninspected   int // keys without an inspect line
	MostSiblings  int // of one read
	PlainAcked    int // acknowledged plain SETs on keys with a final line
	PlainReplaced int // of these: gone, though whatever may have replaced them was concurrent
}

// Report is what a history came to.
type Report struct {
	Findings []Finding
	Counts   map[Kind]int // of all findings, also those that are not kept
	Figures  Figures
}

// Total is the number of all findings.
func (r *Report) Total() (n int) {
	for _, c := range r.Counts {
		n += c
	}
	return n
}

// Merge adds what another shard of the same history came to.
func (r *Report) Merge(o Report) {
	for kind, n := range o.Counts {
		r.Counts[kind] += n
	}
	r.Findings = append(r.Findings, o.Findings...)
	f, g := &r.Figures, &o.Figures
	f.Reads, f.Acked, f.Failed, f.Unknown = f.Reads+g.Reads, f.Acked+g.Acked, f.Failed+g.Failed, f.Unknown+g.Unknown
	f.Keys, f.Unjudged, f.Uninspected = f.Keys+g.Keys, f.Unjudged+g.Unjudged, f.Uninspected+g.Uninspected
	f.MostSiblings = max(f.MostSiblings, g.MostSiblings)
	f.PlainAcked, f.PlainReplaced = f.PlainAcked+g.PlainAcked, f.PlainReplaced+g.PlainReplaced
	r.sort()
}

// sort orders the findings: kinds by gravity, then lines.
func (r *Report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(slices.Index(Kinds, a.Kind), slices.Index(Kinds, b.Kind)), slices.Compare(a.Lines, b.Lines), cmp.Compare(a.Key, b.Key))
	})
}
