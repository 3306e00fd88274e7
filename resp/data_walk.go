package resp

import (
	"context"
	"errors"
	"strconv"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
	"github.com/redynamo/redynamo/resp/glob"
)

const (
	// maxScanCount bounds the keys of one SCAN page, whatever COUNT says: COUNT
	// is a hint.
	maxScanCount = 10000
	// walkPage is the page of a walk over all keys.
	walkPage = 1000
)

const errKeysTooMany = "ERR too many keys match for one reply, use SCAN"
const errPatternCost = "ERR pattern is too expensive to match"

// walkCommands go over the key space: the whole of it on the plain door, the
// slots this node is first for on the cluster door.
func walkCommands() []command {
	return []command{
		{name: "scan", arity: -2, flags: words("readonly"), tips: words("nondeterministic_output request_policy:special"), since: "2.8.0",
			complexity: "O(1) for a page, O(N) for the walk over all keys", run: runScan,
			summary: "Walk over the keys, a page at a time",
			args: append(arguments("cursor integer"), option("pattern", "pattern", "MATCH"),
				option("count", "integer", "COUNT"), option("type", "string", "TYPE"))},
		{name: "keys", arity: 2, flags: words("readonly"), categories: words("dangerous"), since: "1.0.0", complexity: complexityN, run: runKeys,
			tips:    words("request_policy:all_shards nondeterministic_output_order"),
			summary: "List the keys that match a pattern", args: arguments("pattern pattern")},
		{name: "randomkey", arity: 1, flags: words("readonly"), since: "1.0.0", run: runRandomKey,
			tips:    words("request_policy:all_shards nondeterministic_output"),
			summary: "Get some key"},
	}
}

// scanOptions are the options of SCAN.
type scanOptions struct {
	count   int
	pattern *glob.Pattern // nil: every key
	strings bool          // TYPE, if given, is string
}

// parseScanOptions reads them and returns the text of an error, if any.
func parseScanOptions(args [][]byte) (o scanOptions, fault string) {
	o = scanOptions{count: 10, strings: true}
	for i := 0; i < len(args); i += 2 {
		switch {
		case i+1 == len(args):
			return o, errSyntax
		case foldEqual(args[i], "COUNT"):
			n, ok := parseInt(args[i+1])
			if !ok {
				return o, errNotInteger
			}
			if n < 1 {
				return o, errSyntax
			}
			o.count = int(min(n, maxScanCount))
		case foldEqual(args[i], "MATCH"):
			o.pattern = glob.Compile(args[i+1])
		case foldEqual(args[i], "TYPE"):
			o.strings = foldEqual(args[i+1], "STRING")
		default:
			return o, errSyntax
		}
	}
	return o, ""
}

// runScan answers one page. The cursor is the coordinator's place in the order
// of slots and key hashes, which no write moves, so a key that is there during
// the whole walk is met, on whichever node the walk goes on.
func runScan(s *session, args [][]byte, w *Reply) {
	cursor, ok := parseCursor(args[1])
	if !ok {
		w.Error(errCursor)
		return
	}
	o, fault := parseScanOptions(args[2:])
	if fault != "" {
		w.Error(fault)
		return
	}
	var page coordinator.ScanPage
	if o.strings { // there is no other type: the walk is over
		var err error
		ctx, cancel := s.walkContext()
		defer cancel()
		page, err = s.store().Scan(ctx, coordinator.ScanRequest{Cursor: cursor, Count: o.count, Owned: s.owned()})
		if err != nil {
			w.Fail(err)
			return
		}
	}
	keys, err := matching(o.pattern, page.Keys)
	if err != nil {
		w.Error(errPatternCost)
		return
	}
	w.Array(2)
	w.BulkString(strconv.FormatUint(page.Cursor, 10))
	writeKeys(w, keys)
}

// matching returns the keys that like matches; a nil pattern matches all.
func matching(like *glob.Pattern, keys [][]byte) ([][]byte, error) {
	if like == nil || like.All() {
		return keys, nil
	}
	kept := make([][]byte, 0, len(keys))
	for _, k := range keys {
		ok, err := like.Match(k)
		if err != nil {
			return nil, err
		}
		if ok {
			kept = append(kept, k)
		}
	}
	return kept, nil
}

func writeKeys(w *Reply, keys [][]byte) {
	w.Array(len(keys))
	for _, k := range keys {
		w.Bulk(k)
	}
}

// errReplyTooBig ends a KEYS whose reply would not fit the reply budget.
var errReplyTooBig = errors.New("resp: reply too big")

func runKeys(s *session, args [][]byte, w *Reply) {
	pattern := glob.Compile(args[1])
	var found [][]byte
	size := int64(0)
	err := s.walk(func(keys [][]byte) error {
		kept, err := matching(pattern, keys)
		for _, k := range kept {
			size += int64(len(k))
		}
		if size > s.limits().MaxReplies {
			return errReplyTooBig
		}
		found = append(found, kept...)
		return err
	})
	switch {
	case errors.Is(err, errReplyTooBig):
		w.Error(errKeysTooMany)
	case errors.Is(err, glob.ErrCost):
		w.Error(errPatternCost)
	case err != nil:
		w.Fail(err)
	default:
		writeKeys(w, found)
	}
}

func runRandomKey(s *session, _ [][]byte, w *Reply) {
	ctx, cancel := s.walkContext()
	defer cancel()
	key, found, err := s.store().RandomKey(ctx, s.owned())
	switch {
	case err != nil:
		w.Fail(err)
	case found:
		w.Bulk(key)
	default:
		w.Null()
	}
}

// walkContext bounds a command over many keys; it ends early when the server
// stops without patience.
func (s *session) walkContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.srv.base, s.limits().WalkTimeout)
}

// walk hands every key of this door to visit, a page at a time, each key once.
func (s *session) walk(visit func(keys [][]byte) error) error {
	ctx, cancel := s.walkContext()
	defer cancel()
	req := coordinator.ScanRequest{Count: walkPage, Owned: s.owned()}
	for {
		page, err := s.store().Scan(ctx, req)
		if err != nil {
			return err
		}
		if err := visit(page.Keys); err != nil {
			return err
		}
		if page.Cursor == 0 {
			return nil
		}
		req.Cursor = page.Cursor
	}
}

// keyCount is the reply of DBSIZE.
func keyCount(s *session) (int64, error) {
	ctx, cancel := s.walkContext()
	defer cancel()
	return s.store().Count(ctx, s.owned())
}

// flushAll deletes every key of this door that it meets, page by page. A key
// written meanwhile may stay, and so does what a failed delete left: the first
// failure is returned after its page is through.
func flushAll(s *session) error {
	return s.walk(func(keys [][]byte) error {
		f := &fan{n: len(keys), write: true}
		f.begin = func(i int) *call {
			c := s.beginWrite(keys[i], nil, version.Op{Kind: version.OpDelete}, nil)
			c.deed = deed{} // no events, as in Redis
			return c
		}
		f.fold = func(c *call, _ *Reply) { c.noteWrite() }
		return f.launch().collect(nil)
	})
}
