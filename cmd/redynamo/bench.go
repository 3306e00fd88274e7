package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"github.com/schollz/progressbar/v3"

	"github.com/redynamo/redynamo/cmd/redynamo/loadgen"
	"github.com/redynamo/redynamo/cmd/redynamo/record"
)

// benchCmd loads running servers and prints one row per operation and
// pipeline depth.
type benchCmd struct {
	Addr       []string      `help:"Servers to load; clients are spread over them." default:"127.0.0.1:6379" placeholder:"HOST:PORT"`
	Op         []string      `help:"Operations, one row each: set, get or mixed." default:"set,get"`
	Pipeline   []int         `help:"Commands in flight per connection, one row each." default:"1,16"`
	Clients    int           `help:"Connections." default:"50"`
	Keys       int           `help:"Distinct keys: 100000, or 100 of each workload with --history." default:"0"`
	ValueBytes int           `help:"Bytes of a value." default:"100"`
	Duration   time.Duration `help:"Measured time of a row." default:"3s"`
	Warmup     time.Duration `help:"Time before it that is not counted." default:"500ms"`
	PID        []int         `name:"pid" help:"Processes of the server, to account their CPU time." placeholder:"PID"`
	AuthPass   string        `help:"Password to log in with." placeholder:"SECRET"`
	clientTLS
	Fill bool `help:"Set every key once before the first row." default:"true" negatable:""`

	History  string        `help:"Measure nothing: write down in this file what clients do and see, for 'redynamo check'." placeholder:"FILE" type:"path"`
	Workload string        `help:"What the clients of a history do: add, cart, delete, expire, plain or mixed." default:"mixed"`
	Think    time.Duration `help:"How long a client of a history waits between two operations, on average." default:"5ms"`
	Settle   time.Duration `help:"How long the owners of a history's keys may take to become equal after the load." default:"1m"`
	Calm     bool          `help:"Say in the history that no fault happens; more is held to be broken then."`
}

// Run fills, loads and prints.
func (b *benchCmd) Run(ctx context.Context, con *console) error {
	secure, err := b.config()
	if err != nil {
		return err
	}
	if b.History != "" {
		return b.record(ctx, con, secure)
	}
	cfg := loadgen.Config{
		Addrs: b.Addr, Password: b.AuthPass, TLS: secure, Clients: b.Clients, Keys: b.Keys, ValueBytes: b.ValueBytes,
		Duration: b.Duration, Warmup: b.Warmup, PIDs: b.PID,
	}
	if b.Fill {
		if err := loadgen.Fill(ctx, cfg); err != nil {
			return err
		}
	}
	tw := tabwriter.NewWriter(con.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "op\tpipeline\tops/s\tp50 ms\tp99 ms\tp99.9 ms\tmax ms\tcpu us/op\terrors\t")
	for _, op := range b.Op {
		for _, depth := range b.Pipeline {
			cfg.Op, cfg.Pipeline = op, depth
			res, err := loadgen.Run(ctx, cfg, progress(con, fmt.Sprintf("%s x%d", op, depth)))
			if err != nil {
				return err
			}
			fmt.Fprintf(tw, "%s\t%d\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", op, depth, res.PerSecond(),
				millis(res.P50), millis(res.P99), millis(res.P999), millis(res.Max), micros(res.CPUPerOp), failures(res))
		}
	}
	return tw.Flush()
}

// record writes a history.
func (b *benchCmd) record(ctx context.Context, con *console, secure *tls.Config) (err error) {
	f, err := os.Create(b.History)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	cfg := record.Config{
		Addrs: b.Addr, Password: b.AuthPass, TLS: secure, Workload: b.Workload, Clients: b.Clients, Keys: b.Keys, ValueBytes: b.ValueBytes,
		Duration: b.Duration, Think: b.Think, Settle: b.Settle, Calm: b.Calm,
	}
	logging.Disable() // what goes wrong stands in the history
	sum, err := record.Run(ctx, cfg, f, func(what string) { fmt.Fprintln(con.err, what) })
	if err != nil {
		return err
	}
	fmt.Fprintf(con.out, "%s: %d operations, %d of them not ok, on %d keys; the owners of %d keys were not equal in time\n",
		b.History, sum.Operations, sum.Failed, sum.Keys, sum.Unequal)
	return nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

func micros(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Microsecond))
}

func failures(r loadgen.Result) string {
	if len(r.Errors) == 0 {
		return "0"
	}
	var words []string
	for word, n := range r.Errors {
		words = append(words, fmt.Sprintf("%s:%d", word, n))
	}
	sort.Strings(words)
	return strings.Join(words, " ")
}

// progress draws a bar on a terminal and says nothing otherwise: the rows of
// the table are the plain lines.
func progress(con *console, what string) func(float64, int64) {
	f := terminal(con.err)
	if f == nil {
		return nil
	}
	bar := progressbar.NewOptions(100, progressbar.OptionSetWriter(f), progressbar.OptionSetDescription(what), progressbar.OptionClearOnFinish())
	return func(done float64, ops int64) {
		_ = bar.Set(int(done * 100)) // a bar that cannot be drawn is no reason to stop
	}
}

// terminal is the terminal behind w, nil if there is none.
func terminal(w io.Writer) *os.File {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}
