package handoff

import "github.com/VictoriaMetrics/metrics"

// counters are the metrics of a Sender.
type counters struct {
	rows       *metrics.Counter // delivered
	bytes      *metrics.Counter
	failed     *metrics.Counter // messages and rows that were not taken
	requeued   *metrics.Counter // rows that are to be sent again
	moved      *metrics.Counter // rows of targets that are no owners any more
	rejected   *metrics.Counter // rows that a target refused one by one
	unreadable *metrics.Counter // rows, or parts of the store, that were passed over
}

func newCounters(set *metrics.Set, active, oldest func() float64) counters {
	set.GetOrCreateGauge(`handoff_active_targets`, active)
	set.GetOrCreateGauge(`handoff_oldest_hint_seconds`, oldest)
	return counters{
		rows:       set.GetOrCreateCounter(`handoff_delivered_rows_total`),
		bytes:      set.GetOrCreateCounter(`handoff_delivered_bytes_total`),
		failed:     set.GetOrCreateCounter(`handoff_failed_total`),
		requeued:   set.GetOrCreateCounter(`handoff_requeued_rows_total`),
		moved:      set.GetOrCreateCounter(`handoff_moved_rows_total`),
		rejected:   set.GetOrCreateCounter(`handoff_rejected_rows_total`),
		unreadable: set.GetOrCreateCounter(`handoff_unreadable_rows_total`),
	}
}
