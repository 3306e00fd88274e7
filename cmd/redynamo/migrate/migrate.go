package migrate

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Config is one import. File or From names the source.
type Config struct {
	To       Endpoint // doors of the cluster
	File     string   // an RDB file
	From     Endpoint // a server: one address
	DB       int      // the database of the source
	Match    string   // only keys that match; all if empty
	Replace  bool     // write over keys that are there; else they are left alone
	DryRun   bool     // only count; nothing is written, and no state is kept
	Restart  bool     // begin anew even if there is a state
	State    string   // file that says how far the import is
	Report   string   // file that names what is not imported
	Conns    int      // connections to the cluster; 8
	MaxKey   int      // longer keys are reported; 64 KiB
	MaxValue int      // longer values are reported; 1 MiB
	// Patience is how long nothing may be taken before the import gives up; 1 min.
	Patience time.Duration
	// Progress is told now and then how far it is, 0 to 1. Nil: nobody is.
	Progress func(share float64, c *Counts)
	// Note is told what a person wants to know. Nil: nobody is.
	Note func(text string)
}

func (c Config) withDefaults() (Config, error) {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&c.Conns, 8)
	def(&c.MaxKey, 64<<10)
	def(&c.MaxValue, 1<<20)
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	if c.Progress == nil {
		c.Progress = func(float64, *Counts) {}
	}
	if c.Note == nil {
		c.Note = func(string) {}
	}
	var errs []error
	if (c.File == "") == (len(c.From.Addrs) == 0) {
		errs = append(errs, errors.New("either a file or a server to import from"))
	}
	if len(c.From.Addrs) > 1 {
		errs = append(errs, errors.New("one server at a time"))
	}
	if !c.DryRun && len(c.To.Addrs) == 0 {
		errs = append(errs, errors.New("no address of the cluster"))
	}
	if c.Conns < 1 || c.DB < 0 || c.MaxKey < 1 || c.MaxValue < 1 || c.Patience < 0 {
		errs = append(errs, errors.New("connections and limits must be at least 1, db and patience at least 0"))
	}
	if !c.DryRun && (c.State == "" || c.Report == "") {
		errs = append(errs, errors.New("no name for the state or the report"))
	}
	return c, errors.Join(errs...)
}

// run is an import under way.
type run struct {
	cfg     Config
	src     source
	to      target
	state   state
	before  Counts // those of the state that is gone on from
	report  *report
	workers []*worker
	pages   chan *page
	ended   error // why the source gives no more; nil: it is at its end
	saved   time.Time
}

// Run imports until the source is at its end, ctx ends or something goes wrong. What an
// import did that did not end is in the state, and the next one goes on from there.
func Run(ctx context.Context, cfg Config) (Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return Result{}, err
	}
	var mine *lock
	if !cfg.DryRun {
		if mine, err = takeLock(cfg.State); err != nil {
			return Result{}, err
		}
	}
	r := &run{cfg: cfg, pages: make(chan *page, pagesInFlight)}
	if err := r.open(ctx); err != nil {
		return Result{}, errors.Join(err, mine.release())
	}
	err = r.carryOut(ctx)
	err = errors.Join(err, r.close(err == nil), mine.release())
	return Result{Counts: r.state.Counts, Before: r.before}, err
}

// A Result is what an import met and did in all its runs.
type Result struct {
	Counts
	Before Counts // of the runs before this one
}

// open opens the source where the state says, or at its begin.
func (r *run) open(ctx context.Context) (err error) {
	var before *state
	if !r.cfg.DryRun && !r.cfg.Restart {
		if before, err = load(r.cfg.State); err != nil {
			return err
		}
	}
	if !r.cfg.DryRun {
		if err := r.greet(ctx); err != nil {
			return err
		}
	}
	if r.src, err = r.openSource(ctx, before); err != nil {
		r.closeClients()
		return err
	}
	if r.cfg.DryRun {
		return nil
	}
	for _, w := range r.workers {
		w.doubt = !r.cfg.Replace && (before != nil || r.cfg.Restart)
	}
	if r.report, err = openReport(r.cfg.Report, r.state.ReportBytes); err != nil {
		r.closeClients()
		return errors.Join(err, r.src.close())
	}
	return nil
}

