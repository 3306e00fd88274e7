package storage

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/integration/bubble"
)

// rotRow is data row i of the tests below, spread over a few slots.
func rotRow(i int) string {
	return string(AppendDataKey(nil, uint16(100+i%7), uint32(i)*2654435761, fmt.Appendf(nil, "key%d", i)))
}

// rotStore writes a store whose tables lie in several levels, with rows of every
// kind, some removed and some overwritten, and returns what it holds.
func rotStore(t *testing.T, fs *vfs.MemFS, valueBytes int) map[string]string {
	t.Helper()
	rows := map[string]string{}
	s := mustOpen(t, smallConfig(fs))
	write := func(key, value string) {
		t.Helper()
		op := RowOp{Key: []byte(key), Value: []byte(value), Delete: value == ""}
		if rows[key] = value; value == "" {
			delete(rows, key)
		}
		if _, err := s.Enqueue([]RowOp{op}, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	rng := rand.NewChaCha8([32]byte{1}) // what does not compress fills blocks
	value := func(int, int) string {
		b := make([]byte, valueBytes)
		_, _ = rng.Read(b) // it never fails
		return string(b)
	}
	settle := func(compact bool) {
		t.Helper()
		if err := put(s, "mflush", "x", true); err != nil {
			t.Fatal(err)
		}
		rows["mflush"] = "x"
		time.Sleep(3 * s.cfg.PendingAge)
		err := s.db.Flush()
		if compact {
			err = errors.Join(err, s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const n = 600
	for i := range n {
		key := fmt.Appendf(nil, "key%d", i)
		write(rotRow(i), value(i, 0))
		if i%3 == 0 {
			write(string(AppendHintKey(nil, 77, uint16(i), uint32(i), key)), value(i, 9))
			write(string(AppendExpiryKey(nil, int64(1000+i), uint16(i), uint32(i), key)), "e")
			write(string(AppendGraveKey(nil, uint16(i), uint32(i), key)), "g")
		}
	}
	settle(true)
	for i := 0; i < n; i += 2 {
		write(rotRow(i), value(i, 1))
	}
	settle(true)
	still(s)
	for i := 0; i < n; i += 5 {
		write(rotRow(i), "")
	}
	settle(false)
	for i := 0; i < n; i += 7 {
		write(rotRow(i), value(i, 2))
	}
	settle(false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return rows
}

// still keeps the tables of a store as they are from now on.
func still(s *Store) {
	s.brake.until.Store(math.MaxInt64)
	for running := 1; running > 0; time.Sleep(time.Millisecond) {
		s.brake.mu.Lock()
		running = s.brake.mu.running
		s.brake.mu.Unlock()
	}
}

// flipAt turns bits of one byte of a file.
func flipAt(t *testing.T, fs vfs.FS, name string, at int64) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // what counts was written
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // a crash leaves the damage
		t.Fatal(err)
	}
}

// filesOf are the files of a directory whose names end so, and their sizes.
func filesOf(t *testing.T, fs vfs.FS, dir, suffix string) (sizes map[string]int64) {
	t.Helper()
	all, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	sizes = map[string]int64{}
	for _, name := range all {
		if strings.HasSuffix(name, suffix) {
			info, err := fs.Stat(dir + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			sizes[dir+"/"+name] = info.Size()
		}
	}
	return sizes
}

// readRot reads every row that was written. None may have a wrong value, and none
// may be absent. It answers how many are damaged, and which are lost.
func readRot(t *testing.T, s *Store, rows map[string]string) (corrupt int, lost []string) {
	t.Helper()
	for row, want := range rows {
		v, err := s.Get([]byte(row))
		switch {
		case errors.Is(err, ErrHole):
			lost = append(lost, row)
		case errors.Is(err, ErrCorrupt):
			corrupt++
		case err != nil:
			t.Fatalf("row %x: %v", row, err)
		case string(v) != want:
			t.Fatalf("row %x has the value %.20q, want %.20q", row, v, want)
		}
	}
	return corrupt, lost
}

// scanRot reads all rows in order, and must meet none that is wrong or was removed.
func scanRot(t *testing.T, s *Store, rows map[string]string) error {
	t.Helper()
	return s.Scan([]byte{'d'}, []byte{'l'}, func(row, value []byte) bool {
		if want, ok := rows[string(row)]; !ok || want != string(value) {
			t.Errorf("scan: row %x has the value %.20q, want %.20q", row, value, want)
		}
		return true
	})
}

// healed waits until nothing of the store is unreadable any more, and returns the
// rows that are lost.
func healed(t *testing.T, s *Store, rows map[string]string) (lost []string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		corrupt, lost := readRot(t, s, rows)
		scan := scanRot(t, s, rows)
		compact := s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false)
		if corrupt == 0 && compact == nil && (scan == nil) == (len(s.Holes()) == 0) {
			return lost
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows are still unreadable; scan: %v, compaction: %v", corrupt, scan, compact)
		}
	}
}

// fillRot writes the lost rows again, ends the holes, and compares all.
func fillRot(t *testing.T, s *Store, rows map[string]string, lost []string) {
	t.Helper()
	for _, row := range lost {
		if err := put(s, row, rows[row], false); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Fill(s.Holes()); err != nil {
		t.Fatal(err)
	}
	if holes := s.Holes(); len(holes) > 0 {
		t.Errorf("holes are left: %x", holes)
	}
	if corrupt, lost := readRot(t, s, rows); corrupt+len(lost) > 0 {
		t.Errorf("%d rows are damaged, %d lost", corrupt, len(lost))
	}
	n := 0
	if err := s.Scan([]byte{'d'}, []byte{'l'}, func(_, _ []byte) bool { n++; return true }); err != nil {
		t.Error(err)
	}
	want := 0
	for row := range rows {
		if row[0] < 'l' {
			want++
		}
	}
	if n != want {
		t.Errorf("%d rows, want %d", n, want)
	}
}

// TestDamageAnywhereInATableLosesFewRowsAndNoneInSilence flips one bit after the
// other, over all tables of a store.
func TestDamageAnywhereInATableLosesFewRowsAndNoneInSilence(t *testing.T) {
	for _, valueBytes := range []int{100, 2000} {
		t.Run(fmt.Sprint(valueBytes), func(t *testing.T) {
			positions := int64(30)
			if testing.Short() {
				positions = 4
			}
			var worst, all, flips, refused int
			bubble.Test(t, func(t *testing.T) {
				fs := vfs.NewCrashableMem()
				rows := rotStore(t, fs, valueBytes)
				files := filesOf(t, fs, "db", ".sst")
				total := int64(0)
				for _, size := range files {
					total += size
				}
				step := max(total/positions, 1)
				at := step / 2
				for _, name := range slices.Sorted(maps.Keys(files)) {
					for ; at < files[name]; at += step {
						lost, opened := flipOnce(t, fs, name, at, rows)
						flips++
						if !opened {
							refused++
							continue
						}
						all += lost
						worst = max(worst, lost)
					}
					at -= files[name]
				}
				t.Logf("%d tables, %d rows, %d bytes: %d flips, %d rows lost per flip, %d at most; %d refused to open",
					len(files), len(rows), total, flips, all/max(flips-refused, 1), worst, refused)
			})
		})
	}
}

// flipOnce flips a bit in a copy of a store and has it healed.
func flipOnce(t *testing.T, fs *vfs.MemFS, name string, at int64, rows map[string]string) (lost int, opened bool) {
	t.Helper()
	fs = fs.CrashClone(vfs.CrashCloneCfg{})
	flipAt(t, fs, name, at)
	cfg := smallConfig(fs)

	s, err := Open(cfg)
	if err != nil {
		if !isCorrupt(err) {
			t.Fatalf("%s at %d: open: %v", name, at, err)
		}
		return 0, false
	}
	s.Start()
	gone := healed(t, s, rows)
	if bad := s.brake.failed.Load(); bad > 60 {
		t.Errorf("%s at %d: %d compactions failed", name, at, bad)
	}
	// A crash keeps what was decided.
	cfg.FS = fs.CrashClone(vfs.CrashCloneCfg{})
	again := mustOpen(t, cfg)
	if _, lost := readRot(t, again, rows); len(lost) != len(gone) {
		t.Errorf("%s at %d: %d rows are lost after a crash, %d before", name, at, len(lost), len(gone))
	}
	fillRot(t, again, rows, gone)
	if err := errors.Join(s.Close(), again.Close()); err != nil {
		t.Error(err)
	}
	return len(gone), true
}

// damaged opens a store of which a block of the largest table is damaged. It is
// not started, so nothing takes the damage out.
func damaged(t *testing.T) (s *Store, fs *vfs.MemFS, rows map[string]string) {
	t.Helper()
	fs = vfs.NewCrashableMem()
	rows = rotStore(t, fs, 100)
	largest, size := "", int64(0)
	for name, n := range filesOf(t, fs, "db", ".sst") {
		if n > size {
			largest, size = name, n
		}
	}
	flipAt(t, fs, largest, size/4)
	s, err := Open(smallConfig(fs))
	if err != nil {
		t.Fatal(err)
	}
	return s, fs, rows
}

func TestCompactionsOverDamagePause(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, _, _ := damaged(t)
		const seconds = 30
		time.Sleep(seconds * time.Second) // the engine tries of its own accord
		if n := s.brake.failed.Load(); n < 2 || n > seconds+1 {
			t.Errorf("%d compactions failed in %d s", n, seconds)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestCrashBetweenTheHolesAndTheirRange(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, fs, rows := damaged(t)
		still(s)
		parts, err := s.parts(func(part) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			spans, err := s.damage(p)
			if err != nil {
				t.Fatal(err)
			}
			for _, span := range spans {
				_, holes, err := s.copyReadable("db/"+salvageFile, span)
				if err != nil || len(holes) == 0 {
					t.Fatalf("%d holes, %v", len(holes), err)
				}
				if err := s.putHoles(holes); err != nil {
					t.Fatal(err)
				}
			}
		}
		cfg := smallConfig(fs.CrashClone(vfs.CrashCloneCfg{}))
		again := mustOpen(t, cfg)
		if len(again.Holes()) == 0 {
			t.Error("the holes did not outlive the crash")
		}
		lost := healed(t, again, rows)
		if len(lost) == 0 {
			t.Error("nothing was lost: the damage was none")
		}
		fillRot(t, again, rows, lost)
		if err := errors.Join(s.Close(), again.Close()); err != nil {
			t.Error(err)
		}
	})
}

// The engine reads on behind the last row of a part to see that it was the last. The
// block there may be nobody's.
func TestDamageBehindTheEndOfAPart(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := vfs.NewCrashableMem()
		rows := rotStore(t, fs, 100)
		s, err := Open(smallConfig(fs)) // what applies is this test
		if err != nil {
			t.Fatal(err)
		}
		still(s)
		parts, err := s.parts(func(part) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		blocks := 0
		for _, p := range parts {
			table, err := s.openTable(p.file)
			if err != nil {
				t.Fatal(err)
			}
			if err := table.index(); err != nil {
				t.Fatal(err)
			}
			if i := len(table.blocks) / 2; i > 0 && i+1 < len(table.blocks) {
				last := table.lastOf(table.blocks[i-1])
				cut := pebble.KeyRange{Start: successor(last), End: successor(table.blocks[i].separator)}
				if err := s.replaceExactly(cut); err != nil {
					t.Fatal(err)
				}
				at := table.blocks[i].handle
				flipAt(t, fs, "db/"+p.file, int64(at.Offset+at.Length/2))
				blocks++
			}
			if err := table.close(); err != nil {
				t.Fatal(err)
			}
		}
		if blocks == 0 {
			t.Fatal("no table has blocks to spare")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, smallConfig(fs))
		if lost := healed(t, s, rows); len(lost) > 0 {
			t.Errorf("%d rows were lost with blocks that are nobody's", len(lost))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestReadersSeeNoMomentWithoutTheRows(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, smallConfig(fs))
	const n = 50
	for i := range n {
		if err := put(s, rotRow(i), "v", false); err != nil {
			t.Fatal(err)
		}
	}
	stop, ended := make(chan struct{}), make(chan error, 2)
	read := func(fn func() error) {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if err := fn(); err != nil {
				ended <- err
				return
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(smallConfig(fs)) // what applies is this test
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	go read(func() error {
		i++
		_, err := s.Get([]byte(rotRow(i % n)))
		return err
	})
	go read(func() error {
		rows := 0
		err := s.Scan([]byte{'d'}, []byte{'e'}, func(_, _ []byte) bool { rows++; return true })
		if err == nil && rows != n {
			err = fmt.Errorf("%d rows, want %d", rows, n)
		}
		return err
	})
	span := boundsSpan([]byte{'d'}, []byte{'e'})
	for range 200 {
		if err := errors.Join(s.db.Flush(), s.replaceExactly(span)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := errors.Join(<-ended, <-ended, s.Close()); err != nil {
		t.Error(err)
	}
}

// statsCollector stands for the engine, whose collector reports in this way that it
// cannot read the properties of a table.
type statsCollector struct{ report func(error) }

func (c statsCollector) collectTableStats() { c.report(errors.New("damaged")) }

func (c statsCollector) compact() { c.report(errors.New("damaged")) }

func TestTheCollectorOfStatisticsPausesAfterAnError(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := mustOpen(t, smallConfig(vfs.NewMem()))
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		c, began := statsCollector{s.events().BackgroundError}, time.Now()
		if c.compact(); time.Since(began) != 0 {
			t.Errorf("the engine waits %v with its locks held", time.Since(began))
		}
		if c.collectTableStats(); time.Since(began) != backgroundPause {
			t.Errorf("the collector waits %v, want %v", time.Since(began), backgroundPause)
		}
	})
}
