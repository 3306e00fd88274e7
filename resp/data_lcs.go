package resp

// Texts of Redis 7.0 for LCS.
const (
	errLCSBoth = "ERR If you want both the length and indexes, please just use IDX."
	errLCSSize = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
)

func lcsCommand() command {
	minimum := option("len", "integer", "MINMATCHLEN")
	return command{name: "lcs", arity: -3, flags: words("readonly"), last: 2, keySpec: words("RO access"), since: "7.0.0",
		complexity: "O(N*M) with N and M = lengths of the values", start: startLCS,
		summary: "Find the longest common subsequence of two values; what they come to together is limited",
		args: append(arguments("key1 key", "key2 key"), option("len", "pure-token", "LEN"), option("idx", "pure-token", "IDX"),
			minimum, option("withmatchlen", "pure-token", "WITHMATCHLEN")),
	}
}

// lcsOptions are the options of LCS.
type lcsOptions struct {
	length, indexes, lengths bool // LEN, IDX, WITHMATCHLEN
	least                    int64
}

func parseLCSOptions(args [][]byte) (o lcsOptions, fault string) {
	for i := 0; i < len(args); i++ {
		switch {
		case foldEqual(args[i], "IDX"):
			o.indexes = true
		case foldEqual(args[i], "LEN"):
			o.length = true
		case foldEqual(args[i], "WITHMATCHLEN"):
			o.lengths = true
		case foldEqual(args[i], "MINMATCHLEN") && i+1 < len(args):
			i++
			var ok bool
			if o.least, ok = parseInt(args[i]); !ok {
				return o, errNotInteger
			}
		default:
			return o, errSyntax
		}
	}
	if o.length && o.indexes {
		return o, errLCSBoth
	}
	return o, ""
}

// startLCS reads both values, each on its own.
func startLCS(s *session, args [][]byte) pending {
	o, fault := parseLCSOptions(args[3:])
	if fault != "" {
		return failed(fault)
	}
	var values [][]byte
	f := &fan{n: 2}
	f.begin = func(i int) *call { return s.beginRead(args[1+i], nil, nil) }
	f.fold = func(c *call, _ *Reply) {
		v, _ := c.shown()
		values = append(values, v.Value)
	}
	f.done = func(w *Reply) {
		a, b := values[0], values[1]
		if cells := int64(len(a)+1) * int64(len(b)+1); cells > int64(s.limits().MaxLCS) {
			w.Error(errLCSSize)
			return
		}
		// One at a time on a server, so that all LCS together take at most the
		// memory of one, and of the processor.
		s.srv.lcs.Lock()
		defer s.srv.lcs.Unlock()
		l := newLCS(a, b)
		switch {
		case o.length:
			w.Int(int64(l.length))
		case o.indexes:
			l.writeMatches(w, o)
		default:
			w.Bulk(l.text())
		}
	}
	return f.launch()
}

// lcs is a longest common subsequence of a and b, by the usual table: of a cell
// (i, j), for the first i and j bytes, only whether the way back goes up is kept.
type lcs struct {
	a, b   []byte
	up     []uint64 // a bit per cell, row by row
	length int
}

func newLCS(a, b []byte) *lcs {
	l := &lcs{a: a, b: b, up: make([]uint64, (len(a)*len(b)+63)/64)}
	above, row := make([]uint32, len(b)+1), make([]uint32, len(b)+1)
	cell := 0
	for i := range a {
		for j := range b {
			switch {
			case a[i] == b[j]:
				row[j+1] = above[j] + 1
			case above[j+1] > row[j]:
				row[j+1] = above[j+1]
				l.up[cell/64] |= 1 << (cell % 64)
			default:
				row[j+1] = row[j]
			}
			cell++
		}
		above, row = row, above
	}
	l.length = int(above[len(b)])
	return l
}

// walk goes back from the end and calls match for each pair of the subsequence.
// Which of several ways it takes is that of Redis.
func (l *lcs) walk(match func(i, j int)) {
	for i, j := len(l.a)-1, len(l.b)-1; i >= 0 && j >= 0; {
		cell := i*len(l.b) + j
		switch {
		case l.a[i] == l.b[j]:
			match(i, j)
			i--
			j--
		case l.up[cell/64]>>(cell%64)&1 != 0:
			i--
		default:
			j--
		}
	}
}

func (l *lcs) text() []byte {
	out := make([]byte, l.length)
	at := l.length
	l.walk(func(i, _ int) {
		at--
		out[at] = l.a[i]
	})
	return out
}

// lcsRun is a run of pairs that follow each other in both values.
type lcsRun struct{ a, b, n int }

// writeMatches answers the runs, the last first, and the length.
func (l *lcs) writeMatches(w *Reply, o lcsOptions) {
	var runs []lcsRun
	l.walk(func(i, j int) {
		if k := len(runs) - 1; k >= 0 && runs[k].a == i+1 && runs[k].b == j+1 {
			runs[k] = lcsRun{i, j, runs[k].n + 1}
			return
		}
		runs = append(runs, lcsRun{i, j, 1})
	})
	shown := 0
	for _, r := range runs {
		if int64(r.n) >= o.least {
			runs[shown] = r
			shown++
		}
	}
	w.Map(2)
	w.BulkString("matches")
	w.Array(shown)
	for _, r := range runs[:shown] {
		if o.lengths {
			w.Array(3)
		} else {
			w.Array(2)
		}
		for _, from := range [...]int{r.a, r.b} {
			w.Array(2)
			w.Int(int64(from))
			w.Int(int64(from + r.n - 1))
		}
		if o.lengths {
			w.Int(int64(r.n))
		}
	}
	w.BulkString("len")
	w.Int(int64(l.length))
}
