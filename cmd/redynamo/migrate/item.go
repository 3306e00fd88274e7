package migrate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redynamo/redynamo/resp/rdb"
)

// item is one key of a source.
type item struct {
	kind       string // as TYPE says it
	key, value []byte
	bytes      int64 // of the value, as far as the source says
	expireAtMS int64 // 0: never
}

// A Sum is how many keys there are of something, and how large their values are.
type Sum struct{ Keys, Bytes int64 }

// Counts are what an import met and did.
type Counts struct {
	Types     map[string]Sum   // of all keys of the database that match and are not over
	Databases map[string]int64 // keys of the others, by number
	Written   int64
	Kept      int64 // were there already, and left alone
	Expired   int64 // their time was over
	Unmatched int64
	// The others were not imported, and are named in the report.
	Unsupported int64 // of types that are not stored
	TooLong     int64 // keys or values above the limits
	Refused     int64 // the cluster does not take them
}

// Seen is how many keys the counts are about.
func (c *Counts) Seen() int64 {
	n := c.Expired + c.Unmatched
	for _, s := range c.Types {
		n += s.Keys
	}
	for _, k := range c.Databases {
		n += k
	}
	return n
}

// Missing is how many keys were not imported for what they are.
func (c *Counts) Missing() int64 { return c.Unsupported + c.TooLong + c.Refused }

// Kinds are the types there are, in order.
func (c *Counts) Kinds() []string { return slices.Sorted(maps.Keys(c.Types)) }

func (c *Counts) note(kind string, bytes int64) {
	if c.Types == nil {
		c.Types = map[string]Sum{}
	}
	s := c.Types[kind]
	c.Types[kind] = Sum{s.Keys + 1, s.Bytes + bytes}
}

func (c *Counts) elsewhere(database string, keys int64) {
	if c.Databases == nil {
		c.Databases = map[string]int64{}
	}
	c.Databases[database] += keys
}

func (c *Counts) add(o *Counts) {
	for kind, s := range o.Types {
		c.note(kind, s.Bytes)
		c.Types[kind] = Sum{c.Types[kind].Keys + s.Keys - 1, c.Types[kind].Bytes}
	}
	for database, keys := range o.Databases {
		c.elsewhere(database, keys)
	}
	c.Written += o.Written
	c.Kept += o.Kept
	c.Expired += o.Expired
	c.Unmatched += o.Unmatched
	c.Unsupported += o.Unsupported
	c.TooLong += o.TooLong
	c.Refused += o.Refused
}

// clone is a copy that shares nothing.
func (c *Counts) clone() Counts {
	out := *c
	out.Types, out.Databases = maps.Clone(c.Types), maps.Clone(c.Databases)
	return out
}

// A mark is a place in a source.
type mark struct {
	File   *rdb.Position `json:",omitempty"`
	Cursor uint64        `json:",omitempty"`
	End    bool          `json:",omitempty"` // nothing is left
}

// A page is some keys in a row. Once it is handed out only its workers change it.
type page struct {
	items []item
	bytes int     // of the keys and values of items
	mark  mark    // behind it
	share float64 // of the source that is behind the mark

	left  atomic.Int32
	ended chan struct{}
	mu    struct {
		sync.Mutex
		counts Counts
		lines  []byte // of the report
	}
}

// A source gives pages until io.EOF.
type source interface {
	next(ctx context.Context) (*page, error)
	// identity is what must be the same for a mark to mean the same.
	identity() Identity
	// restarted reports whether the marks of before are worth nothing any more, although
	// the source is the same.
	restarted(before Identity) bool
	close() error
}

// Bounds of pages.
const (
	pageKeys      = 256     // that are imported, and
	pageSeen      = 2048    // of all
	pageBytes     = 4 << 20 // of their keys and values, and of lines of the report
	pagesInFlight = 8
)

// shownKey is how many bytes of a key stand in the report.
const shownKey = 256

func newPage() *page { return &page{ended: make(chan struct{})} }

// name writes a key that is not imported into the report: of a long one its beginning
// and its length.
func (p *page) name(key []byte, kind, why string) {
	p.mu.lines = fmt.Appendf(p.mu.lines, "%s\t%q", kind, key[:min(len(key), shownKey)])
	if len(key) > shownKey {
		p.mu.lines = fmt.Appendf(p.mu.lines, "... (%d bytes)", len(key))
	}
	p.mu.lines = fmt.Appendf(p.mu.lines, "\t%s\n", why)
}

// take puts a key into the page.
func (p *page) take(it item) {
	p.items = append(p.items, it)
	p.bytes += len(it.key) + len(it.value)
}

// full reports whether no more should be put in.
func (p *page) full() bool { return len(p.items) >= pageKeys || p.bytes+len(p.mu.lines) >= pageBytes }

// over reports whether a key's time is over, and counts it if so.
func (p *page) over(expireAtMS int64, now time.Time) bool {
	if expireAtMS == 0 || expireAtMS > now.UnixMilli() {
		return false
	}
	p.mu.counts.Expired++
	return true
}

// outcome is what became of an item.
type outcome struct {
	kept bool
	err  error // the cluster does not take it
}

func (p *page) settle(items []*item, outcomes []outcome) {
	p.mu.Lock()
	for i, it := range items {
		switch o := outcomes[i]; {
		case o.err != nil:
			p.mu.counts.Refused++
			p.name(it.key, it.kind, "refused: "+o.err.Error())
		case o.kept:
			p.mu.counts.Kept++
		default:
			p.mu.counts.Written++
		}
	}
	p.mu.Unlock()
	if p.left.Add(-1) == 0 {
		close(p.ended)
	}
}

// errOther says that there is a state, and that it is of another import.
var errOther = errors.New("the state is of another import; --restart begins this one")