// openSource opens the source and takes over what there is of a state.
func (r *run) openSource(ctx context.Context, before *state) (src source, err error) {
	var at *mark
	if before != nil {
		at = &before.Mark
	}
	var live *liveSource
	if r.cfg.File != "" {
		src, err = openFile(&r.cfg, at)
	} else {
		live, err = openLive(ctx, &r.cfg)
		src = live
	}
	if err != nil {
		return nil, err
	}
	r.state = state{Format: stateFormat, Identity: src.identity(), Cluster: r.to.cluster(), DB: r.cfg.DB, Match: r.cfg.Match, Replace: r.cfg.Replace}
	if before == nil {
		return src, nil
	}
	if err := before.belongs(&r.cfg, src.identity(), r.to.cluster()); err != nil {
		return nil, errors.Join(err, src.close())
	}
	if src.restarted(before.Identity) {
		r.cfg.Note("the server was started anew, or does not say whether it was (run_id), so that its cursors mean nothing any more: beginning again")
		return src, nil
	}
	r.state.Mark, r.state.Counts, r.state.ReportBytes = before.Mark, before.Counts, before.ReportBytes
	r.before = before.Counts.clone()
	if live != nil {
		live.resume(before.Mark, before.Counts.Seen())
	}
	r.cfg.Note(fmt.Sprintf("going on behind %d keys", before.Counts.Seen()))
	return src, nil
}

// greet makes the workers, asks whether anybody is there at all, and of which cluster.
func (r *run) greet(ctx context.Context) error {
	to := r.cfg.To
	var clients []*redis.Client
	var errs []error
	none := false // will be taken at one of the addresses
	for _, addr := range to.Addrs {
		// All workers may be at one address, if it is the only one that answers.
		cl := to.client(addr, r.cfg.Conns, 0, r.to.greet)
		clients = append(clients, cl)
		if err := cl.Ping(ctx).Err(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", addr, err))
			none = none || judge(err) == faultStop
		}
	}
	for i := range r.cfg.Conns {
		r.workers = append(r.workers, &worker{cfg: &r.cfg, clients: clients, at: i % len(to.Addrs), jobs: make(chan job, pagesInFlight)})
	}
	if none || len(errs) == len(to.Addrs) {
		r.closeClients()
		return errors.Join(errs...)
	}
	return nil
}

func (r *run) closeClients() {
	if len(r.workers) == 0 {
		return
	}
	for _, cl := range r.workers[0].clients {
		_ = cl.Close() // nothing more is expected of it
	}
}

// carryOut reads, writes and books.
func (r *run) carryOut(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, w := range r.workers {
		wg.Go(func() {
			if err := w.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Go(func() {
		if err := r.read(ctx); err != nil {
			cancel(err)
		}
	})
	err := r.book(ctx)
	if err != nil {
		cancel(err)
	}
	wg.Wait()
	if err == nil && r.ended != nil {
		return errors.Join(r.ended, r.save())
	}
	return err
}

// read takes pages from the source until its end, and hands them out.
func (r *run) read(ctx context.Context) error {
	defer func() {
		for _, w := range r.workers {
			close(w.jobs)
		}
	}()
	seed := maphash.MakeSeed()
	for {
		p, err := r.src.next(ctx)
		if err != nil {
			if err != io.EOF {
				r.ended = err // what was read before is still written
			}
			close(r.pages)
			return nil
		}
		if r.cfg.DryRun {
			close(p.ended)
		} else if err := spread(ctx, p, r.workers, seed); err != nil {
			return err
		}
		select {
		case r.pages <- p:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// saveEvery is the time between two states.
const saveEvery = 500 * time.Millisecond

// book takes the pages that have ended, in order.
func (r *run) book(ctx context.Context) error {
	for {
		select {
		case p, more := <-r.pages:
			if !more {
				return nil
			}
			if err := r.bookPage(ctx, p); err != nil {
				return err
			}
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), r.save())
		}
	}
}

func (r *run) bookPage(ctx context.Context, p *page) error {
	select {
	case <-p.ended:
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), r.save())
	}
	r.state.Mark = p.mark
	r.state.Counts.add(&p.mu.counts)
	r.cfg.Progress(p.share, &r.state.Counts)
	if r.report == nil {
		return nil
	}
	if err := r.report.add(p.mu.lines); err != nil {
		return err
	}
	r.state.ReportBytes = r.report.bytes
	if time.Since(r.saved) < saveEvery {
		return nil
	}
	return r.save()
}

// save puts the state on the disk, behind the report.
func (r *run) save() error {
	if r.cfg.DryRun {
		return nil
	}
	if err := r.report.sync(); err != nil {
		return err
	}
	r.saved = time.Now()
	return r.state.save(r.cfg.State)
}

// close ends what was opened. The state of an import that has ended is of no more use.
func (r *run) close(ended bool) error {
	errs := []error{r.src.close()}
	r.closeClients()
	if r.report != nil {
		errs = append(errs, r.report.sync(), r.report.close())
	}
	if ended && !r.cfg.DryRun {
		if err := os.Remove(r.cfg.State); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
