package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"github.com/schollz/progressbar/v3"

	"github.com/redynamo/redynamo/cmd/redynamo/migrate"
)

// importCmd brings a Redis into a cluster.
type importCmd struct {
	File string   `arg:"" optional:"" help:"RDB file to import." type:"path"`
	From string   `help:"Server to import from instead: any Redis, plain or one master of a cluster." placeholder:"HOST:PORT"`
	Addr []string `help:"Doors of the cluster; the connections are spread over them." default:"127.0.0.1:6379" placeholder:"HOST:PORT"`

	User     string `help:"User to log in as at the cluster." placeholder:"NAME"`
	AuthPass string `help:"Password to log in with at the cluster." placeholder:"SECRET"`
	clientTLS
	FromUser     string    `help:"User to log in as at the server." placeholder:"NAME"`
	FromAuthPass string    `help:"Password to log in with at the server." placeholder:"SECRET"`
	FromTLS      sourceTLS `embed:"" prefix:"from-"`

	DB      int    `name:"db" help:"Database to import; keys of others are counted." default:"0"`
	Match   string `help:"Only keys that match, as in SCAN." placeholder:"PATTERN"`
	Keep    bool   `help:"Leave keys alone that the cluster has already (the default)." xor:"there"`
	Replace bool   `help:"Write over them." xor:"there"`
	DryRun  bool   `help:"Only count, by type and size."`

	State           string        `help:"File that says how far the import is. Default: FILE.import-state, or redynamo-import-HOST-PORT-DB.state here." placeholder:"FILE" type:"path"`
	Report          string        `help:"File that names what is not imported. Default: the state's name and .report." placeholder:"FILE" type:"path"`
	Restart         bool          `help:"Begin again, whatever the state says."`
	SkipUnsupported bool          `help:"Keys of types that are not stored are no failure."`
	Conns           int           `help:"Connections to the cluster." default:"8"`
	MaxValue        byteSize      `help:"Larger values are reported; the cluster has the same limit." default:"1MiB"`
	Patience        time.Duration `help:"How long nothing may be taken before the import gives up." default:"1m"`
}

// sourceTLS is clientTLS for the server that is imported from.
type sourceTLS struct{ clientTLS }

// errNotAll says that an import has ended and that keys are missing.
var errNotAll = errors.New("not all keys were imported")

// Run imports.
func (c *importCmd) Run(ctx context.Context, con *console) error {
	cfg, err := c.settings()
	if err != nil {
		return err
	}
	logging.Disable() // what goes wrong is answered as an error
	show := newImportShow(con)
	cfg.Progress, cfg.Note = show.progress, func(text string) { fmt.Fprintln(con.err, text) }
	began := time.Now()
	counts, err := migrate.Run(ctx, cfg)
	show.end()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("stopped behind %d keys; the same command goes on from there", counts.Seen())
	case err != nil && counts.Seen() > 0 && !errors.Is(err, migrate.ErrAnew):
		return fmt.Errorf("%w (the same command goes on behind %d keys)", err, counts.Seen())
	case err != nil:
		return err
	}
	if err := c.summary(con.out, &counts, time.Since(began)); err != nil {
		return err
	}
	missing := counts.Missing()
	if c.SkipUnsupported {
		missing -= counts.Unsupported
	}
	if missing > 0 && !c.DryRun {
		return fmt.Errorf("%w: %d of them; %s names them", errNotAll, counts.Missing(), cfg.Report)
	}
	return nil
}

// settings is the import that the flags ask for.
func (c *importCmd) settings() (cfg migrate.Config, err error) {
	to, err := c.config()
	if err != nil {
		return cfg, err
	}
	from, err := c.FromTLS.config()
	if err != nil {
		return cfg, fmt.Errorf("from: %w", err)
	}
	if c.MaxValue <= 0 || c.MaxValue > 512<<20 {
		return cfg, errors.New("max-value must be at least 1 byte and at most 512MiB")
	}
	cfg = migrate.Config{
		To: migrate.Endpoint{Addrs: c.Addr, User: c.User, Password: c.AuthPass, TLS: to}, File: c.File,
		DB: c.DB, Match: c.Match, Replace: c.Replace, DryRun: c.DryRun, Restart: c.Restart, State: c.State, Report: c.Report,
		Conns: c.Conns, MaxValue: int(c.MaxValue), Patience: c.Patience,
	}
	if c.From != "" {
		cfg.From = migrate.Endpoint{Addrs: []string{c.From}, User: c.FromUser, Password: c.FromAuthPass, TLS: from}
	}
	if cfg.State == "" && c.From != "" {
		plain := strings.Map(func(r rune) rune {
			if strings.ContainsRune(`:/\[]`, r) {
				return '-'
			}
			return r
		}, c.From)
		cfg.State = fmt.Sprintf("redynamo-import-%s-%d.state", plain, c.DB)
	} else if cfg.State == "" {
		cfg.State = c.File + ".import-state"
	}
	if cfg.Report == "" {
		cfg.Report = cfg.State + ".report"
	}
	return cfg, nil
}

// summary prints what was met and done.
func (c *importCmd) summary(out io.Writer, n *migrate.Result, took time.Duration) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "type\tkeys\tbytes\t")
	for _, kind := range n.Kinds() {
		fmt.Fprintf(w, "%s\t%d\t%d\t\n", kind, n.Types[kind].Keys, n.Types[kind].Bytes)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var parts []string
	part := func(n int64, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	if !c.DryRun {
		fmt.Fprintf(out, "%d keys written in %v\n", n.Written-n.Before.Written, took.Round(time.Millisecond))
		if n.Before.Seen() > 0 {
			fmt.Fprintf(out, "%d written by the runs before; all other figures are of all runs\n", n.Before.Written)
		}
		part(n.Kept, "were there already and are as they were")
		part(n.Refused, "refused")
	}
	part(n.Expired, "expired")
	part(n.Unmatched, "do not match")
	part(n.Unsupported, "of types that are not stored")
	part(n.TooLong, "too long")
	for _, db := range sortedKeys(n.Databases) {
		part(n.Databases[db], "in database "+db)
	}
	if len(parts) > 0 {
		fmt.Fprintf(out, "besides: %s\n", strings.Join(parts, ", "))
	}
	return nil
}

func sortedKeys(m map[string]int64) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// importShow is where progress is shown: a bar on a terminal, else a line every few
// seconds.
type importShow struct {
	con  *console
	bar  *progressbar.ProgressBar // nil: no terminal
	last time.Time
	pace pace
}

// showEvery is the time between two lines.
const showEvery = 5 * time.Second

func newImportShow(con *console) *importShow {
	s := &importShow{con: con, last: time.Now()}
	if f := terminal(con.err); f != nil {
		s.bar = newWatchBar(f)
	}
	return s
}

func (s *importShow) progress(share float64, n *migrate.Counts) {
	now := time.Now()
	every := showEvery
	if s.bar != nil {
		every = 100 * time.Millisecond
	}
	if now.Sub(s.last) < every {
		return
	}
	s.last = now
	text := fmt.Sprintf("%d keys, %d written", n.Seen(), n.Written)
	if d, known := s.pace.left(now, share); known {
		text += fmt.Sprintf(", about %v left", max(d.Round(time.Second), time.Second))
	}
	if s.bar == nil {
		fmt.Fprintf(s.con.err, "%.0f%%: %s\n", 100*share, text)
		return
	}
	s.bar.Describe(text)
	_ = s.bar.Set64(min(int64(share*barSteps), barSteps-1)) // only a picture
}

func (s *importShow) end() {
	if s.bar != nil {
		_ = s.bar.Finish() // only a picture
	}
}
