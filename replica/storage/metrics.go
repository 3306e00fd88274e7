package storage

import "github.com/VictoriaMetrics/metrics"

// meters are the counters of one Store.
type meters struct {
	commits     *metrics.Counter // batches applied
	writes      *metrics.Counter // writes in those batches
	syncs       *metrics.Counter // batches applied with a sync
	applies     *metrics.Counter // generations applied
	appliedRows *metrics.Counter // rows in them
	replayed    *metrics.Counter // log records applied by opening
	busy        *metrics.Counter // writes refused
	stalls      *metrics.Counter // write stalls begun, of the engine or for want of room
	corruptions *metrics.Counter // corruption reports of the engine
	salvaged    *metrics.Counter // ranges whose damage was taken out of the tables
	unsalvaged  *metrics.Counter // attempts at that which failed
	lostRanges  *metrics.Counter // ranges that could not be read then
	background  *metrics.Counter // background errors of the engine
	slowDisk    *metrics.Counter // disk operations reported as slow

	commitSeconds *metrics.Histogram // one batch, from swap to applied and synced

	pendingBytes  *metrics.Gauge // logged rows that are not applied
	diskBytes     *metrics.Gauge // space the engine uses
	memTableBytes *metrics.Gauge
	holes         *metrics.Gauge // ranges with rows that were lost and are not back
	readAmp       *metrics.Gauge // sorted runs a read may have to look at
	freeBytes     *metrics.Gauge // space left on the disk
}

// Damage is what became of damage to the disk since the start.
type Damage struct {
	Found      int64 // reports of damaged blocks and files
	Salvaged   int64 // ranges of which damage was taken out of the tables
	Unsalvaged int64 // attempts at that which failed
	Lost       int64 // ranges that could not be read then
	Holes      int64 // of those, joined, that are not filled yet
}

// Damage returns these figures.
func (s *Store) Damage() Damage {
	m := &s.meters
	return Damage{
		Found: int64(m.corruptions.Get()), Salvaged: int64(m.salvaged.Get()), Unsalvaged: int64(m.unsalvaged.Get()),
		Lost: int64(m.lostRanges.Get()), Holes: int64(len(s.Holes())),
	}
}

// newMeters registers the counters in set. A set outlives a reopened store, so
// a name that exists already is taken over.
func newMeters(set *metrics.Set) meters {
	return meters{
		commits:       set.GetOrCreateCounter(`storage_commits_total`),
		writes:        set.GetOrCreateCounter(`storage_writes_total`),
		syncs:         set.GetOrCreateCounter(`storage_syncs_total`),
		applies:       set.GetOrCreateCounter(`storage_applies_total`),
		appliedRows:   set.GetOrCreateCounter(`storage_applied_rows_total`),
		replayed:      set.GetOrCreateCounter(`storage_replayed_total`),
		busy:          set.GetOrCreateCounter(`storage_busy_total`),
		stalls:        set.GetOrCreateCounter(`storage_stalls_total`),
		corruptions:   set.GetOrCreateCounter(`storage_corruptions_total`),
		salvaged:      set.GetOrCreateCounter(`storage_salvaged_ranges_total`),
		unsalvaged:    set.GetOrCreateCounter(`storage_salvages_failed_total`),
		lostRanges:    set.GetOrCreateCounter(`storage_lost_ranges_total`),
		background:    set.GetOrCreateCounter(`storage_background_errors_total`),
		slowDisk:      set.GetOrCreateCounter(`storage_slow_disk_total`),
		commitSeconds: set.GetOrCreateHistogram(`storage_commit_seconds`),
		pendingBytes:  set.GetOrCreateGauge(`storage_pending_bytes`, nil),
		diskBytes:     set.GetOrCreateGauge(`storage_disk_bytes`, nil),
		memTableBytes: set.GetOrCreateGauge(`storage_memtable_bytes`, nil),
		readAmp:       set.GetOrCreateGauge(`storage_read_amplification`, nil),
		holes:         set.GetOrCreateGauge(`storage_holes`, nil),
		freeBytes:     set.GetOrCreateGauge(`storage_free_bytes`, nil),
	}
}
