package replica

import "github.com/VictoriaMetrics/metrics"

// meters are the counters of one Replica.
type meters struct {
	hits      *metrics.Counter // reads of own rows that found a payload
	misses    *metrics.Counter // reads of own rows that found none
	cached    *metrics.Counter // rows found in the record cache
	loaded    *metrics.Counter // rows read from the store
	mutated   *metrics.Counter
	merged    *metrics.Counter
	unchanged *metrics.Counter // merges and mutations that brought nothing new
	corrupt   *metrics.Counter // rows that could not be read
	refused   *metrics.Counter // changes that the store did not take
	expired   *metrics.Counter // payloads dropped after their time
	reused    *metrics.Counter // dots of this incarnation that it never minted
	reaped    *metrics.Counter // records without a value that were dropped
	dropped   *metrics.Counter // rows dropped because their partition has moved

	scrubbed     *metrics.Counter // slots read to their end
	digestsWrong *metrics.Counter // digests that did not fit the rows

	filled    *metrics.Counter // holes that have ended
	restored  *metrics.Counter // lost rows that the cache had
	lostHints *metrics.Counter // hints that damage took
}

// newMeters registers the counters in set.
func newMeters(set *metrics.Set) meters {
	return meters{
		hits:         set.GetOrCreateCounter(`replica_reads_total{found="true"}`),
		misses:       set.GetOrCreateCounter(`replica_reads_total{found="false"}`),
		cached:       set.GetOrCreateCounter(`replica_lookups_total{from="cache"}`),
		loaded:       set.GetOrCreateCounter(`replica_lookups_total{from="store"}`),
		mutated:      set.GetOrCreateCounter(`replica_mutations_total`),
		merged:       set.GetOrCreateCounter(`replica_merges_total`),
		unchanged:    set.GetOrCreateCounter(`replica_unchanged_total`),
		corrupt:      set.GetOrCreateCounter(`replica_corrupt_rows_total`),
		refused:      set.GetOrCreateCounter(`replica_refused_total`),
		expired:      set.GetOrCreateCounter(`replica_expired_total`),
		reused:       set.GetOrCreateCounter(`replica_dots_reused_total`),
		reaped:       set.GetOrCreateCounter(`replica_reaped_total`),
		dropped:      set.GetOrCreateCounter(`replica_dropped_rows_total`),
		scrubbed:     set.GetOrCreateCounter(`replica_scrubbed_slots_total`),
		filled:       set.GetOrCreateCounter(`replica_holes_filled_total`),
		restored:     set.GetOrCreateCounter(`replica_restored_rows_total`),
		lostHints:    set.GetOrCreateCounter(`replica_lost_hints_total`),
		digestsWrong: set.GetOrCreateCounter(`replica_wrong_digests_total`),
	}
}

// gauge registers what is read when somebody asks for it.
func (r *Replica) gauge() {
	for name, of := range map[string]func(Stats) int64{
		`replica_keys`:        func(s Stats) int64 { return s.Keys },
		`replica_cache_bytes`: func(s Stats) int64 { return s.CacheBytes },
		`replica_hint_rows`:   func(s Stats) int64 { return s.Hints },
		`replica_hint_bytes`:  func(s Stats) int64 { return s.HintBytes },
	} {
		r.cfg.Metrics.GetOrCreateGauge(name, func() float64 { return float64(of(r.Stats())) })
	}
}
