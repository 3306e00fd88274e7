package coordinator

import "github.com/VictoriaMetrics/metrics"

// counters are what the coordinator counts.
type counters struct {
	reads, writes   *metrics.Counter
	refused         *metrics.Counter
	readFailures    *metrics.Counter
	noReplicas      *metrics.Counter
	uncertain       *metrics.Counter
	forwards        *metrics.Counter
	fallbackMints   *metrics.Counter
	mintsFailed     *metrics.Counter
	hedges          *metrics.Counter
	hintsShed       *metrics.Counter // optional ones that were refused
	scansSettled    *metrics.Counter
	forwardsServed  *metrics.Counter
	forwardsRetried *metrics.Counter
	forwardsDoubted *metrics.Counter
	divergence      divergence
}

func newCounters(s *metrics.Set, inFlight func() float64) counters {
	s.NewGauge("coordinator_requests_in_flight", inFlight)
	return counters{
		reads:           s.NewCounter(`coordinator_requests_total{op="read"}`),
		writes:          s.NewCounter(`coordinator_requests_total{op="write"}`),
		forwardsServed:  s.NewCounter(`coordinator_requests_total{op="forwarded"}`),
		refused:         s.NewCounter(`coordinator_refused_total`),
		readFailures:    s.NewCounter(`coordinator_failures_total{kind="read"}`),
		noReplicas:      s.NewCounter(`coordinator_failures_total{kind="no_replicas"}`),
		uncertain:       s.NewCounter(`coordinator_failures_total{kind="uncertain"}`),
		forwards:        s.NewCounter(`coordinator_forwards_total`),
		forwardsRetried: s.NewCounter(`coordinator_forwards_retried_total`),
		forwardsDoubted: s.NewCounter(`coordinator_forwards_doubted_total`),
		fallbackMints:   s.NewCounter(`coordinator_fallback_mints_total`),
		mintsFailed:     s.NewCounter(`coordinator_mints_failed_total`),
		hedges:          s.NewCounter(`coordinator_hedges_total`),
		hintsShed:       s.NewCounter(`coordinator_hints_refused_total`),
		divergence:      newDivergence(s),
		scansSettled:    s.NewCounter(`coordinator_scan_keys_settled_total`),
	}
}
