package resp

import (
	"runtime/debug"

	"github.com/redynamo/redynamo/replica/version"
)

// memoryRows are the subcommands of MEMORY, as far as a Go program can tell.
func memoryRows() []command {
	special := words("nondeterministic_output request_policy:all_shards response_policy:special")
	usage := completed("server", "", []command{{
		name: "usage", arity: -3, flags: words("readonly"), first: 2, keySpec: words("RO"), start: startMemoryUsage,
		summary: "Answers the bytes that a copy of a key takes, key, all versions and context, before compression.",
		args:    append(arguments("key key"), option("count", "integer", "SAMPLES"))}})
	return append(usage,
		command{name: "doctor", arity: 2, run: memoryDoctor, summary: "Points to the metrics.", tips: special},
		command{name: "malloc-stats", arity: 2, run: memoryMallocStats, tips: special,
			summary: "Says that the allocator tells nothing: see /debug/pprof/heap on the admin port."},
		command{name: "purge", arity: 2, run: memoryPurge, summary: "Collects garbage and gives unused memory back to the system.",
			tips: words("request_policy:all_shards response_policy:all_succeeded")},
		command{name: "stats", arity: 2, run: memoryStats, tips: special, summary: "Answers the figures of this node's memory that there are."})
}

// startMemoryUsage looks at options first. SAMPLES has no meaning here: a value is
// measured as a whole.
func startMemoryUsage(s *session, args [][]byte) pending {
	for i := 3; i < len(args); i += 2 {
		if !foldEqual(args[i], "SAMPLES") || i+1 == len(args) {
			return failed(errSyntax)
		}
		n, ok := parseInt(args[i+1])
		switch {
		case !ok:
			return failed(errNotInteger)
		case n < 0:
			return failed(errSyntax)
		}
	}
	return s.peek(args[2], args, func(c *call, w *Reply) {
		if _, ok := c.winner(); !ok {
			w.Null()
			return
		}
		w.Int(int64(len(c.key) + len(version.EncodeWire(nil, c.read.Record))))
	})
}

func memoryDoctor(_ *session, _ [][]byte, w *Reply) {
	w.Verbatim("txt", "See /metrics and /debug/pprof on the admin port.\n")
}

// memoryMallocStats answers what Redis does with an allocator that keeps none.
func memoryMallocStats(_ *session, _ [][]byte, w *Reply) {
	w.BulkString("Stats not supported for the current allocator")
}

// memoryPurge does one purge at a time; a client that comes meanwhile is served by
// the one under way.
func memoryPurge(s *session, _ [][]byte, w *Reply) {
	if s.srv.purge.TryLock() {
		defer s.srv.purge.Unlock()
		debug.FreeOSMemory()
	}
	w.Simple("OK")
}

// memoryStats uses the names of Redis where they mean the same here, and leaves out
// what there is not.
func memoryStats(s *session, _ [][]byte, w *Reply) {
	used, held := memory()
	st := s.admin().Stats()
	perKey := int64(0)
	if st.Keys > 0 {
		perKey = st.DiskBytes / st.Keys
	}
	fields := []struct {
		name  string
		value int64
	}{
		{"total.allocated", int64(used)},
		{"clients.normal", s.srv.query.used.Load() + s.srv.replies.used.Load()},
		{"keys.count", st.Keys},
		{"keys.bytes-per-key", perKey},
		{"dataset.bytes", st.DiskBytes},
		{"cache.bytes", st.CacheBytes},
		{"hints.bytes", st.HintBytes},
		{"allocator.allocated", int64(used)},
		{"allocator.resident", int64(held)},
		{"allocator-fragmentation.bytes", max(0, int64(held)-int64(used))},
	}
	w.Map(len(fields) + 1)
	for _, f := range fields {
		w.BulkString(f.name)
		w.Int(f.value)
	}
	w.BulkString("fragmentation")
	w.Double(float64(held) / float64(max(used, 1)))
}
