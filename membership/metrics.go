package membership

import "github.com/VictoriaMetrics/metrics"

// counters are this package's metrics.
type counters struct {
	views, rejoins, foreign, claims, restored, dropped, unreadable *metrics.Counter
}

func newCounters(set *metrics.Set, m *Membership) counters {
	set.NewGauge(`membership_nodes_alive`, func() float64 { return float64(m.alive.Load()) })
	set.NewGauge(`membership_members`, func() float64 {
		if p := m.current.Load(); p != nil && p.view.Ring != nil {
			return float64(len(p.view.Ring.Members()))
		}
		return 0
	})
	set.NewGauge(`membership_ready`, func() float64 {
		if p := m.current.Load(); p != nil && p.view.Ready {
			return 1
		}
		return 0
	})
	set.NewGauge(`membership_level`, func() float64 {
		if p := m.current.Load(); p != nil {
			return float64(p.view.Level)
		}
		return 0
	})
	set.NewGauge(`membership_max_level`, func() float64 { return float64(m.cfg.MaxLevel) })
	return counters{
		views:      set.NewCounter(`membership_views_total`),
		rejoins:    set.NewCounter(`membership_rejoin_attempts_total`),
		foreign:    set.NewCounter(`membership_foreign_total`),
		claims:     set.NewCounter(`membership_id_conflicts_total`),
		restored:   set.NewCounter(`membership_restored_total`),
		dropped:    set.NewCounter(`membership_states_dropped_total`),
		unreadable: set.NewCounter(`membership_unreadable_total`),
	}
}
