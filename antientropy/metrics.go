package antientropy

import (
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// meters are the counters of one Exchanger.
type meters struct {
	ok, failed     *metrics.Counter
	partitions     *metrics.Counter
	differing      *metrics.Counter
	pulled, pushed *metrics.Counter // rows
	listed         *metrics.Counter // states of keys, on both sides
	pulledBytes    *metrics.Counter
	pushedBytes    *metrics.Counter
	seconds        *metrics.PrometheusHistogram
}

func newMeters(set *metrics.Set) meters {
	return meters{
		ok:          set.GetOrCreateCounter(`antientropy_exchanges_total{outcome="ok"}`),
		failed:      set.GetOrCreateCounter(`antientropy_exchanges_total{outcome="failed"}`),
		partitions:  set.GetOrCreateCounter(`antientropy_partitions_compared_total`),
		differing:   set.GetOrCreateCounter(`antientropy_partitions_differing_total`),
		pulled:      set.GetOrCreateCounter(`antientropy_rows_total{way="pulled"}`),
		pushed:      set.GetOrCreateCounter(`antientropy_rows_total{way="pushed"}`),
		listed:      set.GetOrCreateCounter(`antientropy_keys_listed_total`),
		pulledBytes: set.GetOrCreateCounter(`antientropy_row_bytes_total{way="pulled"}`),
		pushedBytes: set.GetOrCreateCounter(`antientropy_row_bytes_total{way="pushed"}`),
		seconds:     set.GetOrCreatePrometheusHistogram(`antientropy_exchange_seconds`),
	}
}

// book counts an exchange.
func (m *meters) book(t Tally, err error, took time.Duration) {
	if err != nil {
		m.failed.Inc()
	} else {
		m.ok.Inc()
	}
	m.partitions.Add(t.Partitions)
	m.differing.Add(t.Differing)
	m.listed.Add(t.Listed)
	m.pulled.AddInt64(t.Pulled)
	m.pushed.AddInt64(t.Pushed)
	m.pulledBytes.AddInt64(t.PulledSize)
	m.pushedBytes.AddInt64(t.PushedSize)
	m.seconds.Update(took.Seconds())
}
